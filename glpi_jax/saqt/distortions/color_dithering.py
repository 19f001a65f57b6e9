"""Palette and dithering of colour quantization, as MATLAB's rgb2ind does them (type 6)."""

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

    @property
    def cells(self) -> int:
        return int(np.prod([high - low for low, high in zip(self.low, self.high, strict=True)]))


class _Moments:
    """Cumulative count, channel sums and sum of squares over the cube (Wu 1991)."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        flat = pixels.reshape(-1, 3).astype(np.int64)
        cell = ((flat >> 3) + 1) @ np.array([33 * 33, 33, 1])
        values = [np.ones(len(flat)), *flat.T.astype(np.float64), (flat**2).sum(axis=1)]
        self.table = (
            np.stack(
                [
                    np.bincount(cell, weights=value, minlength=33**3).reshape(33, 33, 33)
                    for value in values
                ]
            )
            .cumsum(1)
            .cumsum(2)
            .cumsum(3)
        )

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
        if box.cells <= 1:
            return 0.0
        count, red, green, blue, squares = self.box(box.low, box.high)
        return float(squares - (red**2 + green**2 + blue**2) / count)

    def best_cut(self, box: _Box) -> tuple[int, int] | None:
        """Axis and position of the plane that leaves least variance; None if nothing separates."""
        whole = self.box(box.low, box.high)[:4, None]
        best: list[tuple[float, int]] = []
        for axis in range(3):
            ends = np.arange(box.low[axis] + 1, box.high[axis])
            lower = self.slabs(box.low, box.high, axis, ends)[:4]
            upper = whole - lower
            usable = (lower[0] > 0) & (upper[0] > 0)
            gain = np.zeros(len(ends))
            for part in (lower[:, usable], upper[:, usable]):
                gain[usable] += (part[1:] ** 2).sum(axis=0) / part[0]
            if gain.any():
                place = int(gain.argmax())
                best.append((float(gain[place]), int(ends[place])))
            else:
                best.append((0.0, -1))
        axis = int(np.argmax([gain for gain, _ in best]))
        return None if best[axis][1] < 0 else (axis, best[axis][1])


def variance_palette(pixels: NDArray[np.uint8], colors: int) -> NDArray[np.uint8]:
    """At most `colors` colours (N, 3) for an 8-bit image (H, W, 3).

    X. Wu, "Efficient statistical computations for optimal color quantization" (Graphics Gems II,
    1991): the box with the largest variance is cut where the rest is least; mean colours, floored.
    """
    moments = _Moments(pixels)
    boxes = [_Box([0, 0, 0], [_CELLS] * 3)]
    boxes[0].variance = np.inf
    while len(boxes) < colors:
        index = int(np.argmax([box.variance for box in boxes]))
        box = boxes[index]
        if box.variance <= 0:
            break
        cut = moments.best_cut(box)
        if cut is None:
            box.variance = 0.0
            continue
        axis, place = cut
        upper = _Box(list(box.low), list(box.high))
        upper.low[axis] = place
        box.high[axis] = place
        box.variance = moments.variance(box)
        upper.variance = moments.variance(upper)
        boxes.append(upper)
    sums = np.array([moments.box(box.low, box.high) for box in boxes])
    return np.floor(sums[:, 1:4] / sums[:, :1]).astype(np.uint8)


def _nearest_colors(palette: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Palette colour (32768, 3) nearest to each cell's centre 8k+4; the first of equals."""
    centres = 8 * np.arange(_CELLS) + 4
    by_channel = (centres[:, None] - palette.astype(np.int32).T[:, None]) ** 2  # (3, 32, N)
    distance = (
        by_channel[0][:, None, None] + by_channel[1][None, :, None] + by_channel[2][None, None, :]
    )
    return palette.astype(np.int16)[distance.argmin(axis=-1).ravel()]


def _share(sixteenths: int) -> NDArray[np.int16]:
    """A share of each error -255..255, rounded half away from zero."""
    errors = np.arange(-255, 256)
    return (np.sign(errors) * ((2 * np.abs(errors) * sixteenths + 16) // 32)).astype(np.int16)


_DOWN, _RIGHT, _UP_RIGHT, _DOWN_RIGHT = _share(7), _share(5), _share(3), _share(1)


def dither(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Floyd-Steinberg dithering of (H, W, 3) to the palette, down each column, left to right.

    A pixel passes 7/16 of its error down, 5/16 right, 3/16 up right and 1/16 down right; nothing
    leaves the image. So pixel (r, c) waits for (r-1, c) and (r+1, c-1) only, and all pixels with
    the same r + 2c can be visited together: the image is sheared so that they form one row.
    """
    height, width = pixels.shape[:2]
    colors = _nearest_colors(palette)
    columns = np.arange(width)
    steps = np.arange(height)[:, None] + 2 * columns
    # What a column's ends pass outside lands in cells that no pixel owns; the spare rows and the
    # spare column do the same for the image's last pixels.
    sheared = np.zeros((height + 2 * width + 1, width + 1, 3), dtype=np.int16)
    sheared[steps, columns] = pixels
    for step in range(height + 2 * width - 2):
        first = max(0, (step - height + 2) // 2)
        last = min(width, step // 2 + 1)
        here, next_column = slice(first, last), slice(first + 1, last + 1)
        value = sheared[step, here].clip(0, 255)
        red, green, blue = (value >> 3).T
        chosen = colors.take((red << 10) + (green << 5) + blue, axis=0)
        sheared[step, here] = chosen
        error = value - chosen + 255
        sheared[step + 1, here] += _DOWN.take(error)
        sheared[step + 2, next_column] += _RIGHT.take(error)
        sheared[step + 1, next_column] += _UP_RIGHT.take(error)
        sheared[step + 3, next_column] += _DOWN_RIGHT.take(error)
    return sheared[steps, columns].astype(np.uint8)
