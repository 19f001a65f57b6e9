"""Interpolation by cubic convolution (Keys 1981, a = -1/2), as MATLAB's interp2 'cubic' does it."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from glpi_jax.saqt.distortions.color_spaces import FloatImage

_PIXELS_AT_ONCE = 1 << 14

# Column k: the weight of neighbour k (from one before to two after) as a polynomial in t, the
# distance past neighbour 1; rows are the coefficients of 1, t, t^2, t^3.
_KEYS = np.array(
    [[0, 1, 0, 0], [-0.5, 0, 0.5, 0], [1, -2.5, 2, -0.5], [-0.5, 1.5, -1.5, 0.5]],
    dtype=np.float32,
)
# Spread over the 16 neighbours of a pixel, row by row.
_ALONG_ROWS = np.repeat(_KEYS, 4, axis=1)
_ALONG_COLUMNS = np.tile(_KEYS, (1, 4))


def _extrapolate_border(image: FloatImage) -> FloatImage:
    """Add one ghost row and column a side, 3*c0 - 3*c1 + c2: Keys' third-order border."""
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 0)
        before = 3 * lines[0] - 3 * lines[1] + lines[2]
        after = 3 * lines[-1] - 3 * lines[-2] + lines[-3]
        image = np.moveaxis(np.concatenate([before[None], lines, after[None]]), 0, axis)
    return np.ascontiguousarray(image)


def _weights(t: NDArray[np.float64], polynomials: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights (N, 16) of the 4x4 neighbours along one axis, at fractions `t` (N,) of a cell."""
    t = t.astype(np.float32)
    powers = np.empty((t.size, 4), dtype=np.float32)
    powers[:, 0] = 1
    powers[:, 1] = t
    powers[:, 2] = t * t
    powers[:, 3] = powers[:, 2] * t
    return powers @ polynomials


def sample_cubic(
    image: FloatImage, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> FloatImage:
    """Values of an image (H, W, C), H and W >= 3, at 0-based `rows` and `columns` (both (h, w)).

    NaN outside the image, that is outside 0..H-1 and 0..W-1. Returns float32 (h, w, C).
    """
    ghosted = _extrapolate_border(image)
    result = np.empty((*rows.shape, image.shape[2]), dtype=np.float32)
    # A band of rows at a time: the 16 weights of every pixel would fill the memory.
    band = max(1, _PIXELS_AT_ONCE // rows.shape[1])
    for start in range(0, rows.shape[0], band):
        part = slice(start, start + band)
        result[part] = _sample_band(ghosted, rows[part], columns[part])
    return result


def _sample_band(
    ghosted: FloatImage, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> FloatImage:
    """`sample_cubic` on an image that already has its ghost border, positions still without it."""
    height, width, channels = ghosted.shape[0] - 2, ghosted.shape[1] - 2, ghosted.shape[2]
    row, column = rows.ravel(), columns.ravel()
    # The last sample belongs to the last cell, at its far end.
    top = np.clip(np.floor(row), 0, height - 2)
    left = np.clip(np.floor(column), 0, width - 2)
    weights = _weights(row - top, _ALONG_ROWS) * _weights(column - left, _ALONG_COLUMNS)

    # A sparse matrix of 16 weights a pixel times the image: one pass over all neighbours.
    stride = width + 2
    neighbours = (np.arange(4)[:, None] * stride + np.arange(4)).ravel()
    pixels = ghosted.reshape(-1, channels)
    index_type = np.int32 if len(pixels) < np.iinfo(np.int32).max else np.int64
    indices = (top * stride + left).astype(index_type)[:, None] + neighbours.astype(index_type)
    row_starts = np.arange(0, indices.size + 1, 16, dtype=index_type)
    matrix = sparse.csr_array(
        (weights.ravel(), indices.ravel(), row_starts), shape=(row.size, len(pixels))
    )
    samples: FloatImage = matrix @ pixels
    samples[(row < 0) | (row > height - 1) | (column < 0) | (column > width - 1)] = np.nan
    return samples.reshape(*rows.shape, channels)
