"""Correlation with edge replication, the one way in which the KADID generator filters."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from glpi_jax.saqt.distortions.color_spaces import FloatImage


def gaussian_weights(sigma: float) -> NDArray[np.float64]:
    """Normalised 1-D Gaussian of 2*ceil(2*sigma)+1 taps; weights below eps times the peak are 0."""
    half = math.ceil(2 * sigma)
    weights = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    weights[weights < np.finfo(np.float64).eps * weights.max()] = 0
    return weights / weights.sum()


def gaussian_filter(plane: FloatImage, sigma: float) -> FloatImage:
    """Gaussian of the generator on a plane (H, W) or, channel by channel, on (H, W, C)."""
    weights = gaussian_weights(sigma)
    if np.count_nonzero(weights) == 1:
        return plane.copy()
    # SciPy's 1-D filters run fastest over planes, not over interleaved channels.
    planes = np.moveaxis(plane[..., None] if plane.ndim == 2 else plane, -1, 0)
    filtered = np.empty(planes.shape, dtype=np.float32)
    for source, target in zip(planes, filtered, strict=True):
        down = ndimage.correlate1d(np.ascontiguousarray(source), weights, axis=0, mode="nearest")
        ndimage.correlate1d(down, weights, axis=1, mode="nearest", output=target)
    return np.ascontiguousarray(np.moveaxis(filtered, 0, -1)).reshape(plane.shape)


def correlate_sparse(image: FloatImage, kernel: NDArray[np.float64]) -> FloatImage:
    """Correlate (H, W, C) with a small odd-sided kernel of few non-zero weights (motion blur)."""
    height, width = image.shape[:2]
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((down, down), (across, across), (0, 0)), mode="edge")
    result = np.zeros_like(image)
    for row, column in np.argwhere(kernel):
        result += (
            np.float32(kernel[row, column]) * padded[row : row + height, column : column + width]
        )
    return result


def correlate_dense(image: FloatImage, kernel: NDArray[np.float64]) -> FloatImage:
    """Correlate (H, W, C) with a large odd-sided kernel through the FFT (lens blur)."""
    height, width = image.shape[:2]
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(
        np.moveaxis(image, -1, 0), ((0, 0), (down, down), (across, across)), mode="edge"
    )
    # Only the interior is kept, which the circular wrap-around never reaches.
    shape = [fft.next_fast_len(side, real=True) for side in padded.shape[1:]]
    spectrum = fft.rfft2(padded, s=shape)
    spectrum *= fft.rfft2(kernel[::-1, ::-1].astype(np.float32), s=shape)
    filtered = fft.irfft2(spectrum, s=shape)
    interior = filtered[:, 2 * down : 2 * down + height, 2 * across : 2 * across + width]
    return np.ascontiguousarray(np.moveaxis(interior, 0, -1))
