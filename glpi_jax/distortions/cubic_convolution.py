"""Interpolation by cubic convolution (Keys 1981, a = -1/2), as MATLAB's interp2 'cubic' does it."""

import numpy as np
from numpy.typing import NDArray

from glpi_jax.distortions.bands import row_bands
from glpi_jax.distortions.color_spaces import FloatImage

_PIXELS_AT_ONCE = 1 << 14


def sample_displaced(
    planes: FloatImage,
    row_shift: NDArray[np.float64],
    column_shift: NDArray[np.float64],
    pad_rows: int,
    pad_columns: int,
) -> FloatImage:
    """Fetch every pixel (r, c) of planes (C, H, W) from (r - row_shift, c - column_shift).

    The shifts are (H, W), in pixels. The planes are first padded by `pad_rows` and `pad_columns`
    with their edges, to 3 or more pixels a side; what lies outside of that is NaN. Returns float32
    (C, H, W).
    """
    pads = ((0, 0), (pad_rows, pad_rows), (pad_columns, pad_columns))
    ghosted = _extrapolate_border(np.pad(planes, pads, mode="edge"))
    most_rows, most_columns = np.abs(row_shift).max(), np.abs(column_shift).max()
    result = np.empty(planes.shape, dtype=np.float32)
    bands = row_bands(planes.shape[1], planes.shape[2], _PIXELS_AT_ONCE)
    near = max(most_rows, most_columns) <= 1 and pad_rows == pad_columns == 1
    if near and not np.isnan(planes).any():
        for band in bands:
            window = ghosted[:, band.start : band.stop + 4]
            result[:, band] = _sample_near(window, row_shift[band], column_shift[band])
        return result
    for band in bands:
        rows = np.arange(band.start + pad_rows, band.stop + pad_rows)[:, None] - row_shift[band]
        columns = np.arange(pad_columns, pad_columns + planes.shape[2]) - column_shift[band]
        _sample_anywhere(ghosted, rows, columns, out=result[:, band])
    return result


def _extrapolate_border(planes: FloatImage) -> FloatImage:
    """Add one ghost row and column a side, 3*c0 - 3*c1 + c2: Keys' third-order border."""
    ghosted = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    for lines in (ghosted[:, :, 1:-1].swapaxes(0, 1), ghosted.swapaxes(0, 2)):
        lines[0] = 3 * lines[1] - 3 * lines[2] + lines[3]
        lines[-1] = 3 * lines[-2] - 3 * lines[-3] + lines[-4]
    return ghosted


def _sample_near(
    window: FloatImage, row_shift: NDArray[np.float64], column_shift: NDArray[np.float64]
) -> FloatImage:
    """Sample planes (C, h+4, w+4) less than a pixel around the centres of their 5x5 windows.

    All 25 pixels are weighted, of which at least 9 with 0: cheaper than to look 16 of them up.
    """
    height, width = row_shift.shape
    down, across = _weights_of_five(-row_shift), _weights_of_five(-column_shift)
    total = np.zeros((len(window), height, width), dtype=np.float32)
    line, product = np.empty_like(total), np.empty_like(total)
    for row in range(5):
        np.multiply(window[:, row : row + height, :width], across[0], out=line)
        for column in range(1, 5):
            moved = window[:, row : row + height, column : column + width]
            np.multiply(moved, across[column], out=product)
            line += product
        line *= down[row]
        total += line
    return total


def _weights_of_five(offset: NDArray[np.float64]) -> list[FloatImage]:
    """Weights of the pixels at -2..2 for a sample at `offset` from -1 to 1."""
    x = offset.astype(np.float32)
    # One of the two distances is 0, where all four weights but the nearest pixel's 1 vanish.
    right = _weights_of_four(np.maximum(x, 0))
    left = _weights_of_four(np.maximum(-x, 0))
    centre = right[1] + left[1] - 1
    return [left[3], left[2] + right[0], centre, left[0] + right[2], right[3]]


def _sample_anywhere(
    ghosted: FloatImage,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    out: FloatImage,
) -> None:
    """Sample planes (C, H+2, W+2) with their ghost border at positions (h, w) without it."""
    height, width = ghosted.shape[1] - 2, ghosted.shape[2] - 2
    # The last sample belongs to the last cell, at its far end.
    top = np.clip(np.floor(rows), 0, height - 2)
    left = np.clip(np.floor(columns), 0, width - 2)
    down = _weights_of_four((rows - top).astype(np.float32))
    across = _weights_of_four((columns - left).astype(np.float32))
    corner = (top * (width + 2) + left).astype(np.intp)
    line, product = np.empty(rows.shape, np.float32), np.empty(rows.shape, np.float32)
    for plane, total in zip(ghosted.reshape(len(ghosted), -1), out, strict=True):
        total[...] = 0
        for row in range(4):
            start = row * (width + 2)
            plane[start:].take(corner, out=line, mode="clip")
            line *= across[0]
            for column in range(1, 4):
                plane[start + column :].take(corner, out=product, mode="clip")
                product *= across[column]
                line += product
            line *= down[row]
            total += line
    outside = (rows < 0) | (rows > height - 1) | (columns < 0) | (columns > width - 1)
    out[:, outside] = np.nan


def _weights_of_four(t: FloatImage) -> list[FloatImage]:
    """Weights of the pixels at -1, 0, 1 and 2 for a sample at `t` from 0 to 1."""
    square = t * t
    cube = square * t
    return [
        square - 0.5 * (cube + t),
        1.5 * cube - 2.5 * square + 1,
        0.5 * t + 2 * square - 1.5 * cube,
        0.5 * (cube - square),
    ]
