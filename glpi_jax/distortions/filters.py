"""Correlation with edge replication, the one way in which the KADID generator filters."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from glpi_jax.distortions.bands import row_bands
from glpi_jax.distortions.color_spaces import FloatImage


def gaussian_weights(sigma: float) -> NDArray[np.float64]:
    """Normalised 1-D Gaussian of 2*ceil(2*sigma)+1 taps; weights below eps times the peak are 0."""
    half = math.ceil(2 * sigma)
    weights = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    weights[weights < np.finfo(np.float64).eps * weights.max()] = 0
    return weights / weights.sum()


def gaussian_filter(plane: FloatImage, sigma: float) -> FloatImage:
    """Gaussian of the generator on a plane (H, W) or, channel by channel, on (H, W, C).

    The cost grows with sigma; for more than about 25 taps `PaddedSpectrum` is faster.
    """
    weights = gaussian_weights(sigma)
    if np.count_nonzero(weights) == 1:
        return plane.copy()
    height, width = plane.shape[:2]
    step = plane.size // (height * width)  # values from a pixel to its right neighbour
    reach = len(weights) // 2
    half = weights[reach:].astype(np.float32)
    padded = np.pad(plane, ((reach, reach), (reach, reach), *((0, 0),) * (plane.ndim - 2)), "edge")
    lines = padded.reshape(height + 2 * reach, -1)
    result = np.empty((height, width * step), dtype=np.float32)
    for band in row_bands(height, width):
        down = _weighted_pairs(lines[band.start : band.stop + 2 * reach], half, 1)
        result[band] = _weighted_pairs(down.T, half, step).T
    return result.reshape(plane.shape)


def _weighted_pairs(lines: FloatImage, half: NDArray[np.float32], spacing: int) -> FloatImage:
    """Weighted sum of each line and of the pairs `spacing`, 2 * `spacing`, … lines away from it."""
    reach = spacing * (len(half) - 1)
    count = len(lines) - 2 * reach
    total = half[0] * lines[reach : reach + count]
    pair = np.empty_like(total)
    for tap in range(1, len(half)):
        before, after = reach - tap * spacing, reach + tap * spacing
        np.add(lines[before : before + count], lines[after : after + count], out=pair)
        pair *= half[tap]
        total += pair
    return total


def correlate_sparse(image: FloatImage, kernel: NDArray[np.float64]) -> FloatImage:
    """Correlate (H, W, C) with a small odd-sided kernel of few non-zero weights (motion blur)."""
    height, width = image.shape[:2]
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((down, down), (across, across), (0, 0)), mode="edge")
    lines = padded.reshape(len(padded), -1)
    step = image.shape[2]
    result = np.zeros((height, width * step), dtype=np.float32)
    taps = [(int(row), step * int(column)) for row, column in np.argwhere(kernel)]
    for band in row_bands(height, width):
        total = result[band]
        product = np.empty_like(total)
        for row, start in taps:
            moved = lines[band.start + row : band.stop + row, start : start + width * step]
            np.multiply(moved, np.float32(kernel[row, start // step]), out=product)
            total += product
    return result.reshape(image.shape)


class PaddedSpectrum:
    """Planes in the frequency domain, for correlation with several kernels of any size.

    `planes` is (C, H, W); `margin` is the most that a kernel may reach from its centre, in pixels.
    """

    def __init__(self, planes: FloatImage, margin: int) -> None:
        self.margin = margin
        self.size = planes.shape[1:]
        around = (margin, margin)
        padded = np.pad(planes, ((0, 0), around, around), mode="edge")
        # Only the interior is kept, which the circular wrap-around never reaches.
        self.shape = [fft.next_fast_len(side, real=True) for side in padded.shape[1:]]
        self.spectrum = fft.rfft2(padded, s=self.shape)

    def correlate(self, kernel: NDArray[np.float64]) -> FloatImage:
        """Planes (C, H, W) correlated with an odd-sided kernel."""
        down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
        response = fft.rfft2(kernel[::-1, ::-1].astype(np.float32), s=self.shape)
        return self._filtered(response, down, across)

    def correlate_separable(self, weights: NDArray[np.float64]) -> FloatImage:
        """Planes (C, H, W) whose rows and columns are correlated with an odd number of weights."""
        flipped = weights[::-1].astype(np.float32)
        down = fft.fft(flipped, self.shape[0])
        across = fft.rfft(flipped, self.shape[1])
        reach = len(weights) // 2
        return self._filtered(down[:, None] * across, reach, reach)

    def _filtered(self, response: NDArray[np.complex64], down: int, across: int) -> FloatImage:
        filtered: FloatImage = fft.irfft2(self.spectrum * response, s=self.shape, overwrite_x=True)
        top, left = self.margin + down, self.margin + across
        return filtered[:, top : top + self.size[0], left : left + self.size[1]]
