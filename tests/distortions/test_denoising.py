"""Type 15: the exact noise stage, the default denoiser and that of the user."""

import subprocess
import sys

import numpy as np
import pytest
import skimage.data

from glpi_jax.distortions import DISTORTIONS, TOTAL_VARIATION, Distorter, distort, noise
from glpi_jax.distortions.dispatch import stretch_to_uint8
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.unit_image import UnitImage

# Mean PSNR in dB of the noise alone to the stretched reference, at the five levels.
NOISE_ALONE = (20.3, 16.0, 14.1, 11.7, 10.5)


class Nothing:
    """A denoiser that leaves the noise."""

    identity = "nothing"

    def __call__(self, noisy, variance):
        return noisy


@pytest.fixture(scope="module")
def photograph():
    return np.ascontiguousarray(skimage.data.astronaut()[60:252, 120:376])


def psnr_of_levels(photograph, goldens, denoiser):
    stretched = distort(photograph, "gaussian_blur", 1)
    distorter = Distorter(photograph, denoiser)
    made = distorter.distort_levels(15, [np.random.default_rng(level) for level in range(5)])
    return np.array([goldens.psnr(pixels, stretched) for pixels in made])


def test_default_denoiser_beats_the_noise_and_falls_with_the_level(photograph, goldens):
    noisy = psnr_of_levels(photograph, goldens, Nothing())
    np.testing.assert_allclose(noisy, NOISE_ALONE, atol=0.6)
    denoised = psnr_of_levels(photograph, goldens, TOTAL_VARIATION)
    assert (denoised - noisy > [5, 8, 9, 9, 9]).all()
    assert (np.diff(denoised) < -1).all()


def random_draw():
    return Draw("denoise", "gauss", np.random.default_rng(0))


def test_noise_stage_is_white_noise_of_the_levels_variance():
    image = UnitImage(np.full((64, 64, 3), 0.5, dtype=np.float32))
    result = noise.denoise(image, 0.01, random_draw(), denoiser=Nothing())
    assert result.std() == pytest.approx(0.1, rel=0.05)
    same = noise.white_noise(image, 0.01, random_draw())
    np.testing.assert_array_equal(result, same)


def test_noise_is_clipped_before_the_denoiser(photograph):
    seen = []

    class Looking(Nothing):
        def __call__(self, noisy, variance):
            seen.append((noisy.min(), noisy.max(), noisy.dtype, variance))
            return noisy

    distort(photograph, 15, 5, rng=np.random.default_rng(0), denoiser=Looking())
    assert seen == [(0, 1, np.float32, DISTORTIONS[15].levels[4])]


def test_given_noise_replaces_the_draw(photograph):
    field = np.random.default_rng(3).standard_normal(photograph.shape)
    made = distort(photograph, 15, 2, draw={"gauss": field}, denoiser=Nothing())
    unit = photograph / 255
    expected = np.clip(unit + np.sqrt(0.03) * field, 0, 1).astype(np.float32)
    difference = made.astype(int) - stretch_to_uint8(expected)
    assert np.abs(difference).max() <= 1  # a rounded half
    assert (difference != 0).mean() < 1e-3


def test_denoiser_is_the_given_one_in_every_way_to_distort(photograph):
    def made(**options):
        return distort(photograph, "denoise", 3, rng=np.random.default_rng(0), **options)

    noisy, denoised = made(denoiser=Nothing()), made()
    assert (noisy != denoised).mean() > 0.9
    np.testing.assert_array_equal(denoised, made(denoiser=TOTAL_VARIATION))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Distorter(photograph, Nothing()).distort(15, 3, rng), noisy)


def test_total_variation_denoises_each_channel_alone():
    rng = np.random.default_rng(0)
    image = rng.random((40, 30, 3), dtype=np.float32)
    other = image.copy()
    other[..., 1] = rng.random((40, 30))
    first, second = TOTAL_VARIATION(image, 0.05), TOTAL_VARIATION(other, 0.05)
    np.testing.assert_array_equal(first[..., [0, 2]], second[..., [0, 2]])
    assert (first[..., 1] != second[..., 1]).all()
    assert first.dtype == np.float32


def test_identity_names_the_library_and_its_version():
    assert f"scikit-image {skimage.__version__} denoise_tv_chambolle" in TOTAL_VARIATION.identity


def test_rendering_needs_no_jax():
    code = (
        "import sys; import numpy as np; from glpi_jax.distortions import distort;"
        "image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8);"
        "distort(image, 15, 1, np.random.default_rng(0));"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
