"""What rendering refuses or leaves out: other settings and photographs, bad files and options."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rendering import NAMES, content, photograph, render

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 8}, r"settings.seed is 7 there, 8 now"),
        ({"types": (1, 11, 12)}, r"settings.types is \[1, 11\] there, \[1, 11, 12\] now"),
        ({"levels": (1,)}, r"settings.levels is \[1, 4\] there, \[1\] now"),
        ({"format_name": "bmp"}, r'image_format.name is "png" there, "bmp" now'),
        ({"arrayrecord": True}, r"settings.arrayrecord is false there, true now"),
        ({"apply_orientation": True}, r"apply_orientation is false there, true now"),
    ],
)
def test_other_settings_are_refused(
    root: Path, undisturbed: Path, changes: dict[str, Any], message: str
) -> None:
    before = content(undisturbed)
    with pytest.raises(GlpiError, match=rf"out: was rendered otherwise: .*{message}"):
        render(root, undisturbed, **changes)
    assert content(undisturbed) == before


def test_other_photographs_versions_and_denoisers_are_refused(
    root: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES[1:]:
        (tmp_path / name).write_bytes((root / name).read_bytes())
    with pytest.raises(GlpiError, match=r"photographs\.count is 5 there, 4 now"):
        render(tmp_path, undisturbed)
    Image.fromarray(photograph(9)).save(tmp_path / NAMES[0])
    with pytest.raises(GlpiError, match=r"ash\.png: .*out was rendered from another file of this"):
        render(tmp_path, undisturbed)
    monkeypatch.setattr("glpi_jax.saqt.render_manifest.version", lambda name: "0.1")
    with pytest.raises(GlpiError, match=r'versions.numpy is ".+" there, "0.1" now'):
        render(root, undisturbed)


def test_a_folder_of_something_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    for out in (tmp_path, tmp_path / "holiday.txt"):
        with pytest.raises(GlpiError, match=r"holds something else|not a folder"):
            render(root, out)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    (tmp_path / "holiday.txt").unlink()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(GlpiError, match=r"holds something else \(link\)"):
        render(root, tmp_path)


@pytest.fixture
def with_bad_ones(root: Path, tmp_path: Path) -> Path:
    """A good photograph, one that is too small, a text, and one cut short behind its header."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "good.png").write_bytes((root / NAMES[0]).read_bytes())
    Image.fromarray(photograph(1, 32, 32)).save(folder / "tiny.png")
    (folder / "text.jpg").write_text("text")
    Image.fromarray(photograph(2, 300, 300)).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-2000])
    (folder / "whole.jpg").unlink()
    return folder


def test_unusable_photographs_are_named_before_the_work(
    with_bad_ones: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(GlpiError, match=r"text\.jpg: not an image .* \(and 1 more .*--skip-bad"):
        render(with_bad_ones, out, types=(20,))
    assert not out.exists()  # nor is it bound to these photographs
    (with_bad_ones / "text.jpg").unlink()
    with pytest.raises(
        GlpiError,
        match=r"tiny\.png: 32x32 pixels, but type 20 non_e.* needs 48 .*--types.*--skip",
    ):
        render(with_bad_ones, out, types=(1, 20))
    (with_bad_ones / "tiny.png").unlink()
    with pytest.raises(GlpiError, match=r"cut\.jpg: corrupt or truncated image .*--skip-bad"):
        render(with_bad_ones, out, types=(1, 20))


@pytest.mark.parametrize("arrayrecord", [False, True])
def test_unusable_photographs_are_left_out_and_listed(
    with_bad_ones: Path,
    tmp_path: Path,
    arrayrecord: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    options = ["--types", "20", "--levels", "2", "--processes", "1", "--skip-bad"]
    options += ["--arrayrecord"] if arrayrecord else []
    for _ in range(2):  # the second run finds nothing to do, and says the same
        assert main(["saqt", "render", str(with_bad_ones), str(out), *options]) == 0
        said = capsys.readouterr()
        assert said.out == f"{out}\n"
        for name in ("tiny.png: 32x32", "text.jpg: not an image", "cut.jpg: corrupt or trunc"):
            assert f"glpi: left out: {with_bad_ones}/{name}" in said.err
        assert f"glpi: {out}: 1 images of 1 photographs\n" in said.err
    assert main(["saqt", "verify", str(out)]) == 0
    assert capsys.readouterr().err.count("left out: ") == 3


def test_two_photographs_of_one_stem_are_an_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/a.jpg"):
        Image.fromarray(photograph(1)).save(tmp_path / name)
    with pytest.raises(GlpiError, match=r"sub/a\.jpg and .*/a\.png would give .* rename one"):
        render(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--types", "26"], "Distortion 26 is not available"),
        (["--types", "1", "1"], "types [1, 1]: must name at least one, and none twice"),
        (["--levels", "6"], "level 6 does not exist"),
        (["--processes", "0"], "processes 0: must be at least 1"),
        (["--shard", "1"], "--shard 1: must be of the form 1/4"),
        (["--dncnn", "/none.pth", "--types", "15"], "/none.pth"),
        (["--matches", "/none.csv"], "/none.csv: no such file"),
    ],
)
def test_bad_options_are_one_line(
    root: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--types", "1", *options] if options[0] == "--processes" else options
    assert main(["saqt", "render", str(root), str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert list(tmp_path.glob("out/001/*")) == []


def test_no_processes_leave_no_folder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(GlpiError, match="processes 0: must be at least 1"):
        render(root, tmp_path / "new", processes=0)
    assert not (tmp_path / "new").exists()
