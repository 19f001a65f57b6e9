"""KADID group sharpness and contrast: high sharpen (24) and contrast change (25)."""

import numpy as np
from scipy.interpolate import CubicSpline

from glpi_jax.saqt.distortions.color_spaces import FloatImage, lab_from_rgb, rgb_from_lab
from glpi_jax.saqt.distortions.filters import gaussian_filter


def high_sharpen(image: FloatImage, amount: float) -> FloatImage:
    """Type 24: unsharp mask of strength `amount` on Lab lightness, sigma 3 (imsharpenHi.m).

    Lightness is not clipped, the RGB result is. Image (H, W, 3), float32 in 0..1, the same out.
    """
    lab = lab_from_rgb(image)
    lightness = lab[..., 0]
    lab[..., 0] = lightness + np.float32(amount) * (lightness - gaussian_filter(lightness, 3))
    return np.clip(rgb_from_lab(lab), 0, 1)


def contrast_change(image: FloatImage, amount: float) -> FloatImage:
    """Type 25: tone curve, a cubic spline bent by `amount` at the quarter tones (imcontrastc.m).

    Not-a-knot spline through (0, 0), (0.3, 0.25 - amount/4), (0.5, 0.5), (0.7, 0.75 + amount/4)
    and (1, 1), clipped to 0..1; it is not the identity at amount 0.
    Image (H, W, 3), float32 in 0..1, and the same out.
    """
    curve = CubicSpline(
        [0, 0.3, 0.5, 0.7, 1],
        [0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1],
        bc_type="not-a-knot",
    )
    return np.clip(curve(image), 0, 1).astype(np.float32)
