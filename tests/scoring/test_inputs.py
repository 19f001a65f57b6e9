"""What arguments stand for: files, folders, patterns, URLs, lists on stdin."""

import io
import os

import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.scoring import Problem
from glpi_jax.scoring.inputs import list_inputs


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "note.txt", "odd.data", "deep/c.png", "deep/er/d.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)


def listed(*arguments, stdin=b"", null=False):
    return list(list_inputs(arguments, stdin=io.BytesIO(stdin), null=null))


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["odd.data"], ["odd.data"]),
        (["deep"], ["deep/c.png", "deep/er/d.webp"]),
        (["./deep//c.png"], ["deep/c.png"]),
        (["*.png"], ["a.png"]),
        (["[ab].*"], ["a.png", "b.jpg"]),
        (["deep/**/*.webp"], ["deep/er/d.webp"]),
        (["d*"], ["deep/c.png", "deep/er/d.webp"]),
        (["deep/**"], ["deep/c.png", "deep/er/d.webp"]),
        (["d**/"], ["deep/c.png", "deep/er/d.webp"]),
        (["b.jpg", ".", "a.png"], ["b.jpg", "a.png", "deep/c.png", "deep/er/d.webp"]),
        (["http://host/a//b.png"], ["http://host/a//b.png"]),
        (["HTTPS://host/*.png?x"], ["HTTPS://host/*.png?x"]),
    ],
)
def test_what_is_found(arguments, expected):
    assert listed(*arguments) == expected


@pytest.mark.usefixtures("photos")
def test_a_name_with_brackets_is_no_pattern_if_it_exists(tmp_path):
    (tmp_path / "[a].png").touch()
    assert listed("[a].png") == ["[a].png"]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("missing.png", "missing.png: no such file or folder"),
        ("*.bmp", "*.bmp: no file or folder matches"),
        ("empty", "empty: no image in this folder (looked for"),
        ("x" * 300, "cannot be read (File name too long)"),
    ],
)
def test_what_is_not_found_is_a_problem_among_the_others(argument, words):
    first, problem, last = listed("a.png", argument, "b.jpg")
    assert (first, last) == ("a.png", "b.jpg")
    assert isinstance(problem, Problem)
    assert problem.name == argument
    assert words in problem.error


@pytest.mark.usefixtures("photos")
def test_a_folder_that_cannot_be_listed_hides_no_other(monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path) == "deep/er":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    problem = Problem("deep", "deep/er: this folder cannot be listed (Permission denied)")
    assert listed("deep") == ["deep/c.png", problem]


@pytest.mark.usefixtures("photos")
def test_a_list_on_stdin():
    text = b"a.png\ndeep\n\nmissing.png\r\nhttp://host/x.png\n*.png"
    found = listed("-", "b.jpg", stdin=text)
    assert [entry if isinstance(entry, str) else entry.error for entry in found] == [
        "a.png",
        "deep/c.png",
        "deep/er/d.webp",
        "missing.png: no such file or folder",
        "http://host/x.png",
        "*.png: no such file; a list takes no patterns",
        "b.jpg",
    ]


@pytest.mark.usefixtures("photos")
def test_a_list_divided_by_zero_bytes(tmp_path):
    names = [b"new\nline.png", b" space .png", b"latin \xe9.png", b"end\r"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    assert listed("-", stdin=b"\0".join(names), null=True) == [os.fsdecode(n) for n in names]


@pytest.mark.usefixtures("photos")
def test_a_long_list_is_read_as_it_is_asked_for():
    stdin = io.BytesIO(b"a.png\n" * 500_000)
    found = list_inputs(["-"], stdin=stdin)
    assert next(found) == "a.png"
    assert stdin.tell() < 100_000
    assert sum(1 for _ in found) == 499_999


@pytest.mark.usefixtures("photos")
def test_lines_across_blocks_are_whole():
    names = [f"{'n' * (i % 90)}{i}.png" for i in range(5000)]
    found = listed("-", stdin="\n".join(names).encode())
    assert [problem.name for problem in found] == names


@pytest.mark.usefixtures("photos")
def test_stdin_that_is_no_list():
    with pytest.raises(GlpiError, match="stdin: no list of paths"):
        listed("-", stdin=b"x" * 300_000)
    for content in (b"\xff\xd8\xff\xe0\0\x10JFIF", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        for null in (False, True):
            with pytest.raises(GlpiError, match="-: an image on stdin"):
                listed("-", stdin=content, null=null)
    with pytest.raises(GlpiError, match="needs --null"):
        listed("-", stdin=b"a.png\0b.jpg\0")
