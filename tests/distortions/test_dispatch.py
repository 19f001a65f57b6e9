"""The dispatcher: stretching, errors, and draws that depend on names alone."""

import numpy as np
import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import (
    DISTORTIONS,
    MEAN_DMOS,
    Distorter,
    blur,
    distort,
    find_distortion,
    seed_for,
)
from glpi_jax.distortions.dispatch import stretch_to_uint8

RANDOM = [number for number, distortion in DISTORTIONS.items() if distortion.random]


def photograph(height=56, width=64, low=20, high=220):
    """A smooth gradient with texture, low..high."""
    row, column = np.mgrid[0:height, 0:width]
    waves = [np.sin(row / 9 + k) + np.cos(column / (7 + k)) for k in range(3)]
    image = np.stack(waves, axis=-1)
    image = (image - image.min()) / (image.max() - image.min())
    return (low + (high - low) * image).round().astype(np.uint8)


def test_the_table():
    assert list(DISTORTIONS) == list(range(1, 26))
    assert len({distortion.name for distortion in DISTORTIONS.values()}) == 25
    groups = {number: distortion.group for number, distortion in DISTORTIONS.items()}
    assert [n for n, group in groups.items() if group == "spatial"] == [19, 20, 21, 22, 23]
    assert RANDOM == [3, 5, 11, 12, 13, 14, 15, 19, 20, 23]


@pytest.mark.parametrize("number", DISTORTIONS)
@pytest.mark.parametrize("level", [1, 5])
def test_every_type_makes_an_image_of_full_range(number, level):
    image = photograph()
    kept = image.copy()
    made = distort(image, number, level, rng=seed_for("a.png", number, level, 0))
    assert made.shape == image.shape
    assert made.dtype == np.uint8
    assert (made.min(), made.max()) == (0, 255)
    np.testing.assert_array_equal(image, kept)
    by_name = distort(
        image, DISTORTIONS[number].name, level, rng=seed_for("a.png", number, level, 0)
    )
    np.testing.assert_array_equal(by_name, made)


@pytest.mark.parametrize(("number", "level"), [(1, 1), (3, 1), (8, 1), (18, 3)])
def test_identity_levels_stretch_the_image(number, level):
    image = photograph()
    span = int(image.max()) - int(image.min())
    expected = np.floor(255 * (image.astype(int) - image.min()) / span + 0.5)
    made = distort(image, number, level, rng=np.random.default_rng(0))
    assert np.abs(made - expected).max() <= 1  # a rounded half
    assert (made == expected).mean() > 0.95
    assert (made != image).mean() > 0.9


def test_one_range_for_all_channels():
    image = photograph()
    image[..., 0] = image[..., 0] // 2
    made = distort(image, "gaussian_blur", 1)
    assert made[..., 0].max() < 140


def stretched(*values):
    column = np.array(values, dtype=np.float32)[:, None, None]
    return stretch_to_uint8(column).ravel().tolist()


def test_stretch():
    assert stretched(1, 3, 2.999, np.nan) == [0, 255, 255, 0]
    assert stretched(-0.5, 0, 1.5) == [0, 64, 255]
    assert stretched(0.3, 0.3) == [77, 77]
    assert stretched(0.3, 0.3 + 1e-6) == [77, 77]
    assert stretched(1.5, 1.5) == [255, 255]
    assert stretched(-1, -1, np.nan) == [0, 0, 0]
    assert stretched(np.nan) == [0]


def test_stretch_of_8_bit_values():
    pixels = np.array([[[10, 60, 110]]], dtype=np.uint8)
    assert stretch_to_uint8(pixels).tolist() == [[[0, 128, 255]]]
    assert stretch_to_uint8(np.full((2, 2, 3), 77, np.uint8)).tolist() == [[[77] * 3] * 2] * 2


@pytest.fixture(scope="module")
def used_distorter():
    """A distorter that has made every type once."""
    distorter = Distorter(photograph(100, 80))
    for number in DISTORTIONS:
        distorter.distort(number, 4, rng=np.random.default_rng(number))
    return distorter


