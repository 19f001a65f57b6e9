"""KADID group sharpness and contrast: high sharpen (24) and contrast change (25)."""

import numpy as np

from glpi_jax.distortions.bands import by_bands
from glpi_jax.distortions.color_spaces import FloatImage, rgb_from_lab
from glpi_jax.distortions.filters import gaussian_filter
from glpi_jax.distortions.unit_image import UnitImage


def _fine_lightness(image: UnitImage) -> FloatImage:
    """Lab lightness (H, W) less its Gaussian blur of sigma 3."""
    lightness = np.ascontiguousarray(image.lab[..., 0])
    return lightness - gaussian_filter(lightness, 3)


def high_sharpen(image: UnitImage, amount: float) -> FloatImage:
    """Type 24: unsharp mask of strength `amount` on Lab lightness, sigma 3 (imsharpenHi.m).

    Lightness is not clipped, the RGB result is.
    """
    lab = image.lab.copy()
    lab[..., 0] += np.float32(amount) * image.once(_fine_lightness)
    return np.clip(rgb_from_lab(lab), 0, 1)


def contrast_curve(values: FloatImage, amount: float) -> FloatImage:
    """Values 0..1 under the contrast curve 0.5 + a*x + b*x^3, x = value - 0.5, clipped.

    The original's curve is the not-a-knot cubic spline through (0, 0), (0.3, 0.25 - amount/4),
    (0.5, 0.5), (0.7, 0.75 + amount/4) and (1, 1). The points are symmetric about the middle, so
    one cubic without even terms goes through all five, and that is the spline.
    """
    third = -(0.05 + amount / 4) / 0.042
    first = 1 - third / 4
    offset = values.astype(np.float64) - 0.5  # in float32 many a half would round the other way
    curve = (third * offset * offset + first) * offset + 0.5
    return np.clip(curve, 0, 1).astype(np.float32)


def contrast_change(image: UnitImage, amount: float) -> FloatImage:
    """Type 25: the tone curve of `contrast_curve` (imcontrastc.m); amount 0 is not the identity."""
    return by_bands(lambda rgb: contrast_curve(rgb, amount))(image.rgb)
