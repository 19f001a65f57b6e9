"""What `glpi saqt verify` finds in a rendered folder that was tampered with."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.manifest import is_rendered
from glpi_jax.saqt.render import render_photographs
from glpi_jax.saqt.render_photograph import RenderSettings
from glpi_jax.saqt.selection import select_all
from glpi_jax.saqt.verify_rendered import verify_rendered


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two photographs under one type at two levels, as files (False) and packed (True)."""
    root = tmp_path_factory.mktemp("photographs")
    for seed, name in enumerate(("ash.png", "elm.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    made = {}
    for arrayrecord in (False, True):
        settings = RenderSettings((11,), (2, 3), 0, None, "png", arrayrecord, False)
        made[arrayrecord] = tmp_path_factory.mktemp("out") / "out"
        render_photographs(
            select_all(root),
            made[arrayrecord],
            settings,
            shard=(1, 1),
            processes=1,
            skip_bad=False,
            progress=False,
        )
    return made


@pytest.fixture
def out(originals: dict[bool, Path], tmp_path: Path) -> Path:
    return shutil.copytree(originals[False], tmp_path / "out")


@pytest.fixture
def packed(originals: dict[bool, Path], tmp_path: Path) -> Path:
    return shutil.copytree(originals[True], tmp_path / "packed")


def problems(out: Path, *, fast: bool = False) -> list[str]:
    """What is found, without the folder's own name."""
    checked = verify_rendered(out, fast=fast, threads=2, progress=False)
    return [problem.removeprefix(f"{out}/").removeprefix(str(out)) for problem in checked.problems]


def test_untouched_folders_are_as_they_should_be(originals: dict[bool, Path]) -> None:
    for out in originals.values():
        for fast in (False, True):
            checked = verify_rendered(out, fast=fast, threads=2, progress=False)
            assert (checked.images, checked.problems, checked.left_out) == (4, [], [])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("tamper", "found", "found_fast"),
    [
        (lambda file: flip(file, 100), "changed since it was rendered", None),
        (lambda file: flip(file, -1), "changed since it was rendered", None),
        (cut, r"has \d+ instead of \d+ bytes", r"has \d+ instead of \d+ bytes"),
        (lambda file: file.unlink(), "missing", "missing"),
    ],
    ids=["flipped", "flipped in the end", "truncated", "missing"],
)
def test_a_damaged_image(
    out: Path, tamper: Callable[[Path], None], found: str, found_fast: str | None
) -> None:
    tamper(out / "001/elm_11_03.png")
    for fast, message in ((False, found), (True, found_fast)):
        made = problems(out, fast=fast)
        assert len(made) == (message is not None)
        for problem in made:
            assert re.fullmatch(rf"001/elm_11_03\.png: {message}", problem)


def test_what_does_not_belong_there(out: Path) -> None:
    extra = ["001/elm_11_04.png", "001/.ash_11_02.png.7.tmp", "notes.txt", "manifest/x", "002"]
    for name in extra[:-1]:
        (out / name).touch()
    (out / "002").mkdir()
    (out / "labels.csv").write_text("image,score\n")
    for fast in (False, True):
        found = set(problems(out, fast=fast))
        assert found == {f"{name}: not in the manifest" for name in extra} | {
            "labels.csv: not from this render"
        }


def change_lines(out: Path, change: Callable[[dict], object]) -> None:
    """Change every line of the records."""
    path = out / "manifest/001.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def replace_image(out: Path, content: bytes) -> None:
    """Put another file in an image's place, with its size and hash on record."""
    (out / "001/ash_11_02.png").write_bytes(content)

    def change(line: dict) -> None:
        if line["prefix"] == "001/ash":
            line["images"]["11_02"] = [len(content), hashlib.sha256(content).hexdigest()]

    change_lines(out, change)


def test_an_image_of_another_size_or_none_at_all(out: Path) -> None:
    small = io.BytesIO()
    Image.new("RGB", (30, 19)).save(small, "PNG")
    replace_image(out, small.getvalue())
    assert problems(out) == ["001/ash_11_02.png: 30x19 instead of 30x20 pixels"]
    assert problems(out, fast=True) == []
    replace_image(out, b"text")
    assert problems(out) == ["001/ash_11_02.png: not an image in any format that Pillow reads"]


def test_unfinished_and_other_records(out: Path) -> None:
    path = out / "manifest/001.jsonl"
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second[:-9])
    found = [f"001/elm_11_0{level}.png: not in the manifest" for level in (2, 3)]
    assert problems(out) == [*found, ": 1 photographs are not rendered"]
    path.write_text(first + second)
    change_lines(out, lambda line: line["images"].pop("11_03"))
    assert "001/elm: recorded with other types and levels" in problems(out)
    path.write_text("{}\n")
    with pytest.raises(GlpiError, match=r"001\.jsonl: damaged .* delete it"):
        problems(out)