@pytest.mark.parametrize("number", DISTORTIONS)
def test_shared_work_changes_no_pixel(number, used_distorter):
    """One object for all types and levels, in either way, against one call for each image."""
    image = photograph(100, 80)
    rngs = [seed_for("a", number, level, 0) for level in range(1, 6)]
    together = used_distorter.distort_levels(number, rngs)
    for level, made in enumerate(together, start=1):
        alone = distort(image, number, level, rng=seed_for("a", number, level, 0))
        np.testing.assert_array_equal(made, alone)
        again = used_distorter.distort(number, level, rng=seed_for("a", number, level, 0))
        np.testing.assert_array_equal(again, alone)


def test_a_distorter_keeps_its_image():
    image = photograph()
    distorter = Distorter(image)
    expected = distort(image, 1, 3)
    image[:] = 0
    np.testing.assert_array_equal(distorter.distort(1, 3), expected)


def test_levels_together_are_checked_too():
    small = Distorter(photograph(40, 60))
    with pytest.raises(GlpiError, match="needs at least 48 a side"):
        small.distort_levels(20, [np.random.default_rng(0)] * 5)
    with pytest.raises(GlpiError, match="white_noise is random"):
        small.distort_levels(11, [None] * 5)
    with pytest.raises(GlpiError, match=r"quantization: .* 5 generators, one a level, not 2"):
        small.distort_levels(6, [None] * 2)


@pytest.mark.parametrize("number", [n for n in DISTORTIONS if n not in (11, 12, 13, 14, 15, 23)])
def test_a_constant_image_stays_constant(number):
    image = np.full((48, 50, 3), 77, dtype=np.uint8)
    made = distort(image, number, 3, rng=np.random.default_rng(0))
    assert made.min() == made.max()
    if number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 18, 19, 20, 21, 24):
        assert made[0, 0, 0] == 77


def test_lost_pixels_of_jitter_are_black():
    image = photograph()
    shifts = np.zeros((5, *image.shape[:2], 2))
    shifts[0, 10, :, 0] = 30
    made = distort(image, "jitter", 5, draw={"normal": shifts})
    assert (made[10] == 0).all()
    assert made.max() == 255


# Draws


@pytest.mark.parametrize("number", RANDOM)
def test_draws_depend_on_name_type_level_and_seed_alone(number):
    image = photograph()

    def made(name="a.png", level=5, seed=0):
        return distort(image, number, level, rng=seed_for(name, number, level, seed))

    first = made()
    made(level=4)
    np.testing.assert_array_equal(made(), first)
    if number != 5:  # few directions round to different pixels
        assert (made(name="b.png") != first).any()
        assert (made(seed=1) != first).any()


def test_seed_for_separates_its_arguments():
    keys = [("a", 1, 1, 0), ("b", 1, 1, 0), ("a", 2, 1, 0), ("a", 1, 2, 0), ("a", 1, 1, 1)]
    keys += [("a", 11, 1, 0), ("a", 1, 11, 0), ("a1", 1, 1, 0)]
    assert len({seed_for(*key).random() for key in keys}) == len(keys)


def test_seed_for_is_stable():
    """Written into data sets: these numbers must never change."""
    assert seed_for("I01.png", 11, 3, 0).integers(0, 2**32, 3).tolist() == STABLE


STABLE = [2150140555, 463874521, 3902439146]


@pytest.mark.parametrize("number", [n for n in DISTORTIONS if n not in RANDOM])
def test_other_types_need_no_generator(number):
    image = photograph()
    np.testing.assert_array_equal(
        distort(image, number, 2), distort(image, number, 2, rng=np.random.default_rng(5))
    )


def test_motion_angle_covers_0_to_180_inclusive(monkeypatch):
    angles = set()

    def kernel(_, angle):
        angles.add(angle)
        return np.ones((1, 1))

    monkeypatch.setattr(blur, "motion_kernel", kernel)
    image, rng = photograph(4, 4), np.random.default_rng(0)
    for _ in range(3000):
        distort(image, 3, 5, rng=rng)
    assert angles == set(range(181))


