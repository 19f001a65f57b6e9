"""KADID group colour: diffusion (4), shift (5), quantization (6), HSV (7), Lab saturation (8)."""

import numpy as np
from numpy.typing import ArrayLike

from glpi_jax.saqt.distortions.color_dithering import dither, variance_palette
from glpi_jax.saqt.distortions.color_spaces import (
    FloatImage,
    lab_from_rgb,
    rgb_from_lab,
)
from glpi_jax.saqt.distortions.draws import drawn
from glpi_jax.saqt.distortions.filters import gaussian_filter

# MATLAB's rgb2gray, with the digits that its documentation of the conversion gives.
_GRAY_WEIGHTS = np.array([0.298936, 0.587043, 0.114021], dtype=np.float32)


def color_diffusion(image: FloatImage, amount: float) -> FloatImage:
    """Type 4: Lab a and b blurred with sigma 1.5*`amount`+2, then multiplied by `amount`.

    (imcolordiffuse.m.) Image (H, W, 3), float32 in 0..1, and the same out.
    """
    lab = lab_from_rgb(image)
    lab[..., 1:] = np.float32(amount) * gaussian_filter(lab[..., 1:], 1.5 * amount + 2)
    return np.clip(rgb_from_lab(lab), 0, 1)


def _stretch(values: FloatImage) -> FloatImage:
    """Linearly onto 0..1; a constant plane is left as it is."""
    low, high = values.min(), values.max()
    if high == low:
        return values
    return (values - low) / (high - low)


def _percentile_99(values: FloatImage) -> np.float32:
    """The value of rank round(0.99*n), counted from 1."""
    rank = max(int(np.floor(0.99 * values.size + 0.5)), 1) - 1
    return np.partition(values, rank, axis=None)[rank]


def edge_weight(image: FloatImage) -> FloatImage:
    """Where colour shift acts: the smoothed gradient magnitude as weights (H, W) in 0..1."""
    down, across = np.gradient(image @ _GRAY_WEIGHTS)
    edges = _stretch(gaussian_filter(np.hypot(down, across), 4))
    edges = _stretch(np.clip(edges, np.float32(0.1), np.float32(1)))
    return _stretch(np.clip(edges, 1 - _percentile_99(1 - edges), _percentile_99(edges)))


def color_shift(
    image: FloatImage,
    amount: float,
    rng: np.random.Generator | None = None,
    rand2: ArrayLike | None = None,
) -> FloatImage:
    """Type 5: the green plane, moved down and right by `amount` pixels, blended in at edges.

    (imcolorshift.m.) Image (H, W, 3) of at least 2 pixels a side, float32 in 0..1, the same out.
    `rand2` (2,), uniform on 0..1, replaces the draw of the direction (rows, columns).
    """
    direction = drawn("color_shift", "rand2", rand2, rng, lambda g: g.random(2), (2,))
    shift = np.floor(amount * direction / np.linalg.norm(direction) + 0.5).astype(np.int64)
    green = image[..., 1]
    rows = np.maximum(np.arange(green.shape[0]) - shift[0], 0)
    columns = np.maximum(np.arange(green.shape[1]) - shift[1], 0)
    weight = edge_weight(image)
    result = image.copy()
    result[..., 1] = green[rows[:, None], columns] * weight + green * (1 - weight)
    return result


def color_quantization(image: FloatImage, colors: int) -> FloatImage:
    """Type 6: at most `colors` colours, Wu's palette, dithered by columns (imcolorquantize.m).

    Image (H, W, 3), float32 in 0..1, and the same out.
    """
    pixels = np.clip(np.floor(image * 255.0 + 0.5), 0, 255).astype(np.uint8)
    palette = variance_palette(pixels, colors)
    return dither(pixels, palette).astype(np.float32) / np.float32(255)


def color_saturation_hsv(image: FloatImage, factor: float) -> FloatImage:
    """Type 7: HSV saturation times `factor`, which may be negative; unclipped (imcolorsaturate.m).

    With hue and value kept, a channel's distance below the value is proportional to the
    saturation, so no conversion is needed. Image (H, W, 3), float32 in 0..1; out float32, may
    exceed 1.
    """
    value = np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])[..., None]
    return value - np.float32(factor) * (value - image)


def color_saturation_lab(image: FloatImage, factor: float) -> FloatImage:
    """Type 8: Lab a and b times `factor`, clipped in RGB (imsaturate.m).

    Image (H, W, 3), float32 in 0..1, and the same out.
    """
    lab = lab_from_rgb(image)
    lab[..., 1:] *= np.float32(factor)
    return np.clip(rgb_from_lab(lab), 0, 1)
