"""Palette and dithering of colour quantization, as MATLAB's rgb2ind does them (type 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELLS = 32  # a side of the colour cube, at 5 bits a channel


@dataclass
class _Box:
    """A box of colour cells, low bounds exclusive, and how much variance it still holds."""

    low: list[int]
    high: list[int]
    variance: float = 0.0


class _Moments:
    """Cumulative count, channel sums and sum of squares over the cube (Wu 1991)."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        red, green, blue = pixels.reshape(-1, 3).T.astype(np.int32)
        cell = ((red >> 3) + 1) * 33**2 + ((green >> 3) + 1) * 33 + ((blue >> 3) + 1)
        values = (None, red, green, blue, red**2 + green**2 + blue**2)
        sums = [np.bincount(cell, weights=value, minlength=33**3) for value in values]
        table = np.stack(sums).astype(np.float64).reshape(5, 33, 33, 33)
        self.table = table.cumsum(1).cumsum(2).cumsum(3)

    def box(self, low: list[int], high: list[int]) -> NDArray[np.float64]:
        """Moments (5,) of a box: count, red, green, blue, squares."""
        return self.slabs(low, high, 0, np.array([high[0]]))[:, 0]

    def slabs(
        self, low: list[int], high: list[int], axis: int, ends: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Moments (5, n) of the parts of a box from its low bound on `axis` to each of `ends`."""
        table = np.moveaxis(self.table, axis + 1, 1)
        first, second = (other for other in range(3) if other != axis)
        face = (
            table[:, :, high[first], high[second]]
            - table[:, :, low[first], high[second]]
            - table[:, :, high[first], low[second]]
            + table[:, :, low[first], low[second]]
        )
        return face[:, ends] - face[:, low[axis], None]

    def variance(self, box: _Box) -> float:
        """Sum of squared distances to the mean colour; a box of one cell counts as 0."""
        if np.prod(np.subtract(box.high, box.low)) <= 1:
            return 0.0
        count, red, green, blue, squares = self.box(box.low, box.high)
        return float(squares - (red**2 + green**2 + blue**2) / count)

    def best_cut(self, box: _Box) -> tuple[int, int] | None:
        """Axis and position of the plane that leaves least variance; None if nothing separates."""
        whole = self.box(box.low, box.high)[:4, None]
        best, cut = 0.0, None
        for axis in range(3):
            ends = np.arange(box.low[axis] + 1, box.high[axis])
            lower = self.slabs(box.low, box.high, axis, ends)[:4]
            upper = whole - lower
            usable = (lower[0] > 0) & (upper[0] > 0)
            gain = np.zeros(len(ends))
            for part in (lower[:, usable], upper[:, usable]):
                gain[usable] += (part[1:] ** 2).sum(axis=0) / part[0]
            if gain.max(initial=0) > best:
                place = int(gain.argmax())
                best, cut = float(gain[place]), (axis, int(ends[place]))
        return cut


def variance_palettes(pixels: NDArray[np.uint8], counts: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Palettes (N, 3) of at most each of `counts` colours for an 8-bit image (H, W, 3).

    X. Wu, "Efficient statistical computations for optimal color quantization" (Graphics Gems II,
    1991): the box with the largest variance is cut where the rest is least; mean colours, floored.
    A smaller palette is what a larger one was on its way.
    """
    moments = _Moments(pixels)
    boxes = [_Box([0, 0, 0], [_CELLS] * 3, np.inf)]
    palettes: dict[int, NDArray[np.uint8]] = {}
    for count in sorted(set(counts)):
        _split_boxes(boxes, moments, count)
        sums = np.array([moments.box(box.low, box.high) for box in boxes])
        palettes[count] = np.floor(sums[:, 1:4] / sums[:, :1]).astype(np.uint8)
    return [palettes[count] for count in counts]


def _split_boxes(boxes: list[_Box], moments: _Moments, count: int) -> None:
    """Cut boxes, in place, until there are `count` of them or none can be cut."""
    while len(boxes) < count:
        box = max(boxes, key=lambda box: box.variance)
        if box.variance <= 0:
            break
        cut = moments.best_cut(box)
        if cut is None:
            box.variance = 0.0
            continue
        axis, place = cut
        upper = _Box(list(box.low), list(box.high))
        upper.low[axis] = box.high[axis] = place
        boxes.append(upper)
        for part in (box, upper):
            part.variance = moments.variance(part)


def _nearest_colors(palette: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Palette colour (32768, 3) nearest to each cell's centre 8k+4; the first of equals."""
    centres = 8 * np.arange(_CELLS) + 4
    red, green, blue = (centres[:, None] - palette.astype(np.int32).T[:, None]) ** 2  # (32, N)
    distance = red[:, None, None] + green[None, :, None] + blue[None, None, :]
    return palette.astype(np.int16)[distance.argmin(axis=-1).ravel()]


# What an error e passes on: 7/16, 5/16, 3/16 and 1/16 of it, each rounded half away from zero, as
# four int16 packed into one word; entry e, from the end if negative.
_ERRORS = np.array([*range(256), *range(-255, 0)])[:, None]
_ROUNDED = np.sign(_ERRORS) * ((2 * np.abs(_ERRORS) * np.array([7, 5, 3, 1]) + 16) // 32)
_SHARES = _ROUNDED.astype(np.int16).view(np.int64)[:, 0]
_DOWN, _RIGHT, _UP_RIGHT, _DOWN_RIGHT = range(4)


def dither(
    pixels: NDArray[np.uint8], palettes: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.uint8]]:
    """Floyd-Steinberg dithering of (H, W, 3) to each palette, down each column, left to right.

    A pixel passes 7/16 of its error down, 5/16 right, 3/16 up right and 1/16 down right; nothing
    leaves the image. So pixel (r, c) waits for (r-1, c) and (r+1, c-1) only, and all pixels with
    the same r + 2c are visited together, for all palettes.
    """
    height, width = pixels.shape[:2]
    count = len(palettes)
    planes = pixels.reshape(-1, 3).T.astype(np.int16)[:, None]  # (3, 1, H*W)
    colors = np.concatenate([_nearest_colors(palette) for palette in palettes]).T.copy()
    made = np.empty((3, count, height * width), dtype=np.uint8)

    # A channel's part of the index into `colors`, for channel, palette and value.
    shift = np.array([10, 5, 0])[:, None, None]
    parts = np.broadcast_to(np.arange(256) >> 3 << shift, (3, count, 256)).copy()
    parts[0] += _CELLS**3 * np.arange(count)[:, None]
    first_part = np.arange(0, 3 * count * 256, 256, dtype=np.int16).reshape(3, count, 1)

    # Packed shares that the pixels of this and the last three steps pass on, by column and with a
    # spare column on the left; zero where no pixel was visited.
    packed = [np.zeros((3, count, width + 1), dtype=np.int64) for _ in range(4)]
    shares = [words.view(np.int16).reshape(3, count, width + 1, 4) for words in packed]
    stride = 2 * width - 1
    for step in range(height + 2 * width - 2):
        first, last = max(0, (step - height + 2) // 2), min(width, step // 2 + 1)
        if first == last:  # every second step of a single row
            continue
        # Pixels (step - 2c, c), from column `first` on.
        start = step * width - first * stride
        stop = start - (last - first) * stride
        visited = slice(start, stop if stop >= 0 else None, -stride)

        one, two, three = shares[step % 4 - 1], shares[step % 4 - 2], shares[step % 4 - 3]
        here, left = slice(first + 1, last + 1), slice(first, last)
        value = one[:, :, here, _DOWN] + one[:, :, left, _UP_RIGHT]
        value += two[:, :, left, _RIGHT]
        value += three[:, :, left, _DOWN_RIGHT]
        value += planes[:, :, visited].copy()  # in one piece: adding is slow on strided pixels
        np.maximum(value, 0, out=value)
        np.minimum(value, 255, out=value)

        cell = np.add.reduce(parts.take(value + first_part), axis=0)
        chosen = colors.take(cell, axis=1)
        made[:, :, visited] = chosen
        value -= chosen
        passing = packed[step % 4]
        passing[:, :, first] = 0
        passing[:, :, here] = _SHARES.take(value)
    return [np.ascontiguousarray(made[:, k].T).reshape(pixels.shape) for k in range(count)]
