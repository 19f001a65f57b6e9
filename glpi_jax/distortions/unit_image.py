"""The image that the types start from, and work on it that types and levels share."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from glpi_jax.distortions.color_spaces import FloatImage, lab_from_rgb

T = TypeVar("T")


class UnitImage:
    """An RGB image in 0..1 with what several types or levels derive from it, each computed once.

    `rgb` is (H, W, 3), float32; it and all derived arrays are read-only.
    """

    def __init__(self, rgb: FloatImage) -> None:
        self.rgb = _read_only(rgb.view())
        self._derived: dict[Callable[[UnitImage], Any], Any] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        height, width, channels = self.rgb.shape
        return height, width, channels

    @cached_property
    def lab(self) -> FloatImage:
        """CIE L*a*b* (H, W, 3) of the image, see `lab_from_rgb`."""
        return _read_only(lab_from_rgb(self.rgb))

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The image (H, W, 3) in 8 bits; truncating instead of rounding would cost about 50 dB."""
        return _read_only((self.rgb * 255.0 + 0.5).clip(0, 255).astype(np.uint8))

    def once(self, derive: Callable[["UnitImage"], T]) -> T:
        """`derive(self)`, computed at the first call and kept for the next, until `forget`."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        value: T = self._derived[derive]
        return value

    def forget(self) -> None:
        """Drop what `once` has kept: each derivation serves the levels of a single type."""
        self._derived.clear()


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
