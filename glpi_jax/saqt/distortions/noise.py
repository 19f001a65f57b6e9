"""KADID group noise: white (11), white in YCbCr (12), impulse (13), multiplicative noise (14).

Type 15, denoising, follows its noise stage with MATLAB's DnCNN; here is the noise stage alone.
"""

import numpy as np
from numpy.typing import ArrayLike

from glpi_jax.saqt.distortions.color_spaces import (
    FloatImage,
    rgb_from_ycbcr,
    ycbcr_from_rgb,
)
from glpi_jax.saqt.distortions.draws import drawn


def _normal_field(
    distortion: str, image: FloatImage, rng: np.random.Generator | None, gauss: ArrayLike | None
) -> FloatImage:
    """Standard normal values, one a pixel and channel."""
    values = drawn(
        distortion,
        "gauss",
        gauss,
        rng,
        lambda g: g.standard_normal(image.shape, dtype=np.float32),
        image.shape,
    )
    return values.astype(np.float32, copy=False)


def _uniform_field(
    distortion: str, image: FloatImage, rng: np.random.Generator | None, unif: ArrayLike | None
) -> FloatImage:
    """Values uniform on [0, 1), one a pixel and channel."""
    values = drawn(
        distortion,
        "unif",
        unif,
        rng,
        lambda g: g.random(image.shape, dtype=np.float32),
        image.shape,
    )
    return values.astype(np.float32, copy=False)


def _add_white_noise(image: FloatImage, variance: float, field: FloatImage) -> FloatImage:
    return np.clip(image + np.float32(np.sqrt(variance)) * field, 0, 1)


def white_noise(
    image: FloatImage,
    variance: float,
    rng: np.random.Generator | None = None,
    gauss: ArrayLike | None = None,
) -> FloatImage:
    """Type 11: add Gaussian noise of `variance` to each RGB value and clip (imnoisegauss.m).

    Image (H, W, 3), float32 in 0..1, and the same out; `gauss` (H, W, 3) replaces the draw.
    """
    return _add_white_noise(image, variance, _normal_field("white_noise", image, rng, gauss))


def white_noise_ycbcr(
    image: FloatImage,
    variance: float,
    rng: np.random.Generator | None = None,
    gauss: ArrayLike | None = None,
) -> FloatImage:
    """Type 12: the same noise on BT.601 Y, Cb and Cr, clipped there and in RGB (imnoisecolormap.m).

    Image (H, W, 3), float32 in 0..1, and the same out; `gauss` (H, W, 3) replaces the draw.
    """
    field = _normal_field("white_noise_ycbcr", image, rng, gauss)
    noisy = _add_white_noise(ycbcr_from_rgb(image), variance, field)
    return np.clip(rgb_from_ycbcr(noisy), 0, 1)


def impulse_noise(
    image: FloatImage,
    density: float,
    rng: np.random.Generator | None = None,
    unif: ArrayLike | None = None,
) -> FloatImage:
    """Type 13: each RGB value turns 0 or 1, with chance `density`/2 each (imnoiseimpulse.m).

    Image (H, W, 3), float32 in 0..1, and the same out; `unif` (H, W, 3) replaces the draw.
    """
    field = _uniform_field("impulse_noise", image, rng, unif)
    return np.where(field < density / 2, 0, np.where(field < density, 1, image)).astype(np.float32)


def multiplicative_noise(
    image: FloatImage,
    variance: float,
    rng: np.random.Generator | None = None,
    unif: ArrayLike | None = None,
) -> FloatImage:
    """Type 14: speckle x + x*n, clipped; n is UNIFORM of mean 0 and `variance`.

    (imnoisemultiplicative.m.) Image (H, W, 3), float32 in 0..1, and the same out; `unif` (H, W, 3)
    replaces the draw.
    """
    field = _uniform_field("multiplicative_noise", image, rng, unif)
    factor = 1 + np.float32(np.sqrt(12 * variance)) * (field - np.float32(0.5))
    return np.clip(image * factor, 0, 1)


def denoise_noise_stage(
    image: FloatImage,
    variance: float,
    rng: np.random.Generator | None = None,
    gauss: ArrayLike | None = None,
) -> FloatImage:
    """First stage of type 15: Gaussian noise of `variance`, clipped (imdenoise.m before its DnCNN).

    Image (H, W, 3), float32 in 0..1, and the same out; `gauss` (H, W, 3) replaces the draw.
    """
    field = _normal_field("denoise_noise_stage", image, rng, gauss)
    return _add_white_noise(image, variance, field)
