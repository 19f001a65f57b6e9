"""Work on an image in bands of rows, so that intermediate arrays stay in the processor's cache."""

import functools
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_PIXELS_AT_ONCE = 1 << 13


def row_bands(height: int, width: int, pixels: int = _PIXELS_AT_ONCE) -> Iterator[slice]:
    """Slices that cut `height` rows into bands of about `pixels` pixels, at least one row each."""
    rows = max(1, pixels // max(width, 1))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def by_bands(
    function: Callable[[NDArray[np.float32]], NDArray[np.floating]],
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Make a function of (H, W, C), whose pixels do not depend on each other, work in bands."""

    @functools.wraps(function)
    def banded(image: NDArray[np.float32]) -> NDArray[np.float32]:
        result = np.empty_like(image)
        for band in row_bands(*image.shape[:2]):
            result[band] = function(image[band])
        return result

    return banded


def look_up(table: NDArray[T], pixels: NDArray[np.uint8]) -> NDArray[T]:
    """`table` (256,) at the values of (H, W, C); at once NumPy would make 8 bytes of each index."""
    result = np.empty(pixels.shape, dtype=table.dtype)
    for band in row_bands(*pixels.shape[:2]):
        result[band] = table[pixels[band]]
    return result
