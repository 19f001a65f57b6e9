"""Arguments of the commands that score: what each is taken for, and what is said of wrong ones."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glpi_jax.cli.main import main


@pytest.fixture
def photos(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("photos/a.png", 80, 70)
    save("photos/b.png", 90, 70)
    os.mkdir("model")
    with open("model/run.json", "w") as file:
        file.write("{}")
    return tmp_path / "photos"


def run(capsys, *arguments, code=0):
    assert main([*map(str, arguments)]) == code
    output = capsys.readouterr()
    return output.out, output.err


def usage_error(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert caught.value.code == 2
    usage, *_, line = capsys.readouterr().err.splitlines(keepends=True)
    assert usage.startswith(f"usage: glpi {arguments[0]}")
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score"], "required: [MODEL] IMAGE|FOLDER|URL|-"),
        (["score", ""], "argument [MODEL] IMAGE|FOLDER|URL|-: empty; is a variable not set?"),
        (["score", "a.png", ""], "argument IMAGE|FOLDER|URL|-: empty"),
        (["score", "a.png", "--model", ""], "argument --model: empty"),
        (["score", "a.png", "--csv", ""], "argument --csv: empty"),
        (["rank", ""], "argument FOLDER|IMAGE|URL: empty"),
        (["map", "a.png", "--out", ""], "argument --out: empty"),
        (["compare", "", "b.png"], "argument A: empty"),
        (["serve", "--host", ""], "argument --host: empty; is a variable not set?"),
        (["compare", "model", "a", "b"], "unknown arguments: b; a model goes after --model"),
        (["score", "a", "b", "--crops", "2", "c"], "c; name all images together, a model"),
        (["rank", "a", "--crops", "2", "c"], "c; name all images together, a model"),
        (["rank", "a.png", "--no"], "unknown arguments: --no\n"),
    ],
)
def test_usage_errors_name_the_argument(arguments, words, capsys):
    assert words in usage_error(capsys, *arguments)


@pytest.mark.usefixtures("photos", "no_model")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "photos", "model"], "model: a model in the place of an image; --model model"),
        (["score", "--model", "m.pth", "model"], "model: a model in the place of an image"),
        (["rank", "model", "photos"], "model: a model in the place of an image"),
        (["compare", "model", "photos/a.png"], "model: a model in the place of an image"),
        (["map", "model", "--out", "m.png"], "model: a model in the place of an image"),
        (["rank", "-"], "-: only `glpi score` reads a list from stdin"),
        (["score", "photos", "--null"], "--null: is for a list on stdin"),
        (["score", "photos", "--crops", "100000000"], "--crops 100000000: must be 1 to 1024"),
        (["score", "photos", "--placement", "random", "--seed", "-1"], "--seed -1: must not be"),
    ],
)
def test_before_the_work_an_error_is_one_line(arguments, words, capsys):
    out, err = run(capsys, *arguments, code=2)
    assert out == ""
    assert err.startswith(f"glpi: error: {words}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("first", ["empty", "locked"])
def test_a_folder_without_images_stops_no_other(first, photos, capsys, monkeypatch):
    os.makedirs("empty")
    os.makedirs("locked/inner")
    scandir = os.scandir

    def refuse(path):
        if str(path) == "locked/inner":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for arguments in ([first, "photos"], ["photos", first]):
        out, err = run(capsys, "score", *arguments, code=2)
        assert len(out.splitlines()) == 2
        assert len([line for line in err.splitlines() if "error: " in line]) == 1


def test_a_home_folder_in_every_place(photos, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.parent))
    for pattern in ("~/photos/*.png", "~/photos"):
        out, _ = run(capsys, "score", pattern, "--csv", "~/s.csv")
        assert out.count(f"{photos}/") == 2
    assert os.path.exists("s.csv")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"~/photos/a.png\n")))
    assert f"{photos}/a.png" in run(capsys, "score", "-")[0]
    assert f"error: {photos}/model.pth: no such" in run(
        capsys, "score", "--model", "~/photos/model.pth", "photos", code=2
    )[1]  # fmt: skip


def test_other_urls_say_what_is_read(photos, capsys):
    words = "of URLs only http:// and https:// are read; name a file by its path"
    for url in (f"file://{photos}/a.png", "ftp://host/a.png"):
        out, err = run(capsys, "score", url, "photos", code=2)
        assert len(out.splitlines()) == 2
        assert f"error: {url}: {words}" in err
        assert f"error: {url}: {words}" in run(capsys, "compare", url, url, code=2)[1]


@pytest.mark.usefixtures("photos")
def test_an_empty_list_is_an_error(capsys, monkeypatch):
    for content in (b"", b"\n\r\n"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        out, err = run(capsys, "score", "-", code=2)
        assert out == ""
        assert "error: -: no image in the list on stdin" in err


@pytest.mark.usefixtures("no_model")
def test_closed_stdin_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert "error: -: stdin is closed" in run(capsys, "score", "-", code=2)[1]


def test_closed_outputs_and_plain_ascii(photos, shared_compilations, demo_weights):
    """In a process of its own, since Python opens the streams."""
    os.rename("photos/a.png", "photos/é.png")
    glpi = [sys.executable, "-m", "glpi_jax", "score", "photos/é.png"]
    glpi += ["--model", demo_weights, "--csv"]

    def start(command, *arguments, **env):
        return subprocess.run(
            ["sh", "-c", command, "sh", *arguments],
            env={**shared_compilations, **env},
            capture_output=True,
            check=False,
        )

    closed = start('"$@" >&- 2>&-', *glpi, "s.csv")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, b"", b"")
    assert "photos/é.png" in Path("s.csv").read_text(encoding="utf-8")
    ascii_only = start('"$@"', *glpi, "s.csv", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0
    assert rb" \xb1 " in ascii_only.stdout
    assert rb"  photos/\xe9.png" in ascii_only.stdout


def test_names_cannot_command_the_terminal(photos, capsys):
    os.rename("photos/a.png", "photos/a\x1b[2J\nb.png")
    out, _ = run(capsys, "rank", "photos")
    assert len(out.splitlines()) == 2
    assert r"photos/a\x1b[2J\nb.png" in out
    _, err = run(capsys, "score", "x\x1b]0;\n.png", "photos", code=2)
    assert r"error: x\x1b]0;\n.png: no such file or folder" in err


def test_a_folder_of_videos_says_what_to_do(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("videos/deep")
    open("videos/deep/a.MP4", "w").close()
    _, err = run(capsys, "score", "videos", code=2)
    assert "; name its videos, as by 'videos/**'" in err
