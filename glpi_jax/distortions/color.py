"""KADID group colour: diffusion (4), shift (5), quantization (6), HSV (7), Lab saturation (8)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glpi_jax.distortions.bands import by_bands
from glpi_jax.distortions.color_dithering import dither, variance_palettes
from glpi_jax.distortions.color_spaces import FloatImage, rgb_from_lab
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.filters import PaddedSpectrum, gaussian_filter, gaussian_weights
from glpi_jax.distortions.unit_image import UnitImage

# MATLAB's rgb2gray, with the digits that its documentation of the conversion gives.
_GRAY_WEIGHTS = np.array([0.298936, 0.587043, 0.114021], dtype=np.float32)

_DIFFUSION_MARGIN = 40  # reach of the widest of the five levels' Gaussians


def _chroma_spectrum(image: UnitImage) -> PaddedSpectrum:
    return PaddedSpectrum(np.moveaxis(image.lab[..., 1:], -1, 0), _DIFFUSION_MARGIN)


def color_diffusion(image: UnitImage, amount: float) -> FloatImage:
    """Type 4: Lab a and b blurred with sigma 1.5*`amount`+2, then multiplied by `amount`.

    (imcolordiffuse.m.) `amount` is at most 12.
    """
    weights = gaussian_weights(1.5 * amount + 2)
    chroma = image.once(_chroma_spectrum).correlate_separable(weights)
    lab = image.lab.copy()
    lab[..., 1:] = np.float32(amount) * np.moveaxis(chroma, 0, -1)
    return np.clip(rgb_from_lab(lab), 0, 1)


def _stretch(values: FloatImage) -> FloatImage:
    """Linearly onto 0..1; a constant plane is left as it is."""
    low, high = values.min(), values.max()
    if high == low:
        return values
    return (values - low) / (high - low)


def _percentile_99(values: FloatImage) -> np.float32:
    """The value of rank round(0.99*n), counted from 1."""
    rank = int(0.99 * values.size + 0.5) - 1
    return np.partition(values, rank, axis=None)[rank]


def edge_weight(image: UnitImage) -> FloatImage:
    """Where colour shift acts: the smoothed gradient magnitude as weights (H, W) in 0..1."""
    down, across = np.gradient(image.rgb @ _GRAY_WEIGHTS)
    edges = _stretch(gaussian_filter(np.hypot(down, across), 4))
    edges = _stretch(np.clip(edges, np.float32(0.1), np.float32(1)))
    return _stretch(np.clip(edges, 1 - _percentile_99(1 - edges), _percentile_99(edges)))


def color_shift(image: UnitImage, amount: float, draw: Draw) -> FloatImage:
    """Type 5: the green plane, moved down and right by `amount` pixels, blended in at edges.

    (imcolorshift.m.) The image has at least 2 pixels a side. The draw (2,), uniform on 0..1, is
    the direction (rows, columns).
    """
    direction = draw.take((2,), lambda rng: rng.random(2))
    shift = np.floor(amount * direction / np.linalg.norm(direction) + 0.5).astype(np.int64)
    result = image.rgb.copy()
    green = np.ascontiguousarray(image.rgb[..., 1])
    rows = np.maximum(np.arange(green.shape[0]) - shift[0], 0)
    columns = np.maximum(np.arange(green.shape[1]) - shift[1], 0)
    moved = green.take(rows, axis=0).take(columns, axis=1)
    weight = image.once(edge_weight)
    result[..., 1] = moved * weight + green * (1 - weight)
    return result


def color_quantization_levels(image: UnitImage, colors: Sequence[int]) -> list[NDArray[np.uint8]]:
    """`color_quantization` for several numbers of colours at once, much faster than one by one."""
    return dither(image.pixels, variance_palettes(image.pixels, colors))


def color_quantization(image: UnitImage, colors: int) -> NDArray[np.uint8]:
    """Type 6: at most `colors` colours, Wu's palette, dithered by columns (imcolorquantize.m).

    Returns 8-bit pixels (H, W, 3).
    """
    return color_quantization_levels(image, [colors])[0]


def color_saturation_hsv(image: UnitImage, factor: float) -> FloatImage:
    """Type 7: HSV saturation times `factor`, which may be negative; unclipped (imcolorsaturate.m).

    With hue and value kept, a channel's distance below the value is proportional to the
    saturation, so no conversion is needed. The result may exceed 1.
    """

    @by_bands
    def saturated(rgb: FloatImage) -> FloatImage:
        value = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])[..., None]
        return value - np.float32(factor) * (value - rgb)

    return saturated(image.rgb)


def color_saturation_lab(image: UnitImage, factor: float) -> FloatImage:
    """Type 8: Lab a and b times `factor`, clipped in RGB (imsaturate.m)."""
    lab = image.lab * np.array([1, factor, factor], dtype=np.float32)
    return np.clip(rgb_from_lab(lab), 0, 1)
