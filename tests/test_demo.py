"""The pieces of `glpi demo` that can be had without running it."""

import numpy as np
import pytest

from glpi_jax import demo
from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database
from glpi_jax.demo import _ladder_tables, render
from glpi_jax.scoring import ImageScore


def database_of(root, distortions, tiles=("cat_0", "cat_1")):
    """A rendered database's table: every tile in every distortion and level, none on disk."""
    rows = [(t, d, level) for t in tiles for d in distortions for level in range(1, 6)]
    return Database(
        name="demo",
        root=root,
        images=tuple(f"images/{t}_{i:02d}_{level}.png" for i, (t, _, level) in enumerate(rows)),
        scores=np.arange(len(rows), dtype=np.float64),
        references=tuple(t.partition("_")[0] for t, _, _ in rows),
        reference_order=tuple(sorted({t.partition("_")[0] for t in tiles})),
        distortions=tuple(d for _, d, _ in rows),
        levels=tuple(level for _, _, level in rows),
        score_name="MOS",
        higher_is_better=True,
        label_note="",
    )


@pytest.fixture
def scored(monkeypatch):
    """Replace the model: a picture's score is its place in the call."""
    asked = []

    class Model:
        def score(self, paths):
            asked.extend(paths)
            return [ImageScore(str(path), float(i), 0.0) for i, path in enumerate(paths)]

    monkeypatch.setattr(demo, "load", lambda workdir: Model())
    return asked


def test_the_ladder_follows_a_scenes_first_tile_through_its_levels(tmp_path, scored):
    database = database_of(tmp_path, ["white_noise", "pixelate", "jpeg"])
    path, header, *lines = _ladder_tables(database, tuple(range(len(database))), tmp_path).split(
        "\n"
    )
    assert path == str(tmp_path / "references/cat_0.png")
    assert header.split() == [
        "distortion", "untouched", *(word for i in range(1, 6) for word in ("level", str(i))),
    ]  # fmt: skip
    # The untouched tile first, then noise and JPEG as the database has them; no blur in it.
    assert [line.split() for line in lines] == [
        ["jpeg", "0.000", "6.000", "7.000", "8.000", "9.000", "10.000"],
        ["white_noise", "0.000", "1.000", "2.000", "3.000", "4.000", "5.000"],
    ]
    assert len(scored) == 11
    assert scored[0] == tmp_path / "references/cat_0.png"
    assert all("cat_1" not in str(path) for path in scored)


def test_columns_stand_under_their_heads(tmp_path, scored):
    database = database_of(tmp_path, demo.LADDERS)
    _, header, *lines = _ladder_tables(database, tuple(range(len(database))), tmp_path).split("\n")
    assert len(lines) == len(demo.LADDERS)
    assert {len(line) for line in lines} == {len(header)}


def test_every_scene_has_its_ladder(tmp_path, scored):
    database = database_of(tmp_path, ["jpeg"], tiles=("cat_0", "dog_0", "dog_1"))
    dog, cat = range(5, 15), range(5)
    text = _ladder_tables(database, (*dog, *cat), tmp_path)
    tables = [table.split("\n") for table in text.split("\n\n")]
    names = [str(tmp_path / f"references/{tile}.png") for tile in ("dog_0", "cat_0")]
    assert [table[0] for table in tables] == names
    assert [table[2].split()[1] for table in tables] == ["0.000", "1.000"]


def test_a_picture_that_cannot_be_scored_ends_the_demo(tmp_path, monkeypatch):
    class Model:
        def score(self, paths):
            return [ImageScore(str(path), error=f"{path}: no such image file") for path in paths]

    monkeypatch.setattr(demo, "load", lambda workdir: Model())
    database = database_of(tmp_path, ["jpeg"])
    with pytest.raises(GlpiError, match=r"cat_0\.png: no such image file"):
        _ladder_tables(database, tuple(range(len(database))), tmp_path)


def test_only_a_config_that_renders_can_render(tmp_path):
    with pytest.raises(GlpiError, match="no section `render`"):
        render(load_config(shipped_config("base"), [f"--config.data.root={tmp_path / 'x'}"]))
    assert not (tmp_path / "x").exists()
