"""The weights that come with the package, on photographs that they never saw."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

import glpi_jax
from glpi_jax.data.demo_database import render_demo_database
from glpi_jax.data.images import read_image
from glpi_jax.distortions import Distorter, seed_for
from glpi_jax.hub.sources import read_model

WEIGHTS = Path(glpi_jax.__file__).parent / "hub/shipped"
PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "photographs").glob("*.jpg"))
UNSEEN_SCENES = ("admiral", "coins", "motorcycle")
LADDERS = ("gaussian_blur", "white_noise", "jpeg", "jpeg2000")
LARGEST_RISE = 1.0  # of a scale of 100: the mildest levels are hardly seen


@pytest.fixture(scope="module")
def score(shared_compilations):
    """Score image files by the command, with the weights of the package: (results, stderr).

    In a process of its own, whose programs are optimised: hundreds of images take a third of the
    time.
    """

    def score(files):
        done = subprocess.run(
            [sys.executable, "-m", "glpi_jax", "score", "--json", *files],
            env={**shared_compilations, "XLA_FLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        assert [result["image"] for result in results] == [str(file) for file in files]
        return results, done.stderr

    return score


@pytest.fixture(scope="module")
def scored(score, tmp_path_factory):
    """Results of each photograph and its ladders, and what the command writes to stderr.

    The results are {(photograph, kind): results of the photograph and its five levels}.
    """
    folder = tmp_path_factory.mktemp("ladders")
    files = {}
    for photograph in PHOTOGRAPHS:
        pixels = read_image(photograph, apply_orientation=True)
        distorter = Distorter(pixels)
        for kind in LADDERS:
            seeds = [seed_for(photograph.stem, 0, level, 0) for level in range(1, 6)]
            levels = distorter.distort_levels(kind, seeds)
            paths = [folder / f"{photograph.stem}_{kind}_{level}.png" for level in range(1, 6)]
            for path, image in zip(paths, levels, strict=True):
                Image.fromarray(image).save(path, compress_level=1)
            files[photograph.name, kind] = [photograph, *paths]
    each_once = list(dict.fromkeys(path for paths in files.values() for path in paths))
    results, error = score(each_once)
    by_file = dict(zip(each_once, results, strict=True))
    return {key: [by_file[path] for path in paths] for key, paths in files.items()}, error


def scores_of(scored, photograph, kind):
    """(6,) scores: the photograph's, and those of its five levels."""
    return np.array([result["score"] for result in scored[0][photograph.name, kind]])


@pytest.mark.parametrize("kind", LADDERS)
def test_ladders_fall(scored, kind):
    assert len(PHOTOGRAPHS) == 5
    for photograph in PHOTOGRAPHS:
        scores = scores_of(scored, photograph, kind)
        assert (np.diff(scores) < LARGEST_RISE).all(), (photograph.name, scores)
        assert (np.diff(scores[3:]) < 0).all(), (photograph.name, scores)
        assert scores[5] < scores[0] - 10, (photograph.name, scores)


def test_photographs_score_high_and_ruined_ones_low(scored):
    blurred = np.array([scores_of(scored, path, "gaussian_blur") for path in PHOTOGRAPHS])
    assert blurred[:, 0].min() > 55, blurred
    assert blurred[:, 5].max() < 40, blurred


@pytest.mark.slow
def test_unseen_scenes_are_ranked_over_all_distortions(score, tmp_path):
    folder = render_demo_database(
        tmp_path / "data",
        types=range(1, 26),
        seed=0,
        processes=1,
        progress=False,
        scenes=UNSEEN_SCENES,
    )
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    results, _ = score([folder / row["image"] for row in rows])
    scores = [result["score"] for result in results]
    assert spearmanr(scores, [float(row["score"]) for row in rows])[0] >= 0.7


def test_command_names_weights_scale_and_preprocessing(scored):
    results, error = scored
    assert "weights of the package (glpi_small): MOS, 0 to 100, higher is better" in error
    assert "shorter side reduced to at most 384 pixels" in error
    for photograph, *_ in results.values():
        assert photograph["crops"] == 4
        assert 0 <= photograph["score"] <= 100


def test_weights_are_small_and_their_card_is_complete(monkeypatch):
    monkeypatch.setattr("glpi_jax.hub.sources.SHIPPED", WEIGHTS)
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 16e6
    assert not read_model().preprocessing_assumed
    card = (WEIGHTS / "README.md").read_text()
    for words in (
        *UNSEEN_SCENES,
        "CLIVE",
        "AGIQA-3K",
        "KADID-10k",
        "DINOv2",
        "Copyright (c) 2015 The University of Texas at Austin",
        "benchmarks/shipped_weights.py",
        "Where they fail",
    ):
        assert words in card