def test_packed_images(packed: Path) -> None:
    file = packed / "001.array_record"
    content = file.read_bytes()
    place = content.index(b"001/elm_11_02.png")
    flip(file, place - 300)  # in the image that stands before its name
    (problem,) = problems(packed)
    assert problem.startswith("001.array_record: damaged (")
    assert problems(packed, fast=True) == []
    file.write_bytes(content)
    change_lines(packed, lambda line: line.get("images", {}).update({"11_03": [1, "f"]}))
    assert problems(packed) == [
        f"001.array_record: 001/{name}_11_03.png: changed since it was rendered"
        for name in ("ash", "elm")
    ]


def test_packed_file_that_is_short_missing_or_of_others(packed: Path) -> None:
    file = packed / "001.array_record"
    content = file.read_bytes()
    cut(file)
    expected = f"001.array_record: has {len(content) - 1} instead of {len(content)} bytes"
    assert problems(packed) == problems(packed, fast=True) == [expected]
    file.unlink()
    assert problems(packed) == problems(packed, fast=True) == ["001.array_record: missing"]
    file.write_bytes(content)
    names = {"001/ash": "001/elm", "001/elm": "001/oak"}
    change_lines(packed, lambda line: line.update(prefix=names.get(line.get("prefix", ""), "")))
    path = packed / "manifest/001.jsonl"
    path.write_text(path.read_text().replace('"prefix": "", ', "").replace(', "prefix": ""', ""))
    assert "001.array_record: holds 001/ash_11_02.png in place of 001/elm_11_02.png" in problems(
        packed
    )


def test_labels_are_checked(out: Path) -> None:
    (out / "labels.csv").write_text("image,score\n")
    digest = hashlib.sha256(b"image,score\n").hexdigest()
    (out / "manifest/labels.json").write_text(json.dumps({"labels.csv": digest}))
    assert problems(out) == []
    (out / "labels.csv").write_text("image,mos\n")
    assert problems(out) == ["labels.csv: changed since it was written"]
    (out / "labels.csv").unlink()
    assert problems(out) == ["labels.csv: missing"]


def test_the_command(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["saqt", "verify", str(out)]) == 0
    assert f"{out}: 4 images as the manifest says (names, hashes and pixels)" in (
        capsys.readouterr().err
    )
    flip(out / "001/elm_11_03.png", 100)
    (out / "001/ash_11_02.png").unlink()
    assert main(["saqt", "verify", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{out}/001/ash_11_02.png: missing",
        f"{out}/001/elm_11_03.png: changed since it was rendered",
    ]
    assert "2 problems; delete damaged files" in said.err
    assert main(["saqt", "verify", str(out), "--fast"]) == 2


def test_the_remedy_mends_the_folder(
    originals: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Delete what is damaged and give the same command again."""
    root = tmp_path / "photographs"
    root.mkdir()
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(root / "a.png")
    command = ["saqt", "render", str(root), str(tmp_path / "out"), "--types", "11"]
    command += ["--processes", "1"]
    assert main(command) == 0
    flip(tmp_path / "out/001/a_11_05.png", 60)
    assert main(["saqt", "verify", str(tmp_path / "out")]) == 2
    (tmp_path / "out/001/a_11_05.png").unlink()
    assert main(command) == 0
    assert main(["saqt", "verify", str(tmp_path / "out")]) == 0


def test_a_link_to_nowhere_is_one_problem(out: Path) -> None:
    """Editors leave such links beside a file; an image may have become one."""
    (out / "001/.#notes").symlink_to("nowhere")
    (out / "001/ash_11_02.png").rename(out.parent / "ash.png")
    (out / "001/ash_11_02.png").symlink_to(out.parent / "ash.png")
    for fast in (False, True):
        assert problems(out, fast=fast) == ["001/.#notes: not in the manifest"]
    (out.parent / "ash.png").unlink()
    for fast in (False, True):
        first, second = problems(out, fast=fast)
        assert first == "001/.#notes: not in the manifest"
        assert re.fullmatch(r"001/ash_11_02\.png: has 0 instead of \d+ bytes", second)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("photographs", None, "photographs.count is missing"),
        ("settings", {}, "settings.types is missing"),
        ("settings", {"types": ["1"]}, r'settings.types is \["1"\]'),
        ("settings", {"types": [1], "levels": 3}, "settings.levels is 3"),
        ("settings", {"types": [1], "levels": [3]}, "settings.image_format.name is missing"),
    ],
)
def test_a_damaged_manifest(out: Path, key: str, value: object, message: str) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(GlpiError, match=rf"manifest\.json: damaged \({message}\); restore it, or"):
        problems(out)


def test_no_rendered_folder(tmp_path: Path) -> None:
    assert not is_rendered("x" * 300)  # its manifest cannot even be asked for
    with pytest.raises(GlpiError, match=r"manifest\.json: no such file; .* saqt render"):
        problems(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(GlpiError, match="not a manifest of this version's form"):
        problems(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(GlpiError, match=r"manifest\.json: cannot be read"):
        problems(tmp_path)
    with pytest.raises(GlpiError, match="threads 0: must be at least 1"):
        verify_rendered(tmp_path, fast=True, threads=0, progress=False)
