"""KADID-10k's 25 distortions, a file a group, and the mean score of each type and level.

`distort` applies one to an 8-bit image; a `Distorter` gives all five levels of a type.
"""

from glpi_jax.distortions.denoising import TOTAL_VARIATION, Denoiser
from glpi_jax.distortions.dispatch import (
    DISTORTIONS,
    Distorter,
    Distortion,
    distort,
    find_distortion,
)
from glpi_jax.distortions.draws import seed_for
from glpi_jax.distortions.kadid_scores import KADID_TYPES, LEVELS, MEAN_DMOS

__all__ = [
    "DISTORTIONS",
    "KADID_TYPES",
    "LEVELS",
    "MEAN_DMOS",
    "TOTAL_VARIATION",
    "Denoiser",
    "Distorter",
    "Distortion",
    "distort",
    "find_distortion",
    "seed_for",
]
