"""Rendered folders: the right pixels, the same bytes however they came about, clear refusals."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from glpi_jax import files
from glpi_jax.cli import main
from glpi_jax.data.images import read_image
from glpi_jax.data.sources import load_database
from glpi_jax.errors import GlpiError
from glpi_jax.saqt import distort, photographs, seed_for
from glpi_jax.saqt.photographs import Selection, select_all, select_labelled, select_matched
from glpi_jax.saqt.record_shards import unpack
from glpi_jax.saqt.render import Rendered, render_photographs
from glpi_jax.saqt.render_photograph import RenderSettings
from glpi_jax.saqt.rendered import Record, append_record, read_records
from glpi_jax.saqt.verify import verify_rendered

SETTINGS = RenderSettings(
    types=(1, 11),
    levels=(1, 4),
    seed=7,
    dncnn=None,
    format_name="png",
    arrayrecord=False,
    apply_orientation=False,
)
NAMES = ("ash.png", "birch.at.dawn.png", "cedar.png", "elm.png", "fir.png")


def photograph(seed: int, width: int = 60, height: int = 50) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed, name in enumerate(NAMES):
        Image.fromarray(photograph(seed)).save(folder / name)
    return folder


def render(selection: Selection | Path, out: Path, **changes: Any) -> Rendered:
    options: dict[str, Any] = {
        "shard": (1, 1),
        "processes": 1,
        "skip_bad": False,
        "progress": False,
    }
    options |= {key: changes.pop(key) for key in [*changes] if key in options}
    if isinstance(selection, Path):
        selection = select_all(selection)
    return render_photographs(selection, out, replace(SETTINGS, **changes), **options)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(path: Path) -> np.ndarray:
    return read_image(path, apply_orientation=False)


def expected(path: Path, kind: int, level: int, **options: Any) -> np.ndarray:
    return distort(read(path), kind, level, rng=seed_for(path.name, kind, level, 7), **options)


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs under two types and levels, rendered in this process at one go."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert render(root, out) == Rendered(5, 20, (), 0, None)
    return out


@pytest.fixture
def three_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "SOURCES_PER_FILE", 2)


@pytest.mark.parametrize("format_name", ["png", "webp", "bmp"])
@pytest.mark.parametrize("arrayrecord", [False, True])
def test_every_format_holds_the_distorted_photographs(
    root: Path, tmp_path: Path, format_name: str, arrayrecord: bool
) -> None:
    out = tmp_path / "out"
    render(root, out, format_name=format_name, arrayrecord=arrayrecord)
    if arrayrecord:
        held = dict(unpack(out / "001.array_record"))
        assert sorted(path.name for path in out.iterdir()) == [
            "001.array_record",
            "manifest",
            "manifest.json",
        ]
        for name, image in held.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(image)
        out = tmp_path
    made = sorted(path.name for path in (out / "001").iterdir())
    assert made == [
        f"{Path(name).stem}_{kind:02d}_{level:02d}.{format_name}"
        for name in NAMES
        for kind in (1, 11)
        for level in (1, 4)
    ]
    for name in NAMES:
        for kind in (1, 11):
            image = out / "001" / f"{Path(name).stem}_{kind:02d}_04.{format_name}"
            with Image.open(image) as opened:
                assert opened.format == format_name.upper()
                np.testing.assert_array_equal(np.asarray(opened), expected(root / name, kind, 4))


def test_all_types_and_levels_at_once_are_those_one_by_one(root: Path, tmp_path: Path) -> None:
    types = tuple(range(1, 26))
    alone = tmp_path / "photographs"
    alone.mkdir()
    (alone / NAMES[0]).write_bytes((root / NAMES[0]).read_bytes())
    made = render(alone, tmp_path / "out", types=types, levels=(1, 2, 3, 4, 5))
    assert made.images == 125
    for kind in types:
        for level in range(1, 6):
            image = read(tmp_path / f"out/001/ash_{kind:02d}_{level:02d}.png")
            np.testing.assert_array_equal(image, expected(alone / NAMES[0], kind, level))


def command(root: Path, out: Path) -> list[str]:
    options = ["--types", "1", "11", "--levels", "1", "4", "--seed", "7", "--processes", "2"]
    return [sys.executable, "-m", "glpi_jax", "saqt", "render", str(root), str(out), *options]


def wait_until(reached: Callable[[], bool]) -> None:
    for _ in range(6000):  # a minute
        if reached():
            return
        time.sleep(0.01)
    raise AssertionError("not reached in a minute")


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_killed_again_and_again_by_two_processes_it_ends_with_the_same_bytes(
    root: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def images() -> int:
        return len(list(out.glob("001/*.png")))

    def kill(how: Callable[[int], object], after: int) -> tuple[int, str]:
        before = images()
        with subprocess.Popen(
            command(root, out), stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            wait_until(lambda: process.poll() is not None or images() >= before + after)
            how(process.pid)
            error = process.communicate()[1]
        wait_until(lambda: is_gone(process.pid))  # no worker outlives its parent
        return process.returncode, error

    rng = np.random.default_rng()
    after = int(rng.integers(0, 4))
    code, _ = kill(lambda pid: os.killpg(pid, signal.SIGKILL), after)
    assert code == -signal.SIGKILL
    code, error = kill(lambda pid: os.killpg(pid, signal.SIGINT), 1)
    if code != 0:  # it may have been quicker
        assert code == 130
        assert "Traceback" not in error
        assert error.splitlines()[-1].endswith("the same command goes on where it stopped")
    kill(lambda pid: os.kill(pid, signal.SIGKILL), 1)
    render(root, out, processes=2)
    assert content(out) == content(undisturbed), f"killed after {after} images"


class Killed(BaseException):
    """Ends a run as a kill would: nothing cleans up after it."""


@pytest.mark.parametrize("arrayrecord", [False, True])
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_every_rename_it_loses_nothing(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    three_folders: None,
    arrayrecord: bool,
    before: bool,
) -> None:
    """A kill just before or after each file gets its name, one more each time."""
    changes = {"types": (1,), "levels": (1,), "arrayrecord": arrayrecord}
    whole = tmp_path / "whole"
    render(root, whole, **changes)
    original = os.replace
    for kills in range(100):
        out = tmp_path / str(kills)
        left = kills

        def rename(source: Any, target: Any) -> None:
            nonlocal left
            if before and left == 0:
                left = -1
                raise Killed
            original(source, target)
            if left == 0:
                left = -1
                raise Killed
            left -= 1

        monkeypatch.setattr(os, "replace", rename)
        try:
            render(root, out, **changes)
        except Killed:
            killed = True
        else:
            killed = False
        monkeypatch.setattr(os, "replace", original)
        render(root, out, **changes)
        assert content(out) == content(whole)
        if not killed:
            break
    # The manifest, five images, the records of three folders, and the folders' own files.
    assert kills == 1 + 5 + 3 + (3 if arrayrecord else 0)


def test_only_what_is_missing_is_rendered(
    root: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a line that was cut short, and with files that are gone or too short."""
    out = tmp_path / "out"
    render(root, out)
    lines = (out / "manifest/001.jsonl").read_text()
    (out / "manifest/001.jsonl").write_text(lines[:-20])  # of fir
    (out / "001/ash_01_04.png").unlink()
    (out / "001/cedar_11_01.png").write_bytes(b"")
    (out / "001/.elm_01_01.png.123.tmp").write_bytes(b"half")
    rendered = []
    original = files.write_bytes

    def write_bytes(path: Path, image: bytes) -> None:
        rendered.append(path.name.partition("_")[0])
        original(path, image)

    monkeypatch.setattr("glpi_jax.saqt.render_photograph.write_bytes", write_bytes)
    assert render(root, out).images == 20
    assert sorted(set(rendered)) == ["ash", "cedar", "fir"]
    assert content(out) == content(undisturbed)
    rendered.clear()
    render(root, out)
    assert rendered == []


