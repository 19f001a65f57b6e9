"""The batched JAX path against the NumPy path, given the same draws."""

import jax
import numpy as np
import pytest
import skimage.data

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import DISTORTIONS, distort
from glpi_jax.distortions.batched import BATCHED, distort_batch

RANDOM = [number for number in BATCHED if DISTORTIONS[number].random]


@pytest.fixture(scope="module")
def images():
    """Two photographs of different range, neither of which spans 0..255, and a flat image."""
    astronaut = skimage.data.astronaut()[100:164, 180:276]
    coffee = skimage.data.coffee()[80:144, 200:296] // 2 + 20
    return np.stack([astronaut // 4 * 3 + 10, coffee, np.full_like(coffee, 90)])


def draw_of(number, images):
    rng = np.random.default_rng(number)
    return {
        "angle_deg": rng.integers(0, 181, len(images)),
        "gauss": rng.standard_normal(images.shape, dtype=np.float32),
        "unif": rng.random(images.shape, dtype=np.float32),
    }[DISTORTIONS[number].draw_names[0]]


@pytest.mark.parametrize("level", [2, 5])
@pytest.mark.parametrize("number", BATCHED)
def test_is_the_numpy_path(images, goldens, number, level):
    draw = draw_of(number, images) if number in RANDOM else None
    made = distort_batch(images, number, level, draw=draw)
    assert (made.shape, made.dtype) == (images.shape, np.uint8)
    for k, image in enumerate(images):
        named = None if draw is None else {DISTORTIONS[number].draw_names[0]: draw[k]}
        expected = distort(image, number, level, draw=named)
        assert goldens.psnr(np.asarray(made[k]), expected) >= 50


@pytest.mark.parametrize("number", RANDOM)
def test_an_image_depends_on_its_key_alone(images, number):
    keys = jax.random.split(jax.random.key(1), len(images))
    made = np.asarray(distort_batch(images, number, 5, keys=keys))
    # Another batch: the same images in another order.
    turned = np.asarray(distort_batch(images[::-1], number, 5, keys=keys[::-1]))
    np.testing.assert_array_equal(turned[::-1], made)
    others = np.asarray(distort_batch(images, number, 5, keys=keys[::-1]))
    assert (others[0] != made[0]).any()


def test_keys_draw_the_distributions_of_the_types():
    """Noise of a flat image, before the stretch of it: white, impulses, speckle."""
    image = np.full((1, 128, 128, 3), 100, np.uint8)
    keys = jax.random.split(jax.random.key(1), 1)
    impulses = np.asarray(distort_batch(image, "impulse_noise", 5, keys=keys))
    for value in (0, 255):
        assert (impulses == value).mean() == pytest.approx(0.015, abs=0.003)
    speckle = np.asarray(distort_batch(image, "multiplicative_noise", 3, keys=keys))
    counts = np.histogram(speckle, bins=8, range=(0, 256))[0]
    assert counts.max() / counts.min() < 1.1  # uniform
    white = np.asarray(distort_batch(image, "white_noise", 1, keys=keys), dtype=float)
    centred = (white - white.mean()) / white.std()
    assert (centred**4).mean() == pytest.approx(3, abs=0.15)  # normal
    assert abs((centred**3).mean()) < 0.1


def test_motion_angles_are_whole_degrees_from_0_to_180(images, goldens):
    """For each key some angle of 0..180 gives the image that it made."""
    keys = jax.random.split(jax.random.key(4), 3)
    same = np.stack([images[0]] * 3)
    angles = [distort(images[0], 3, 5, draw={"angle_deg": angle}) for angle in range(181)]
    for made in np.asarray(distort_batch(same, 3, 5, keys=keys)):
        assert max(goldens.psnr(made, other) for other in angles) >= 75


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        (np.zeros((1, 4, 4, 3), np.uint8), (19, 1), r"jitter cannot be batched; .* 1, 2, 3, 4, 7"),
        (np.zeros((1, 4, 4, 3), np.uint8), (1, 6), "level 6 does not exist"),
        (np.zeros((4, 4, 3), np.uint8), (1, 1), r"not uint8 \(4, 4, 3\)"),
        (np.zeros((1, 4, 4, 3), np.float32), (1, 1), "not float32"),
        (np.zeros((1, 0, 4, 3), np.uint8), (1, 1), r"\(1, 0, 4, 3\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), (11, 1), "white_noise is random: give keys"),
    ],
)
def test_bad_batches(images, arguments, message):
    with pytest.raises(GlpiError, match=message):
        distort_batch(images, *arguments)


def test_bad_draws_and_keys(images):
    with pytest.raises(GlpiError, match=r"the draw has shape \(2,\); it must be \(3,\)"):
        distort_batch(images, 3, 1, draw=[1, 2])
    with pytest.raises(GlpiError, match=r"shape \(3,\); it must be \(3, 64, 96, 3\)"):
        distort_batch(images, 11, 1, draw=[1, 2, 3])
    for keys in (jax.random.key(0), jax.random.PRNGKey(0)):
        with pytest.raises(GlpiError, match="keys must be 3 typed PRNG keys"):
            distort_batch(images, 11, 1, keys=keys)
