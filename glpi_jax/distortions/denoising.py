"""What type 15 removes its noise with: any denoiser, total variation unless told otherwise.

The original uses MATLAB's DnCNN, whose weights are not free. `glpi_jax.distortions.dncnn` runs
a DnCNN whose weights the user has.
"""

from importlib.metadata import version
from typing import Protocol

import numpy as np

from glpi_jax.distortions.color_spaces import FloatImage

_WEIGHT = 0.9  # of total variation, in standard deviations of the noise
_ITERATIONS = 12


class Denoiser(Protocol):
    """Removes white Gaussian noise from an image."""

    @property
    def identity(self) -> str:
        """What it is, for the record: name and version, or the SHA-256 of its weights."""

    def __call__(self, noisy: FloatImage, variance: float) -> FloatImage:
        """The image (H, W, 3) without the noise, both float32 in 0..1, channels alone or together.

        `variance` is that of the noise before clipping; a blind denoiser ignores it.
        """


class TotalVariation:
    """Total-variation denoising of each channel by scikit-image.

    A. Chambolle, "An algorithm for total variation minimization and applications" (2004). Of the
    classical denoisers as fast as it (see docs/distortions.md) it keeps most PSNR over the five
    levels. The number of iterations is fixed: the library's own rule stops after anything from 2 to
    20 of them on strong noise.
    """

    @property
    def identity(self) -> str:
        """Name, parameters and scikit-image's version."""
        library = f"scikit-image {version('scikit-image')} denoise_tv_chambolle"
        return f"{library}, weight {_WEIGHT} sigma, {_ITERATIONS} iterations"

    def __call__(self, noisy: FloatImage, variance: float) -> FloatImage:
        """See `Denoiser`."""
        from skimage.restoration import denoise_tv_chambolle

        planes = np.ascontiguousarray(np.moveaxis(noisy, -1, 0))
        weight = _WEIGHT * float(np.sqrt(variance))
        smooth: FloatImage = denoise_tv_chambolle(
            planes, weight, eps=0, max_num_iter=_ITERATIONS, channel_axis=0
        )
        return np.moveaxis(smooth, 0, -1)


TOTAL_VARIATION: Denoiser = TotalVariation()
