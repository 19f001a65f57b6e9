import json
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glpi_jax.cli.main import main
from glpi_jax.core import pools as processes
from glpi_jax.core.errors import GlpiError
from glpi_jax.data import demo_database as demo
from glpi_jax.data.demo_database import (
    SCENES,
    PackagePhotograph,
    cut_tiles,
    photograph_path,
    render_demo_database,
)
from glpi_jax.data.images import read_image
from glpi_jax.data.sources import load_database
from glpi_jax.data.splits import strict_split
from glpi_jax.distortions import DISTORTIONS, MEAN_DMOS, distort, seed_for


def render(folder: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "types": (1, 11),
        "seed": 0,
        "processes": 1,
        "progress": False,
        "scenes": ("cat",),
    }
    return render_demo_database(folder, **{**settings, **changes})


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene under two types, rendered by two processes."""
    return render(tmp_path_factory.mktemp("demo") / "tiny", processes=2)


def test_database(rendered: Path) -> None:
    database = load_database("csv", rendered)
    assert len(database) == 4 * 2 * 5
    assert (database.name, database.score_name) == ("demo", "DMOS")
    assert database.higher_is_better is True
    assert "Nobody rated the training pictures themselves" in database.label_note
    assert database.reference_order == ("cat",)
    for row in range(len(database)):
        distortion, level = database.distortions[row], database.levels[row]
        number = {"gaussian_blur": 1, "white_noise": 11}[str(distortion)]
        assert database.scores[row] == MEAN_DMOS[number][int(level or 0) - 1]


def test_images_are_the_distorted_tiles(rendered: Path) -> None:
    photograph = read_image(photograph_path("cat"), apply_orientation=True)
    tiles = cut_tiles(photograph)
    names = sorted(path.name for path in (rendered / "references").iterdir())
    assert names == [f"cat_{number}.png" for number in range(1, 5)]
    for name, tile in zip(names, tiles, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(rendered / "references" / name)), tile)
    image = np.asarray(Image.open(rendered / "images" / "cat_2_11_4.png"))
    expected = distort(tiles[1], 11, 4, rng=seed_for("cat_2", 11, 4, 0))
    np.testing.assert_array_equal(image, expected)


def test_only_the_finished_folder_is_left(rendered: Path) -> None:
    assert [path.name for path in rendered.parent.iterdir()] == ["tiny"]
    manifest = json.loads((rendered / "manifest.json").read_text())
    assert manifest["settings"] == {"scenes": ["cat"], "types": [1, 11], "seed": 0}
    assert manifest["photographs"]["cat"]["credit"] == "Stefan van der Walt, CC0"


def test_images_depend_neither_on_processes_nor_on_other_types(
    rendered: Path, tmp_path: Path
) -> None:
    """Rendered into an existing empty folder, in this process."""
    folder = tmp_path / "alone"
    folder.mkdir()
    render(folder, types=(11,))
    images = sorted((folder / "images").iterdir())
    assert len(images) == 4 * 5
    for image in images:
        assert image.read_bytes() == (rendered / "images" / image.name).read_bytes()


def test_finished_render_is_reused(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(demo, "_render", refuse)
    assert render(rendered) == rendered


@pytest.mark.parametrize("changes", [{"seed": 1}, {"types": (1,)}, {"types": (11, 1)}])
def test_render_with_other_settings_is_refused(rendered: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(GlpiError, match=r"tiny: .* with other settings .* give another folder"):
        render(rendered, **changes)


def test_render_by_other_versions_is_refused(
    rendered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "version", lambda name: "0.1")
    with pytest.raises(GlpiError, match="with other versions"):
        render(rendered)


def test_damaged_render_is_refused(tmp_path: Path) -> None:
    folder = render(tmp_path / "tiny", types=(1,))
    (folder / "images" / "cat_1_01_3.png").unlink()
    with pytest.raises(GlpiError, match=r"damaged; delete it .*images/cat_1_01_3\.png"):
        render(folder, types=(1,))


def test_folder_with_other_things_and_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    for path in (tmp_path, tmp_path / "holiday.txt"):
        with pytest.raises(GlpiError, match="not a rendered demo database"):
            render(path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_failed_render_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(demo, "Distorter", fail)
    with pytest.raises(OSError, match="disk full"):
        render(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


def test_sigterm_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def terminate(*_: object) -> None:
        begun.extend(tmp_path.iterdir())
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(demo, "_write_tiles", terminate)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # or a failure would end the tests
    try:
        code = main(["data", "demo", f"--config.data.root={tmp_path / 'tiny'}"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 75
    assert len(begun) == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_finished_by_another_process_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny"
    original = demo._write_labels

    def overtaken(*arguments: Any) -> None:
        monkeypatch.undo()
        render(tmp_path / "other", types=(1,)).rename(folder)
        original(*arguments)

    monkeypatch.setattr(demo, "_write_labels", overtaken)
    assert render(folder, types=(1,)) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_dead_process_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DeadPool:
        def __init__(self, *_: object, **__: object) -> None: ...

        def submit(self, *_: object) -> None:
            raise BrokenProcessPool

        def shutdown(self, *, cancel_futures: bool) -> None: ...

    monkeypatch.setattr(processes, "ProcessPoolExecutor", DeadPool)
    with pytest.raises(GlpiError, match=r"a rendering process died.* use fewer processes"):
        render(tmp_path / "tiny", processes=2)


def test_missing_package_and_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = PackagePhotograph("no_such_package", "scikit-nothing", "a.png", "nobody")
    monkeypatch.setitem(SCENES, "cat", lost)
    with pytest.raises(GlpiError, match=r"scikit-nothing, which is not .*'glpi_jax\[demo\]'"):
        render(tmp_path / "tiny")
    monkeypatch.setitem(SCENES, "cat", PackagePhotograph("PIL", "pillow", "a.png", "nobody"))
    with pytest.raises(GlpiError, match=r"a\.png: pillow .* does not hold this photograph"):
        render(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenes": ("dog",)}, "unknown scene 'dog': must be one of astronaut, cat"),
        ({"scenes": ("cat", "cat")}, "must name at least one, and none twice"),
        ({"types": ()}, "must name at least one"),
        ({"types": (26,)}, "26 is not available"),
        ({"processes": 0}, "processes 0"),
    ],
)
def test_bad_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GlpiError, match=message):
        render(tmp_path / "tiny", **changes)
    assert list(tmp_path.iterdir()) == []


def test_tiles_are_the_centre_and_three_reductions() -> None:
    rows, columns = np.mgrid[:400, :600]
    picture = np.stack([rows % 256, columns % 256, rows % 256], axis=-1).astype(np.uint8)
    centre, *reduced = cut_tiles(picture)
    np.testing.assert_array_equal(centre, picture[8:392, 44:556])
    assert [tile.shape for tile in reduced] == [(256, 384, 3), (192, 288, 3), (144, 216, 3)]
    upright = cut_tiles(picture.transpose(1, 0, 2))
    assert upright[0].shape == (512, 384, 3)
    large = cut_tiles(np.zeros((1300, 1300, 3), np.uint8))
    assert [tile.shape[:2] for tile in large] == [(384, 512), (384, 384), (288, 288), (216, 216)]


def test_every_scene_gives_four_tiles_in_color_unless_marked_grey() -> None:
    for scene, photograph in SCENES.items():
        tiles = cut_tiles(read_image(photograph_path(scene), apply_orientation=True))
        assert len(tiles) == 4
        for tile in tiles:
            assert min(tile.shape[:2]) >= 144
            colourful = (tile[..., 0] != tile[..., 2]).mean()
            assert colourful == 0 if photograph.grey else colourful > 0.3


def test_grey_photographs_are_not_distorted_in_color(tmp_path: Path) -> None:
    folder = render(tmp_path / "tiny", types=(8, 10), scenes=("cat", "coins"))
    database = load_database("csv", folder)
    rendered = set(zip(database.references, database.distortions, strict=True))
    assert rendered == {("cat", "color_saturation_lab"), ("cat", "jpeg"), ("coins", "jpeg")}
    assert len(list((folder / "images").iterdir())) == len(database) == 3 * 4 * 5


def test_color_types_are_those_that_leave_grey_alone() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (48, 48, 1), np.uint8).repeat(3, axis=2)
    grey[0, :2] = [[0, 0, 0], [255, 255, 255]]  # no stretch
    unchanged = {
        number
        for number in DISTORTIONS
        if np.abs(distort(grey, number, 3, rng=np.random.default_rng(0)) - grey.astype(int)).max()
        <= 1
    }
    assert demo._COLOUR_TYPES - {5} <= unchanged  # 5 shifts the green plane alone


def test_scenes_suffice_for_a_strict_split(rendered: Path) -> None:
    assert len(SCENES) >= 9
    with pytest.raises(GlpiError, match="1 references are too few"):
        strict_split(
            load_database("csv", rendered), train_fraction=0.8, validation_fraction=0.2, seed=0
        )