def test_what_is_packed_is_not_rendered_again_unless_it_is_damaged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    render(root, out, arrayrecord=True)
    before = content(out)
    with monkeypatch.context() as patch:
        patch.setattr("glpi_jax.saqt.render_photograph.write_bytes", None)
        assert render(root, out, arrayrecord=True).images == 20
    assert content(out) == before
    (out / "001.array_record").write_bytes(before["001.array_record"][:-1])
    render(root, out, arrayrecord=True)
    assert content(out) == before


def test_parts_together_are_the_whole(root: Path, tmp_path: Path, three_folders: None) -> None:
    render(root, tmp_path / "whole")
    out = tmp_path / "out"
    assert render(root, out, shard=(2, 2)) == Rendered(2, 8, (), 3, None)
    assert [path.name for path in out.iterdir() if path.name.isdigit()] == ["002"]
    assert render(root, out, shard=(1, 2)) == Rendered(3, 12, (), 0, None)
    assert content(out) == content(tmp_path / "whole")
    assert render(root, out, shard=(4, 4)) == Rendered(0, 0, (), 0, None)
    with pytest.raises(GlpiError, match="shard 3/2: must be a part from 1"):
        render(root, out, shard=(3, 2))


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
    monkeypatch.setattr("glpi_jax.saqt.render.version", lambda name: "0.1")
    with pytest.raises(GlpiError, match=r'versions.numpy is ".+" there, "0.1" now'):
        render(root, undisturbed)


