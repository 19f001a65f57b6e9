"""What could remove the noise of type 15: PSNR and time of classical denoisers, as Markdown.

    pip install PyWavelets opencv-python-headless    # without them two rows are left out
    python benchmarks/denoisers.py [--json FILE] [--size WIDTHxHEIGHT]

PSNR is in dB, to the image that type 15 makes without noise, as the mean over crops of four of
scikit-image's photographs; time is milliseconds of CPU for one image of that size, on one core, the
fastest of three.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

# Read by the libraries below when they are loaded.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
import scipy.signal  # noqa: E402
import skimage.data  # noqa: E402
from skimage.restoration import denoise_nl_means, denoise_wavelet  # noqa: E402

from glpi_jax.core.files import write_json  # noqa: E402
from glpi_jax.distortions import LEVELS, distort, seed_for  # noqa: E402
from glpi_jax.distortions.denoising import TOTAL_VARIATION, Denoiser  # noqa: E402

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


class Candidate:
    """A denoiser under its name in the table."""

    def __init__(self, identity: str, remove: Callable[[np.ndarray, float], np.ndarray]) -> None:
        """`remove` takes (H, W, 3) float32 and the standard deviation of the noise."""
        self.identity = identity
        self.remove = remove

    def __call__(self, noisy: np.ndarray, variance: float) -> np.ndarray:
        """The image (H, W, 3) without the noise, float32."""
        return self.remove(noisy, float(np.sqrt(variance))).astype(np.float32)


def wiener(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """SciPy's adaptive Wiener filter on each channel."""
    planes = np.moveaxis(noisy.astype(np.float64), -1, 0)
    return np.stack([scipy.signal.wiener(plane, (5, 5), sigma**2) for plane in planes], axis=-1)


def wavelets(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image's wavelet shrinkage on each channel."""
    return denoise_wavelet(
        noisy, sigma=sigma, method="BayesShrink", wavelet="sym4", channel_axis=-1
    )


def non_local_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """scikit-image's non-local means, the channels together."""
    return denoise_nl_means(
        noisy, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, channel_axis=-1
    )


def non_local_means_8_bit(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """OpenCV's non-local means on each channel of 8 bits."""
    import cv2

    cv2.setNumThreads(1)
    eight_bit = np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
    planes = np.moveaxis(eight_bit, -1, 0)
    strength = 0.8 * 255 * sigma
    smooth = [
        cv2.fastNlMeansDenoising(np.ascontiguousarray(plane), None, strength, 5, 13)
        for plane in planes
    ]
    return np.stack(smooth, axis=-1) / 255


NOTHING = Candidate("none (noise alone)", lambda noisy, sigma: noisy)
CANDIDATES: dict[str, Denoiser] = {
    NOTHING.identity: NOTHING,
    "total variation, 12 iterations": TOTAL_VARIATION,
    "Wiener filter 5x5 (SciPy)": Candidate("wiener", wiener),
    "wavelets, BayesShrink, sym4 (scikit-image)": Candidate("wavelets", wavelets),
    "non-local means (scikit-image)": Candidate("nl_means", non_local_means),
    "non-local means (OpenCV)": Candidate("opencv", non_local_means_8_bit),
}
NEEDS = {"wavelets, BayesShrink, sym4 (scikit-image)": "pywt", "non-local means (OpenCV)": "cv2"}


def crop_of(name: str, width: int, height: int) -> np.ndarray:
    """The middle of one of scikit-image's photographs (height, width, 3), uint8."""
    image = getattr(skimage.data, name)()
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise SystemExit(f"{name}: smaller than {width}x{height}; give a smaller --size")
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def measured_psnr(denoiser: Denoiser, crops: dict[str, np.ndarray], level: int) -> float:
    """Mean PSNR in dB of type 15 at a level."""
    found = []
    for name, crop in crops.items():
        silence = {"gauss": np.zeros(crop.shape, np.float32)}
        clean = distort(crop, 15, level, draw=silence, denoiser=NOTHING)
        made = distort(crop, 15, level, rng=seed_for(name, 15, level, 0), denoiser=denoiser)
        error = np.mean((made.astype(np.float64) - clean) ** 2)
        found.append(10 * np.log10(255**2 / error))
    return float(np.mean(found))


def measured_ms(denoiser: Denoiser, crop: np.ndarray) -> float:
    """Milliseconds of CPU of the denoiser alone, at the noise of level 3 (variance 0.05)."""
    variance = 0.05
    field = np.random.default_rng(0).standard_normal(crop.shape)
    noisy = (crop / 255 + np.sqrt(variance) * field).astype(np.float32)
    taken = []
    for _ in range(3):
        start = time.process_time()
        denoiser(noisy, variance)
        taken.append(1e3 * (time.process_time() - start))
    return min(taken)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--size", default="384x256", help="width and height of the crops for PSNR")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    crops = {name: crop_of(name, width, height) for name in PHOTOGRAPHS}
    timed = crop_of("astronaut", 512, 384)
    figures = {}
    print("| denoiser | L1 | L2 | L3 | L4 | L5 | ms |\n|---|---|---|---|---|---|---|")
    for name, denoiser in CANDIDATES.items():
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            print(f"{name}: left out, {NEEDS[name]} is not installed", file=sys.stderr)
            continue
        psnr = [measured_psnr(denoiser, crops, level) for level in LEVELS]
        ms = measured_ms(denoiser, timed)
        figures[name] = {"psnr_db": psnr, "cpu_ms": ms}
        print("|", " | ".join([name, *(f"{value:.1f}" for value in psnr), f"{ms:.0f}"]), "|")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
