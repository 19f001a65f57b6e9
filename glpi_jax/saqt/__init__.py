"""SAQT: similarity-based annotation transfer, from KADID's distortions to labelled images."""

from glpi_jax.saqt.distortions import (
    DISTORTIONS,
    TOTAL_VARIATION,
    Denoiser,
    Distorter,
    Distortion,
    distort,
    find_distortion,
    seed_for,
)
from glpi_jax.saqt.kadid_scores import MEAN_DMOS

__all__ = [
    "DISTORTIONS",
    "MEAN_DMOS",
    "TOTAL_VARIATION",
    "Denoiser",
    "Distorter",
    "Distortion",
    "distort",
    "find_distortion",
    "seed_for",
]