def test_a_folder_of_something_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    for out in (tmp_path, tmp_path / "holiday.txt"):
        with pytest.raises(GlpiError, match=r"holds something else|not a folder"):
            render(root, out)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_dncnn_denoises_and_is_written_down(root: Path, tmp_path: Path) -> None:
    from glpi_jax.saqt.dncnn import load_dncnn

    rng = np.random.default_rng(0)
    state = {}
    for layer in range(17):
        shape = (1 if layer == 16 else 64, 1 if layer == 0 else 64, 3, 3)
        state[f"model.{2 * layer}.weight"] = 0.05 * rng.standard_normal(shape).astype(np.float32)
        state[f"model.{2 * layer}.bias"] = np.zeros(shape[0], np.float32)
    weights = tmp_path / "weights.safetensors"
    save_file(state, weights)
    out = tmp_path / "out"
    alone = tmp_path / "photographs"
    alone.mkdir()
    (alone / "ash.png").write_bytes((root / "ash.png").read_bytes())
    only_denoise = {"types": (15,), "levels": (4,)}
    render(alone, out, **only_denoise, dncnn=weights)
    denoiser = load_dncnn(weights)
    image = read(out / "001/ash_15_04.png")
    np.testing.assert_array_equal(image, expected(root / "ash.png", 15, 4, denoiser=denoiser))
    identity = json.loads((out / "manifest.json").read_text())["settings"]["denoiser"]
    assert identity.startswith(f"{denoiser.identity}, by JAX ")
    with pytest.raises(GlpiError, match=r"settings.denoiser is .*DnCNN.* there, .*tv_chambolle"):
        render(alone, out, **only_denoise)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "I;16", "CMYK"])
def test_photographs_of_other_kinds(tmp_path: Path, mode: str) -> None:
    rgb = Image.fromarray(photograph(3))
    root = tmp_path / "photographs"
    root.mkdir()
    path = root / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        rgb.convert(mode).save(path)
    render(root, tmp_path / "out", types=(4, 6))
    for kind in (4, 6):
        image = read(tmp_path / f"out/001/a_{kind:02d}_04.png")
        np.testing.assert_array_equal(image, expected(path, kind, 4))
    assert verify_rendered(tmp_path / "out", fast=False, threads=2, progress=False).problems == []


def test_orientation_is_applied_when_asked(tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photograph(3)).save(root / "a.png", exif=exif)
    render(root, tmp_path / "stored")
    render(root, tmp_path / "turned", apply_orientation=True)
    for name, turned in (("stored", False), ("turned", True)):
        image = read(tmp_path / name / "001/a_01_01.png")
        photographed = read_image(root / "a.png", apply_orientation=turned)
        np.testing.assert_array_equal(image, distort(photographed, 1, 1))


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


