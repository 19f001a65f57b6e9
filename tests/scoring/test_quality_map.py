"""Quality maps: what each pixel's score is, and that a blurred part is found."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from glpi_jax.core.errors import GlpiError
from glpi_jax.scoring import Problem
from glpi_jax.scoring.map_picture import map_picture
from glpi_jax.scoring.quality_map import Layout


@pytest.mark.parametrize(
    ("height", "width", "crop", "stride"),
    [(40, 50, 16, 8), (41, 53, 16, 8), (16, 16, 16, 4), (33, 70, 16, 16), (20, 35, 16, 5)],
)
def test_each_pixel_has_the_mean_score_of_the_crops_that_cover_it(height, width, crop, stride):
    image = np.zeros((height, width, 3), np.uint8)
    layout = Layout(image, crop, stride)
    scores = np.random.default_rng(0).normal(size=layout.count)
    total, number = np.zeros((height, width)), np.zeros((height, width))
    places = [(top, left) for top in layout.tops for left in layout.lefts]
    for (top, left), score in zip(places, scores, strict=True):
        total[top : top + crop, left : left + crop] += score
        number[top : top + crop, left : left + crop] += 1
    assert number.min() >= 1
    quality = layout.average(scores)
    np.testing.assert_allclose(quality.at_pixels(), total / number, atol=1e-12)
    assert quality.row_edges[-1] == height
    assert quality.column_edges[-1] == width
    assert np.diff(layout.tops).max(initial=0) <= stride


def test_an_image_smaller_than_a_crop_has_a_map_of_its_own_size():
    image = np.zeros((20, 100, 3), np.uint8)
    quality = Layout(image, 64, 32).average(np.array([1.0, 2.0, 3.0]))
    pixels = quality.at_pixels()
    assert pixels.shape == (20, 100)
    assert (pixels == pixels[0]).all()
    assert (pixels[0, 0], pixels[0, 99]) == (1.0, 3.0)


@pytest.mark.parametrize("stride", [0, -3, 65])
def test_strides_that_leave_gaps_are_refused(scorer, stride):
    with pytest.raises(GlpiError, match=f"stride {stride}: must be 1 to 64 pixels"):
        scorer.quality_map(np.zeros((90, 90, 3), np.uint8), stride=stride)


@pytest.mark.parametrize("stride", ["16", 10.5])
def test_a_stride_is_a_whole_number(scorer, stride):
    with pytest.raises(TypeError, match=f"stride {stride!r}: must be a whole number"):
        scorer.quality_map(np.zeros((90, 90, 3), np.uint8), stride=stride)


def half_blurred():
    photograph = Image.fromarray(data.astronaut())
    blurred = photograph.filter(ImageFilter.GaussianBlur(4))
    blurred.paste(photograph.crop((0, 0, 256, 512)), (0, 0))
    return blurred


def test_the_blurred_half_scores_lower(scorer):
    seen = []
    quality = scorer.quality_map(
        half_blurred(), stride=32, on_progress=lambda done, total: seen.append((done, total))
    )
    assert quality.crop_scores.shape == (15, 15)
    assert seen[-1] == (225, 225)
    scores = quality.at_pixels()
    assert scores[:, :224].mean() > scores[:, 288:].mean() + 0.5


def test_the_score_of_each_crop_is_its_own(scorer, make_pixels):
    image = make_pixels(100, 130)
    quality = scorer.quality_map(image, stride=36)
    assert quality.crop_scores.shape == (2, 3)
    assert quality.crop_scores[1, 2] == pytest.approx(scorer.score(image[36:, 66:]).score, abs=1e-4)


def test_a_map_of_what_is_no_image(scorer, tmp_path):
    with pytest.raises(GlpiError, match="no such image file"):
        scorer.quality_map(tmp_path / "no.png")
    with pytest.raises(GlpiError, match="too few to judge"):
        scorer.quality_map(np.zeros((9, 90, 3), np.uint8))
    with pytest.raises(GlpiError, match="x: bad"):
        scorer.quality_map(Problem("x", "x: bad"))
    with pytest.raises(TypeError, match="is no image"):
        scorer.quality_map(None)


def test_the_picture_shows_where_scores_are_high():
    image = np.full((64, 96, 3), 128, np.uint8)
    quality = Layout(image, 32, 32).average(np.array([1.0, 1, 5, 1, 1, 5]))
    for title in ("photo.png", "bad \udce9 name $x$" * 9):
        png = map_picture(quality, scale="MOS, 1 to 5, higher is better", title=title)
        with Image.open(io.BytesIO(png)) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
    # viridis: yellow (much red, little blue) for the highest scores, violet for the lowest.
    yellow = (pixels[..., 0] - pixels[..., 2] > 60).mean()
    violet = (pixels[..., 2] - pixels[..., 1] > 30).mean()
    assert 0 < yellow < violet
