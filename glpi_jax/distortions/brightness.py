"""KADID group brightness: brighten (16), darken (17) and mean shift (18)."""

import numpy as np

from glpi_jax.distortions.color_spaces import FloatImage, rgb_from_lab
from glpi_jax.distortions.unit_image import UnitImage


def parabola(values: FloatImage, middle: float) -> FloatImage:
    """The parabola through (0, 0), (0.5, middle) and (1, 1), clipped to 0..1."""
    square = np.float32(2 - 4 * middle)
    linear = np.float32(4 * middle - 1)
    return np.clip((square * values + linear) * values, 0, 1)


def brighten(image: UnitImage, amount: float) -> FloatImage:
    """Type 16: tone curve raised by `amount`/2 at mid-grey (imbrighten.m).

    The curve is applied to RGB and, separately, to Lab lightness; the result is two parts of the
    former and one of the latter.
    """
    middle = 0.5 + amount / 2
    lab = image.lab.copy()
    lab[..., 0] = 100 * parabola(lab[..., 0] / np.float32(100), middle)
    return np.float32(1 / 3) * (2 * parabola(image.rgb, middle) + np.clip(rgb_from_lab(lab), 0, 1))


def darken(image: UnitImage, amount: float) -> FloatImage:
    """Type 17: tone curve lowered by `amount`/2 at mid-grey, RGB only (imdarken.m)."""
    return parabola(image.rgb, 0.5 - amount / 2)


def mean_shift(image: UnitImage, amount: float) -> FloatImage:
    """Type 18: add `amount` and clip to 0..1 (immeanshift.m).

    The dispatcher's final stretch undoes most of it.
    """
    return np.clip(image.rgb + np.float32(amount), 0, 1)
