"""Rendered folders: the right pixels of photographs of every kind, and labels beside them."""

import dataclasses
import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendering import NAMES, content, expected, photograph, read, render
from safetensors.numpy import save_file

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.demo_database import render_demo_database
from glpi_jax.data.images import read_image
from glpi_jax.data.sources import load_database
from glpi_jax.distortions import dispatch, distort
from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.distortions.unit_image import UnitImage
from glpi_jax.saqt.record_shards import unpack
from glpi_jax.saqt.render import Rendered
from glpi_jax.saqt.rendered import SourcePhotograph
from glpi_jax.saqt.retrieval import list_photographs
from glpi_jax.saqt.selection import Selection, select_all, select_labelled, select_matched
from glpi_jax.saqt.verify_rendered import verify_rendered


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


def test_dncnn_denoises_and_is_written_down(root: Path, tmp_path: Path) -> None:
    from glpi_jax.distortions.dncnn import load_dncnn

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


def test_types_beyond_kadid_have_no_labels(
    root: Path, tmp_path: Path, label_tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their rows would be those of the next photograph."""

    def smear(image: UnitImage, sigma: float) -> FloatImage:
        return dispatch.find_distortion(1).function(image, sigma)

    another = dataclasses.replace(dispatch.find_distortion(1), number=26, function=smear)
    monkeypatch.setattr(dispatch, "_TABLE", (*dispatch._TABLE, another))
    monkeypatch.setitem(dispatch.DISTORTIONS, 26, another)
    selection = select_labelled(root, label_tables, skip_bad=False)
    with pytest.raises(GlpiError, match="smear: label tables hold KADID-10k's types alone; leave"):
        render(selection, tmp_path / "labelled", types=(1, 26))
    assert not (tmp_path / "labelled").exists()
    assert render(root, tmp_path / "images", types=(26,)).images > 0
    with pytest.raises(GlpiError, match="smear: KADID-10k has no scores of it"):
        render_demo_database(
            tmp_path / "demo", types=(26,), seed=0, processes=1, progress=False, scenes=("cat",)
        )


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


def test_matched_photographs_are_found_in_subfolders(root: Path, tmp_path: Path) -> None:
    photographs = shutil.copytree(root, tmp_path / "photographs")
    (photographs / "wood").mkdir()
    (photographs / "ash.png").rename(photographs / "wood/ash.png")
    table = tmp_path / "similarity.csv"
    rows = ["elm.png,I01.png,0.5", "ash.png,I01.png,0.5"]
    table.write_text("\n".join(["kadis,kadid-10k,sim_value", *rows, ""]))
    selection = select_matched(photographs, table, skip_bad=False)
    assert selection == Selection(
        (
            SourcePhotograph("001/elm", photographs / "elm.png"),
            SourcePhotograph("001/ash", photographs / "wood/ash.png"),
        )
    )
    (photographs / "ash.png").touch()
    words = r"similarity\.csv: 'ash\.png' could mean ash\.png or wood/ash\.png in .*--skip-bad"
    with pytest.raises(GlpiError, match=words):
        select_matched(photographs, table, skip_bad=False)
    rest = select_matched(photographs, table, skip_bad=True)
    assert (len(rest.photographs), len(rest.left_out)) == (1, 1)
    with pytest.raises(GlpiError, match="nowhere: no such folder; give the folder of the photogr"):
        select_matched(tmp_path / "nowhere", table, skip_bad=False)


def test_a_folder_below_the_photographs(root: Path, tmp_path: Path) -> None:
    """Its images are not taken for photographs, neither here nor when references are sought."""
    photographs = shutil.copytree(root, tmp_path / "photographs")
    listed = list_photographs(photographs)
    whole = render(photographs, photographs / "out/saqt")
    before = content(photographs)
    assert render(photographs, photographs / "out/saqt") == whole
    assert content(photographs) == before
    assert list_photographs(photographs) == listed
    assert len(select_all(photographs / "out/saqt").photographs) == whole.images


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
