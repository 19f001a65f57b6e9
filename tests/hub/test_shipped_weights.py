"""The weights that come with the package, on photographs that they never saw."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

import glpi_jax
from glpi_jax.cli.main import main
from glpi_jax.data.demo_database import render_demo_database
from glpi_jax.data.images import read_image
from glpi_jax.distortions import Distorter, seed_for
from glpi_jax.hub.sources import read_model

WEIGHTS = Path(glpi_jax.__file__).parent / "hub/shipped"
PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "photographs").glob("*.jpg"))
UNSEEN_SCENES = ("admiral", "coins", "motorcycle")
# Of a scale of 100. The first levels are hardly seen, and they smooth grain away.
TOLERANCES = {"gaussian_blur": 4.5, "white_noise": 1.0, "jpeg": 4.0, "jpeg2000": 5.0}


@pytest.fixture(scope="module", autouse=True)
def _weights_of_the_package():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glpi_jax.hub.sources.SHIPPED", WEIGHTS)
        yield


@pytest.fixture(scope="module")
def scorer(shared_compilations):
    return glpi_jax.load()


def ladder(photograph, kind):
    """The photograph and its five levels, (H, W, 3) uint8."""
    pixels = read_image(photograph, apply_orientation=True)
    seeds = [seed_for(photograph.stem, 0, level, 0) for level in range(1, 6)]
    return [pixels, *Distorter(pixels).distort_levels(kind, seeds)]


@pytest.mark.parametrize("kind", TOLERANCES)
def test_ladders_fall(scorer, kind):
    assert len(PHOTOGRAPHS) == 5
    for photograph in PHOTOGRAPHS:
        scores = np.array([result.score for result in scorer.score(ladder(photograph, kind))])
        assert (np.diff(scores) < TOLERANCES[kind]).all(), (photograph.name, scores)
        assert (np.diff(scores[3:]) < 0).all(), (photograph.name, scores)
        assert scores[5] < scores[0] - 10, (photograph.name, scores)


def test_photographs_score_high_and_ruined_ones_low(scorer):
    clean = [scorer.score(path).score for path in PHOTOGRAPHS]
    assert min(clean) > 55, clean
    ruined = [scorer.score(ladder(path, "gaussian_blur")[5]).score for path in PHOTOGRAPHS]
    assert max(ruined) < 40, ruined


@pytest.mark.slow
def test_unseen_scenes_are_ranked_over_all_distortions(scorer, tmp_path):
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
    scores = [result.score for result in scorer.score([folder / row["image"] for row in rows])]
    assert spearmanr(scores, [float(row["score"]) for row in rows])[0] >= 0.7


def test_command_names_weights_scale_and_preprocessing(tmp_path, capsys):
    photograph = tmp_path / "photo.png"
    Image.fromarray(read_image(PHOTOGRAPHS[0], apply_orientation=True)).save(photograph)
    assert main(["score", str(photograph), "--json"]) == 0
    output = capsys.readouterr()
    assert "weights of the package (glpi_small): MOS, 0 to 100, higher is better" in output.err
    assert "shorter side reduced to at most 384 pixels" in output.err
    (result,) = json.loads(output.out)
    assert result["crops"] == 4
    assert 0 <= result["score"] <= 100


def test_weights_are_small_and_their_card_is_complete():
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
