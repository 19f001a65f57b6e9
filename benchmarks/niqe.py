"""NIQE, the "completely blind" quality score of an image; lower is better.

A. Mittal, R. Soundararajan and A. C. Bovik, "Making a 'completely blind' image quality analyzer",
IEEE Signal Processing Letters 20(3), 2013. It is the distance of an image from the statistics of
undistorted photographs, and no score of a person has gone into it. `niqe_pristine.npz` has these
statistics from the authors' release, whose notice is `niqe_pristine.txt`.

Written for `baselines.py`, since no maintained package on PyPI has a NIQE that works offline.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

from glpi_jax.core.errors import GlpiError

Floats = NDArray[np.float64]

BLOCK = 96  # side in pixels, half of it at the second scale
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
LUMA = np.array([0.2989, 0.5870, 0.1140])
ALPHAS = np.arange(0.2, 10.001, 0.001)
# Of a generalised Gaussian with shape alpha: (E|x|)² / E[x²], which rises with alpha.
RATIOS = gamma(2 / ALPHAS) ** 2 / (gamma(1 / ALPHAS) * gamma(3 / ALPHAS))


class Niqe:
    """Scores images by their distance from undistorted photographs."""

    def __init__(self) -> None:
        with np.load(Path(__file__).with_name("niqe_pristine.npz")) as pristine:
            self._mean, self._covariance = pristine["mean"], pristine["covariance"]

    def score(self, image: NDArray[np.uint8]) -> float:
        """Return the score, about 2 (natural) to 20, of an image (height, width, 3) uint8.

        Raises:
            GlpiError: the image holds less than two blocks, or nothing but flat ones.
        """
        blocks = (image.shape[0] // BLOCK) * (image.shape[1] // BLOCK)
        if blocks < 2:
            height, width = image.shape[:2]
            raise GlpiError(
                f"NIQE needs two blocks of {BLOCK}×{BLOCK} pixels, not {width}×{height}"
            )
        features = image_features(image)
        whole = features[~np.isnan(features).any(axis=1)]
        if len(whole) < 2:
            raise GlpiError("NIQE needs two blocks that are not flat")
        away = self._mean - np.nanmean(features, axis=0)
        pooled = (self._covariance + np.cov(whole, rowvar=False)) / 2
        return float(np.sqrt(away @ np.linalg.pinv(pooled) @ away))


def image_features(image: NDArray[np.uint8]) -> Floats:
    """Return (blocks, 36) float64, 18 features at each of two scales; NaN where a block is flat."""
    luma = np.round(image @ LUMA)
    rows, columns = (side // BLOCK for side in luma.shape)
    luma = luma[: rows * BLOCK, : columns * BLOCK]
    half = Image.fromarray(luma.astype(np.float32)).resize(
        (columns * BLOCK // 2, rows * BLOCK // 2), Image.Resampling.BICUBIC
    )
    scales = (luma, BLOCK), (np.asarray(half, np.float64), BLOCK // 2)
    return np.hstack([_block_features(values, side) for values, side in scales])


def _block_features(luma: Floats, side: int) -> Floats:
    mean = gaussian_filter(luma, 7 / 6, mode="nearest", radius=3)
    variance = gaussian_filter(luma**2, 7 / 6, mode="nearest", radius=3) - mean**2
    contrast = (luma - mean) / (np.sqrt(np.abs(variance)) + 1)
    height, width = luma.shape
    blocks = contrast.reshape(height // side, side, width // side, side).swapaxes(1, 2)
    blocks = blocks.reshape(-1, side, side)
    shape, left, right = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = _asymmetric_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return np.stack(features, axis=1)


def _asymmetric_gaussian(blocks: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit each block's values by moments: the shape, and the scales to the left and the right."""
    values = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):  # flat blocks become NaN
        squares = values**2
        left = np.sqrt((squares * (values < 0)).sum(1) / (values < 0).sum(1))
        right = np.sqrt((squares * (values > 0)).sum(1) / (values > 0).sum(1))
        skew = left / right
        ratio = np.abs(values).mean(1) ** 2 / squares.mean(1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shape = np.interp(ratio, RATIOS, ALPHAS)
        scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale
