"""The demonstration weights that come with the package, on photographs that they never saw."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glpi_jax
from glpi_jax.cli import main
from glpi_jax.data.demo import LABEL_NOTE, photograph_path
from glpi_jax.data.images import read_image
from glpi_jax.hub.sources import read_model
from glpi_jax.saqt import Distorter, seed_for

WEIGHTS = Path(glpi_jax.__file__).parent / "weights/demo"
LEVELS = range(1, 6)
# The test part of the run that made them.
UNSEEN = ("admiral", "coins", "motorcycle")
# Where a level's blur is hardly seen, or complete, the next may score a little higher.
TOLERANCE = 0.1


@pytest.fixture(scope="module")
def scorer():
    return glpi_jax.load()


def ladder(folder, scene, kind):
    """The photograph and its five levels, as files."""
    photograph = read_image(photograph_path(scene), apply_orientation=True)
    made = Distorter(photograph).distort_levels(kind, [seed_for(scene, 0, n, 0) for n in LEVELS])
    files = [folder / f"{scene}_{kind}_{level}.png" for level in range(6)]
    for pixels, file in zip([photograph, *made], files, strict=True):
        Image.fromarray(pixels).save(file, compress_level=1)
    return files


def test_blurred_photographs_score_lower_level_by_level(tmp_path, capsys):
    files = ladder(tmp_path, "admiral", "gaussian_blur")
    assert main(["score", *map(str, files), "--json"]) == 0
    scores = [result["score"] for result in json.loads(capsys.readouterr().out)]
    # Level 1 has a width of 0.1 pixels, which leaves the photograph as it is.
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    assert (np.diff(scores[1:]) < 0).all(), scores


@pytest.mark.parametrize("kind", ["gaussian_blur", "lens_blur", "jpeg2000", "white_noise"])
@pytest.mark.parametrize("scene", UNSEEN)
def test_unseen_photographs_score_lower_with_distortion(scorer, tmp_path, scene, kind):
    scores = [result.score for result in scorer.score(ladder(tmp_path, scene, kind))]
    steps = np.diff(scores[1:])
    assert (steps < TOLERANCE).all(), scores
    assert scores[5] < min(scores[0], scores[1]) - 0.5, scores


def test_they_say_what_they_are(capsys, tmp_path):
    photograph = ladder(tmp_path, "coins", "jpeg")[0]
    assert main(["score", str(photograph)]) == 0
    output = capsys.readouterr()
    assert "demonstration weights" in output.err
    assert "handful of photographs" in output.err
    # Not as if it were about the user's photograph.
    assert "this picture" not in output.err
    assert "training labels: KADID-10k's mean human score" in output.err
    assert read_model().label_note == LABEL_NOTE
    assert output.out.split()[-1] == str(photograph)


def test_they_are_small_and_have_a_card():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 6 * 2**20
    card = (WEIGHTS / "README.md").read_text()
    assert "10 photographs" in card
    for scene in UNSEEN:
        assert scene in card
