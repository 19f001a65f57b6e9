"""The KADID distortions, one file per group; `distort` applies one to an 8-bit image."""

from glpi_jax.saqt.distortions.dispatch import DISTORTIONS, Distortion, distort, find_distortion
from glpi_jax.saqt.distortions.draws import seed_for

__all__ = ["DISTORTIONS", "Distortion", "distort", "find_distortion", "seed_for"]
