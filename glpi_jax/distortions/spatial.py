"""KADID group spatial: jitter, patch, pixelate, quantization, colour block (19 to 23)."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions.bands import by_bands
from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.distortions.cubic_convolution import sample_displaced
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.thresholds import histogram_256, otsu_thresholds
from glpi_jax.distortions.unit_image import UnitImage

_JITTER_ROUNDS = 5
_PATCH_SIDE = 16
_BLOCK_SIDE = 32


def round_half_away(values: ArrayLike) -> NDArray[np.float64]:
    """MATLAB's round: halves go away from zero."""
    array = np.asarray(values, dtype=np.float64)
    return np.copysign(np.floor(np.abs(array) + 0.5), array)


def jitter(image: UnitImage, amount: float, draw: Draw) -> FloatImage:
    """Type 19: every pixel is fetched `amount` * N(0, 1) away, five times over (imjitter.m).

    Sampling is by cubic convolution. Each round pads the image (edge) by the largest shift, rows by
    the largest COLUMN shift and columns by the largest ROW shift, as the original does, so that a
    few pixels of a small image may be fetched from outside: they become NaN, finally black.

    The result is unclipped, possibly NaN. The draw is (5, H, W, 2), standard normal: row shifts,
    then column shifts, in units of `amount`.
    """
    shape = (*image.shape[:2], 2)
    # Drawn round by round, the same numbers as at once: all of them are 40 bytes a pixel.
    rounds = draw.take(
        (_JITTER_ROUNDS, *shape),
        lambda rng: (rng.standard_normal(shape, np.float32) for _ in range(_JITTER_ROUNDS)),
    )
    planes = np.moveaxis(image.rgb, -1, 0)
    for field in rounds:
        row_shift, column_shift = amount * np.moveaxis(field, -1, 0).astype(np.float64)
        pad_rows = math.ceil(np.abs(column_shift).max())
        pad_columns = math.ceil(np.abs(row_shift).max())
        planes = sample_displaced(planes, row_shift, column_shift, pad_rows, pad_columns)
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def patch_corners(uniforms: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Patches (N, 4) as 0-based source row, source column, target row, target column.

    `uniforms` (N, 4) are the draws in the original's order: source column, source row, then the
    column's and the row's displacement.
    """
    room = np.array([width, height]) - 3 * _PATCH_SIDE
    source = round_half_away(uniforms[:, :2] * room) + _PATCH_SIDE
    target = round_half_away((uniforms[:, 2:] - 0.5) * _PATCH_SIDE + source)
    corners = np.stack([source[:, 1], source[:, 0], target[:, 1], target[:, 0]], axis=1)
    return corners.astype(np.int64) - 1


def non_eccentricity_patch(image: UnitImage, patches: int, draw: Draw) -> FloatImage:
    """Type 20: copy `patches` squares of 16 pixels up to 8 pixels aside, one after the other.

    A later patch may copy an earlier one (imnoneccentricity.m). The image has at least 48 pixels a
    side. The draw (4 * `patches` or longer) is uniform on 0..1: per patch source column, source
    row, column and row displacement.
    """
    count = 4 * patches
    uniforms = draw.take((count,), lambda rng: rng.random(count), or_longer=True)
    uniforms = uniforms.astype(np.float64, copy=False).reshape(patches, 4)
    result = image.rgb.copy()
    for row, column, to_row, to_column in patch_corners(uniforms, *image.shape[:2]).tolist():
        patch = result[row : row + _PATCH_SIDE, column : column + _PATCH_SIDE].copy()
        result[to_row : to_row + _PATCH_SIDE, to_column : to_column + _PATCH_SIDE] = patch
    return result


def _nearest_indices(size: int, target: int, scale: float) -> NDArray[np.int64]:
    """0-based source index of each of `target` pixels when `size` is resized by `scale`."""
    position = np.arange(1, target + 1) / scale + 0.5 * (1 - 1 / scale)
    return np.clip(np.floor(position + 0.5).astype(np.int64), 1, size) - 1


def pixelate_indices(size: int, strength: float) -> NDArray[np.int64]:
    """0-based source index of each of `size` pixels after shrinking and enlarging again."""
    scale = 0.95 - strength**0.6
    small = math.ceil(scale * size)
    return _nearest_indices(size, small, scale)[_nearest_indices(small, size, size / small)]


def pixelate(image: UnitImage, strength: float) -> FloatImage:
    """Type 21: nearest-neighbour shrinking to 0.95 - `strength`^0.6 and back (impixelate.m)."""
    rows = pixelate_indices(image.shape[0], strength)
    columns = pixelate_indices(image.shape[1], strength)
    return image.rgb.take(rows, axis=0).take(columns, axis=1)


def _histogram(image: UnitImage) -> NDArray[np.float64]:
    return histogram_256(image.rgb)


def quantization(image: UnitImage, count: int, draw: Draw) -> FloatImage:
    """Type 22: `count` Otsu thresholds, common to the channels, cut the values (imnoisequantize.m).

    Values up to the first threshold become 0, up to the next one that threshold, above the last 1.
    Nothing is random; thresholds (count,) that are given as a draw, increasing, in 255ths of the
    value range, replace the search.
    """
    if draw.given is None:
        levels = otsu_thresholds(image.once(_histogram), count)
    else:
        levels = np.asarray(draw.given, dtype=np.float64)
        if levels.shape != (count,) or np.any(np.diff(levels) <= 0):
            raise GlpiError(
                f"quantization: the draw 'thresholds_255' must be {count} increasing numbers, "
                f"got shape {levels.shape}."
            )
    # Both in float32: image values often lie exactly on a threshold.
    levels = (levels / 255).astype(np.float32)
    outputs = np.concatenate([[0], levels[1:], [1]]).astype(np.float32)
    return by_bands(lambda rgb: outputs[np.searchsorted(levels, rgb, side="left")])(image.rgb)


def block_rectangles(uniforms: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Blocks (N, 7) as 1-based x, y, width, height, then red, green, blue.

    `uniforms` (N, 5) are the draws in the original's order: red, green, blue, x, y. A corner may
    come out as 0, which lies outside the 1-based image.
    """
    x = round_half_away(uniforms[:, 3] * (width - _BLOCK_SIDE))
    y = round_half_away(uniforms[:, 4] * (height - _BLOCK_SIDE))
    side = np.full(len(uniforms), float(_BLOCK_SIDE))
    return np.column_stack([x, y, side, side, uniforms[:, :3]])


def color_block(image: UnitImage, blocks: int, draw: Draw) -> FloatImage:
    """Type 23: `blocks` squares of 32 pixels in random colours, later over earlier.

    (imcolorblock.m.) A square whose corner is 0 loses its first row or column. The image has at
    least 32 pixels a side. The draw (`blocks` rows or more, 7) is what `block_rectangles` returns.
    """
    height, width = image.shape[:2]
    rectangles = draw.take(
        (blocks, 7),
        lambda rng: block_rectangles(rng.random((blocks, 5)), height, width),
        or_longer=True,
    )
    result = image.rgb.copy()
    for x, y, across, down, *color in rectangles.tolist():
        top, left = int(y) - 1, int(x) - 1
        result[max(top, 0) : top + int(down), max(left, 0) : left + int(across)] = color
    return result