def test_full_disk_leaves_nothing_half_written(
    root: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The kernel refuses files beyond a limit, in the rendering processes too."""
    out = tmp_path / "out"
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *command(root, out)[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert "cannot be written (File too large); make room, and the same command goes on" in line
    sizes = {path.name: path.stat().st_size for path in undisturbed.glob("001/*")}
    for name, image in content(out / "001").items():
        assert len(image) == sizes[name]  # no part of a file, and no temporary one
    assert len(content(out / "001")) < len(sizes)
    render(root, out)
    assert content(out) == content(undisturbed)


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "001.jsonl"
    first = Record("001/a", "a.png", 1, "f", 6, 5, {"01_01": (3, "g")})
    append_record(path, first)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(GlpiError, match=r"001\.jsonl: cannot be written"):
            append_record(path, replace(first, prefix="001/b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    append_record(path, replace(first, prefix="001/b"))
    assert [*read_records(path).records] == ["001/a", "001/b"]


@pytest.fixture
def label_tables(tmp_path: Path) -> Path:
    """For three of the photographs, in two folders; a label of its own for each image."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for place, prefix in enumerate(("001/fir", "001/ash", "002/cedar")):
        lines = [
            f"{prefix}_{kind:02d}_{level:02d}.bmp,{place + kind / 32 + level / 256}"
            for kind in range(1, 26)
            for level in range(1, 6)
        ]
        (folder / f"labels_{place}.csv").write_text("\n".join(["dist_img,label", *lines, ""]))
    return folder


@pytest.mark.parametrize("arrayrecord", [False, True])
def test_labels_make_it_a_database(
    root: Path, tmp_path: Path, label_tables: Path, arrayrecord: bool
) -> None:
    out = tmp_path / "out"
    selection = select_labelled(root, label_tables, skip_bad=False)
    changes = {"arrayrecord": arrayrecord, "types": (11, 1)}
    assert render(selection, out, shard=(1, 2), **changes) == Rendered(2, 8, (), 1, None)
    kind = "prepared" if arrayrecord else "csv"
    assert render(selection, out, shard=(2, 2), **changes) == Rendered(1, 4, (), 0, kind)
    database = load_database(kind, out)
    assert len(database) == 12
    assert database.higher_is_better is True
    assert database.reference_order == ("ash.png", "cedar.png", "fir.png")
    labelled = load_database("saqt", root, label_tables)
    for row, name in enumerate(database.images):
        there = labelled.images.index(name.replace(".png", ".bmp"))
        assert database.scores[row] == labelled.scores[there]
        assert database.references[row] == labelled.references[there]
        assert database.distortions[row] == labelled.distortions[there]
        assert database.levels[row] == labelled.levels[there]
        number = 1 if database.distortions[row] == "gaussian_blur" else 11
        (tmp_path / "image.png").write_bytes(database.encoded(row))
        np.testing.assert_array_equal(
            read(tmp_path / "image.png"),
            expected(root / database.references[row], number, database.levels[row] or 0),
        )
    assert verify_rendered(out, fast=False, threads=1, progress=False).problems == []


def test_similarity_table_decides_on_order_and_folder(
    root: Path, tmp_path: Path, three_folders: None
) -> None:
    table = tmp_path / "similarity.csv"
    rows = ["elm.png,I01.png,0.5", "none.png,I01.png,0.5", "ash.png,I01.png,0.5"]
    table.write_text("\n".join(["kadis,kadid-10k,sim_value", *rows, ""]))
    with pytest.raises(GlpiError, match=r"'none\.png' is not in .* leave them out with --skip-bad"):
        select_matched(root, table, skip_bad=False)
    selection = select_matched(root, table, skip_bad=True)
    assert [photograph.prefix for photograph in selection.photographs] == ["001/elm", "002/ash"]
    assert len(selection.left_out) == 1
    render(selection, tmp_path / "out")
    image = read(tmp_path / "out/002/ash_11_04.png")
    np.testing.assert_array_equal(image, expected(root / "ash.png", 11, 4))


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[None]:
    """It has folder 001 of `tmp_path / "out"`."""
    (tmp_path / "out").mkdir()
    code = (
        "import sys; from pathlib import Path; from glpi_jax.saqt.rendered import Locks\n"
        "Locks(Path(sys.argv[1])).folder('001'); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.communicate()


def test_two_runs_do_not_write_one_folder(root: Path, tmp_path: Path, other_process: None) -> None:
    with pytest.raises(GlpiError, match="another process is rendering folder 001"):
        render(root, tmp_path / "out")
    assert not (tmp_path / "out/001").exists()


def test_forty_megapixels_take_bounded_memory(tmp_path: Path) -> None:
    """At most 45 bytes a pixel under this type: the float32 image thrice, 8 bits thrice."""
    root = tmp_path / "photographs"
    root.mkdir()
    row = np.arange(7300, dtype=np.uint16)[None, :, None] // 29
    image = np.broadcast_to(row.astype(np.uint8), (5500, 7300, 3))
    Image.fromarray(np.ascontiguousarray(image)).save(root / "a.bmp")
    tracemalloc.start()
    try:
        made = render(root, tmp_path / "out", types=(18,), levels=(5,), format_name="bmp")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.images == 1
    assert peak < 45 * 5500 * 7300


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