# Errors


@pytest.mark.parametrize("number", RANDOM)
def test_random_types_need_a_generator_or_a_draw(number):
    with pytest.raises(GlpiError, match=rf"{DISTORTIONS[number].name} is random"):
        distort(photograph(), number, 1)


@pytest.mark.parametrize("number", [0, 99, "denoising", "gauss"])
def test_unknown_types_name_those_available(number):
    with pytest.raises(GlpiError, match=rf"{number!r} is not available; .*1 gaussian_blur.*25"):
        find_distortion(number)
    with pytest.raises(GlpiError, match="is not available"):
        distort(photograph(), number, 1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("level", [0, 6, -1, 2.5, "1"])
def test_unknown_levels(level):
    with pytest.raises(GlpiError, match=rf"lens_blur: level {level!r} does not exist"):
        distort(photograph(), 2, level)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (photograph().astype(np.float32), "not float32"),
        ([[1, 2, 3]], "not list"),
        (photograph()[..., 0], r"not \(56, 64\)"),
        (photograph()[..., :2], r"not \(56, 64, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 pixels"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(GlpiError, match=message):
        distort(image, 1, 1)


@pytest.mark.parametrize(("number", "side"), [(5, 2), (9, 32), (20, 48), (23, 32)])
def test_smallest_images(number, side):
    rng = np.random.default_rng(0)
    assert distort(photograph(side, 60), number, 5, rng=rng).shape == (side, 60, 3)
    assert distort(photograph(60, side), number, 5, rng=rng).shape == (60, side, 3)
    with pytest.raises(GlpiError, match=f"needs at least {side} a side"):
        distort(photograph(60, side - 1), number, 5, rng=rng)


@pytest.mark.parametrize("number", [n for n, d in DISTORTIONS.items() if d.min_side == 1])
def test_a_single_pixel(number):
    image = np.array([[[10, 100, 200]]], dtype=np.uint8)
    assert distort(image, number, 5, rng=np.random.default_rng(0)).shape == (1, 1, 3)


def test_draws_are_checked():
    image = photograph()
    with pytest.raises(GlpiError, match=r"white_noise: unknown draw 'unif'; its draws are: gauss"):
        distort(image, 11, 1, draw={"unif": np.zeros(image.shape)})
    with pytest.raises(GlpiError, match=r"'gauss' has shape \(3,\); it must be \(56, 64, 3\)"):
        distort(image, 11, 1, draw={"gauss": np.zeros(3)})
    with pytest.raises(GlpiError, match=r"gaussian_blur: unknown draw 'gauss'"):
        distort(image, 1, 1, draw={"gauss": np.zeros(3)})
    with pytest.raises(GlpiError, match="20 increasing numbers"):
        distort(image, 22, 1, draw={"thresholds_255": np.full(20, 7)})
    with pytest.raises(GlpiError, match=r"'rand_sequence' has shape \(5,\); it must be \(80,\)"):
        distort(image, 20, 1, draw={"rand_sequence": np.zeros(5)})


# Human scores


def test_mean_scores():
    assert list(MEAN_DMOS) == list(range(1, 26))
    table = np.array(list(MEAN_DMOS.values()))
    assert table.shape == (25, 5)
    assert table.min() > 1
    assert table.max() < 5
    assert MEAN_DMOS[1] == (4.6122, 4.3817, 2.9111, 1.8730, 1.3027)
    assert MEAN_DMOS[25] == (3.4194, 3.8584, 4.2901, 4.1415, 3.3238)
    # Stronger is worse, but the levels of mean shift and contrast run from one sign to the other.
    falling = [number for number in MEAN_DMOS if number not in (5, 18, 25)]
    assert all((np.diff(MEAN_DMOS[number]) < 0).all() for number in falling)
