"""KADID group noise: white (11), YCbCr (12), impulse (13), multiplicative (14), denoised (15)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from glpi_jax.distortions.color_spaces import (
    FloatImage,
    rgb_from_ycbcr,
    ycbcr_from_rgb,
)
from glpi_jax.distortions.denoising import Denoiser
from glpi_jax.distortions.draws import drawn
from glpi_jax.distortions.unit_image import UnitImage

_NORMAL = np.random.Generator.standard_normal
_UNIFORM = np.random.Generator.random


def _field(
    distortion: str,
    name: str,
    image: UnitImage,
    given: ArrayLike | None,
    rng: np.random.Generator | None,
    sample: Callable[..., ArrayLike],
) -> FloatImage:
    """Float32 values (H, W, 3), one a pixel and channel: `given`, or `sample` of the generator."""
    values = drawn(
        distortion,
        name,
        given,
        rng,
        lambda g: sample(g, image.shape, dtype=np.float32),
        image.shape,
    )
    return values.astype(np.float32, copy=False)


def _add_white_noise(values: FloatImage, variance: float, field: FloatImage) -> FloatImage:
    noisy = np.float32(np.sqrt(variance)) * field
    noisy += values
    return np.clip(noisy, 0, 1, out=noisy)


def white_noise(
    image: UnitImage,
    variance: float,
    rng: np.random.Generator | None = None,
    gauss: ArrayLike | None = None,
) -> FloatImage:
    """Type 11: add Gaussian noise of `variance` to each RGB value and clip (imnoisegauss.m).

    `gauss` (H, W, 3), standard normal, replaces the draw.
    """
    field = _field("white_noise", "gauss", image, gauss, rng, _NORMAL)
    return _add_white_noise(image.rgb, variance, field)


def _ycbcr(image: UnitImage) -> FloatImage:
    return ycbcr_from_rgb(image.rgb)


def white_noise_ycbcr(
    image: UnitImage,
    variance: float,
    rng: np.random.Generator | None = None,
    gauss: ArrayLike | None = None,
) -> FloatImage:
    """Type 12: the same noise on BT.601 Y, Cb and Cr, clipped there and in RGB (imnoisecolormap.m).

    `gauss` (H, W, 3), standard normal, replaces the draw.
    """
    field = _field("white_noise_ycbcr", "gauss", image, gauss, rng, _NORMAL)
    noisy = _add_white_noise(image.once(_ycbcr), variance, field)
    return np.clip(rgb_from_ycbcr(noisy), 0, 1)


def impulse_noise(
    image: UnitImage,
    density: float,
    rng: np.random.Generator | None = None,
    unif: ArrayLike | None = None,
) -> FloatImage:
    """Type 13: each RGB value turns 0 or 1, with chance `density`/2 each (imnoiseimpulse.m).

    `unif` (H, W, 3), uniform on 0..1, replaces the draw.
    """
    field = _field("impulse_noise", "unif", image, unif, rng, _UNIFORM)
    noisy = image.rgb.copy()
    np.copyto(noisy, 1, where=field < density)
    np.copyto(noisy, 0, where=field < density / 2)
    return noisy


def multiplicative_noise(
    image: UnitImage,
    variance: float,
    rng: np.random.Generator | None = None,
    unif: ArrayLike | None = None,
) -> FloatImage:
    """Type 14: speckle x + x*n, clipped; n is UNIFORM of mean 0 and `variance`.

    (imnoisemultiplicative.m.) `unif` (H, W, 3), uniform on 0..1, replaces the draw.
    """
    field = _field("multiplicative_noise", "unif", image, unif, rng, _UNIFORM)
    noisy = field - np.float32(0.5)
    noisy *= np.float32(np.sqrt(12 * variance))
    noisy += 1
    noisy *= image.rgb
    return np.clip(noisy, 0, 1, out=noisy)


def denoise(
    image: UnitImage,
    variance: float,
    rng: np.random.Generator | None = None,
    gauss: ArrayLike | None = None,
    *,
    denoiser: Denoiser,
) -> FloatImage:
    """Type 15: white noise of `variance`, clipped, then removed by `denoiser` (imdenoise.m).

    `gauss` (H, W, 3), standard normal, replaces the draw.
    """
    field = _field("denoise", "gauss", image, gauss, rng, _NORMAL)
    noisy = _add_white_noise(image.rgb, variance, field)
    return np.clip(denoiser(noisy, variance), 0, 1)
