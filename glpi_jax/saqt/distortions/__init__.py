"""The KADID distortions, one file per group; `distort` applies one to an 8-bit image."""

from glpi_jax.saqt.distortions.denoising import TOTAL_VARIATION, Denoiser
from glpi_jax.saqt.distortions.dispatch import (
    DISTORTIONS,
    Distorter,
    Distortion,
    distort,
    find_distortion,
)
from glpi_jax.saqt.distortions.draws import seed_for

__all__ = [
    "DISTORTIONS",
    "TOTAL_VARIATION",
    "Denoiser",
    "Distorter",
    "Distortion",
    "distort",
    "find_distortion",
    "seed_for",
]
