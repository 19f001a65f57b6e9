"""KADID group brightness: brighten (16), darken (17) and mean shift (18)."""

import numpy as np

from glpi_jax.saqt.distortions.color_spaces import FloatImage, lab_from_rgb, rgb_from_lab


def parabola(values: FloatImage, middle: float) -> FloatImage:
    """The parabola through (0, 0), (0.5, middle) and (1, 1), clipped to 0..1."""
    square = np.float32(2 - 4 * middle)
    linear = np.float32(4 * middle - 1)
    return np.clip((square * values + linear) * values, 0, 1)


def brighten(image: FloatImage, amount: float) -> FloatImage:
    """Type 16: tone curve raised by `amount`/2 at mid-grey (imbrighten.m).

    The curve is applied to RGB and, separately, to Lab lightness; the result is two parts of the
    former and one of the latter. Image (H, W, 3), float32 in 0..1, and the same out.
    """
    middle = 0.5 + amount / 2
    lab = lab_from_rgb(image)
    lab[..., 0] = 100 * parabola(lab[..., 0] / np.float32(100), middle)
    return np.float32(1 / 3) * (2 * parabola(image, middle) + np.clip(rgb_from_lab(lab), 0, 1))


def darken(image: FloatImage, amount: float) -> FloatImage:
    """Type 17: tone curve lowered by `amount`/2 at mid-grey, RGB only (imdarken.m).

    Image (H, W, 3), float32 in 0..1, and the same out.
    """
    return parabola(image, 0.5 - amount / 2)


def mean_shift(image: FloatImage, amount: float) -> FloatImage:
    """Type 18: add `amount` and clip to 0..1 (immeanshift.m).

    The dispatcher's final stretch undoes most of it. Image (H, W, 3), float32 in 0..1.
    """
    return np.clip(image + np.float32(amount), 0, 1)
