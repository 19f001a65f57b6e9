"""Distortion ladders: the pictures, their scores and the picture of them."""

import io

import numpy as np
import pytest
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import ImageError
from glpi_jax.distortions import distort
from glpi_jax.scoring.ladder import ladder_picture, score_ladders


def test_each_rung_is_that_distortion_and_its_score(scorer, make_pixels):
    image = make_pixels(90, 120)
    blur, noise = score_ladders(scorer, image, ["gaussian_blur", 11])
    assert (blur.name, noise.name) == ("gaussian_blur", "white_noise")
    for ladder in (blur, noise):
        assert len(ladder.images) == 6
        np.testing.assert_array_equal(ladder.images[0], image)
        expected = [result.score for result in scorer.score(list(ladder.images))]
        np.testing.assert_allclose(ladder.scores, expected, atol=1e-5)
        assert (ladder.standard_errors > 0).all()
    for level in (1, 5):
        np.testing.assert_array_equal(blur.images[level], distort(image, 1, level))
    assert blur.scores[0] == noise.scores[0]


def test_the_seed_decides_random_distortions(scorer, make_pixels):
    image = make_pixels(80, 80)
    first, again, other = (
        score_ladders(scorer, image, [11], seed=seed)[0].images[3] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_bad_requests(scorer, make_pixels):
    with pytest.raises(GlpiError, match="at least one"):
        score_ladders(scorer, make_pixels(80, 80), [])
    with pytest.raises(GlpiError, match="26"):
        score_ladders(scorer, make_pixels(80, 80), [26])
    with pytest.raises(ImageError, match="pixels"):
        score_ladders(scorer, make_pixels(12, 80), [1])


@pytest.mark.parametrize(("height", "width"), [(64, 200), (200, 64)])
def test_picture(scorer, make_pixels, height, width):
    ladders = score_ladders(scorer, make_pixels(height, width), [1, 16])
    with Image.open(io.BytesIO(ladder_picture(ladders, scale="DMOS $1 to 5$"))) as picture:
        assert picture.width > 1000
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
