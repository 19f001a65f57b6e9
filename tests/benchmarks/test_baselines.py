"""The baselines of benchmarks/baselines.py: NIQE itself, and how scores meet labels."""

import sys

import baselines
import numpy as np
import pytest
from niqe import Niqe, image_features
from skimage import data

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import load_database
from glpi_jax.data.splits import official_seed, strict_split


@pytest.fixture
def root(make_database, tmp_path):
    """A database of 24 images whose score falls with the level of noise."""
    return make_database(tmp_path / "database")


@pytest.fixture
def refused(monkeypatch, capsys, root):
    """`refused("--limit", "1")`: the script's error."""

    def run(*options):
        arguments = ["baselines.py", "--database", "csv", "--root", str(root), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as exit_:
            baselines.main()
        assert exit_.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("name", "expected"),
    [("astronaut", 3.06807), ("chelsea", 2.57208), ("coffee", 4.06604), ("rocket", 7.03591)],
)
def test_niqe_score_is_that_of_basicsr(name, expected):
    # BasicSR 1.4.2 on the same luma, which gives the authors' MATLAB figures. At its borders this
    # halves the image otherwise, and its shapes are interpolated.
    assert Niqe().score(getattr(data, name)()) == pytest.approx(expected, rel=2e-3)


def test_niqe_score_of_flat_blocks_beside_others_is_finite():
    image = data.astronaut()
    image[:200, :200] = 128
    assert np.isnan(image_features(image)[0]).all()
    assert np.isfinite(Niqe().score(image))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((190, 100, 3), "needs two blocks of 96×96 pixels, not 100×190"),
        ((200, 200, 3), "needs two blocks that are not flat"),
    ],
)
def test_niqe_without_two_blocks_is_refused(shape, message):
    with pytest.raises(GlpiError, match=message):
        Niqe().score(np.full(shape, 7, np.uint8))


def test_measure_turns_lower_is_better(root):
    (root / "database.json").write_text('{"score_name": "DMOS", "higher_is_better": false}')
    database = load_database("csv", root)
    labels = iter([database.scores[0], *database.scores])  # of the image before the clock as well
    score = baselines.one_by_one("labels", lambda _: next(labels))
    figures = baselines.measure("labels", score, database, range(len(database)))
    assert figures["srocc"] == pytest.approx(1)
    assert figures["plcc_logistic4"] == pytest.approx(1)
    assert (figures["method"], figures["images"]) == ("labels", 24)


def test_chosen_rows_are_those_of_the_strict_part(root):
    database = load_database("csv", root)
    split = strict_split(
        database, train_fraction=0.8, validation_fraction=0.2, seed=official_seed(3)
    )
    for part in ("train", "validation", "test"):
        rows = baselines.chosen_rows(database, split_round=3, part=part, limit=None)
        assert rows == sorted(getattr(split, part))
    spread = baselines.chosen_rows(database, split_round=None, part="test", limit=4)
    assert spread == [0, 8, 15, 23]


def test_split_fractions_are_those_of_the_configs():
    from glpi_jax.core.config import load_config, shipped_config

    split = load_config(shipped_config("base")).split
    fractions = (split.train_fraction, split.validation_fraction)
    assert fractions == (baselines.TRAIN_FRACTION, baselines.VALIDATION_FRACTION)


def test_limit_below_two_is_refused(refused):
    assert "--limit 1: a correlation needs at least 2 images" in refused("--limit", "1")


def test_small_image_names_the_file_and_the_remedy(refused):
    error = refused("--methods", "niqe")
    assert "scene0_1.png: NIQE needs two blocks" in error
    assert "--methods leaves niqe out" in error


def test_missing_brisque_names_the_extra(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "brisque", None)
    assert "pip install 'glpi_jax[baselines]'" in refused()
