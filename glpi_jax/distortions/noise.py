"""KADID group noise: white (11), YCbCr (12), impulse (13), multiplicative (14), denoised (15).

The draw of each is (H, W, 3): standard normal for 11, 12 and 15, uniform on 0..1 for 13 and 14.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from glpi_jax.distortions.color_spaces import FloatImage, rgb_from_ycbcr, ycbcr_from_rgb
from glpi_jax.distortions.denoising import Denoiser
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.unit_image import UnitImage

_NORMAL = np.random.Generator.standard_normal
_UNIFORM = np.random.Generator.random


def _field(image: UnitImage, draw: Draw, sample: Callable[..., Any]) -> FloatImage:
    values = draw.take(image.shape, lambda rng: sample(rng, image.shape, dtype=np.float32))
    return values.astype(np.float32, copy=False)


def _add_white_noise(values: FloatImage, variance: float, field: FloatImage) -> FloatImage:
    noisy = np.float32(np.sqrt(variance)) * field
    noisy += values
    return np.clip(noisy, 0, 1, out=noisy)


def white_noise(image: UnitImage, variance: float, draw: Draw) -> FloatImage:
    """Type 11: add Gaussian noise of `variance` to each RGB value and clip (imnoisegauss.m)."""
    return _add_white_noise(image.rgb, variance, _field(image, draw, _NORMAL))


def _ycbcr(image: UnitImage) -> FloatImage:
    return ycbcr_from_rgb(image.rgb)


def white_noise_ycbcr(image: UnitImage, variance: float, draw: Draw) -> FloatImage:
    """Type 12: the same noise on BT.601 Y, Cb and Cr, clipped there and in RGB.

    (imnoisecolormap.m.)
    """
    noisy = _add_white_noise(image.once(_ycbcr), variance, _field(image, draw, _NORMAL))
    return np.clip(rgb_from_ycbcr(noisy), 0, 1)


def impulse_noise(image: UnitImage, density: float, draw: Draw) -> FloatImage:
    """Type 13: each RGB value turns 0 or 1, with chance `density`/2 each (imnoiseimpulse.m)."""
    field = _field(image, draw, _UNIFORM)
    noisy = image.rgb.copy()
    np.copyto(noisy, 1, where=field < density)
    np.copyto(noisy, 0, where=field < density / 2)
    return noisy


def multiplicative_noise(image: UnitImage, variance: float, draw: Draw) -> FloatImage:
    """Type 14: speckle x + x*n, clipped; n is UNIFORM of mean 0 and `variance`.

    (imnoisemultiplicative.m.)
    """
    noisy = _field(image, draw, _UNIFORM) - np.float32(0.5)
    noisy *= np.float32(np.sqrt(12 * variance))
    noisy += 1
    noisy *= image.rgb
    return np.clip(noisy, 0, 1, out=noisy)


def denoise(image: UnitImage, variance: float, draw: Draw, *, denoiser: Denoiser) -> FloatImage:
    """Type 15: white noise of `variance`, clipped, then removed by `denoiser` (imdenoise.m)."""
    return np.clip(denoiser(white_noise(image, variance, draw), variance), 0, 1)
