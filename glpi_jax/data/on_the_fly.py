"""Distorted images made when they are needed, the same pixels that a rendered set would hold.

Free of JAX and Grain, so that processes which only distort start quickly; DnCNN alone brings JAX.
"""

import multiprocessing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.photographs import Variant
from glpi_jax.distortions import TOTAL_VARIATION, Denoiser, Distorter, seed_for


@dataclass(frozen=True)
class Distorting:
    """How the images of a database of photographs are made.

    Attributes:
        seed: of the random distortions.
        redraw: draw them anew in every epoch after the first; otherwise they stay.
        dncnn: file of DnCNN weights that denoise for type 15; "" takes total variation.
    """

    seed: int
    redraw: bool
    dncnn: str

    def seed_of(self, epoch: int) -> int:
        """The seed of an epoch's draws, counted from 0: in the first one `seed` itself."""
        if epoch == 0 or not self.redraw:
            return self.seed
        low, high = np.random.SeedSequence([self.seed, epoch]).generate_state(2).tolist()
        return int(low) + (int(high) << 32)

    def denoiser(self) -> Denoiser:
        """What removes the noise of type 15; a file of other weights is a GlpiError."""
        if not self.dncnn:
            return TOTAL_VARIATION
        if multiprocessing.parent_process() is not None:
            import jax

            # The accelerator belongs to the process that trains.
            jax.config.update("jax_platforms", "cpu")
        from glpi_jax.distortions.dncnn import load_dncnn

        return load_dncnn(self.dncnn)

    # Read once for all images, in each process anew: the weights do not travel.
    _denoiser = cached_property(denoiser)

    def __reduce__(self) -> tuple[Any, ...]:
        return Distorting, (self.seed, self.redraw, self.dncnn)

    def distort(
        self, photograph: np.ndarray, name: str, variant: Variant, epoch: int
    ) -> np.ndarray:
        """Make a row's image, (height, width, 3) uint8, from its photograph of that file name.

        The draws follow from the name, type, level, seed and epoch (counted from 0) alone.

        Raises:
            GlpiError: the photograph is too small for the type, or bad weights of a denoiser.
        """
        _, kind, level = variant
        rng = seed_for(name, kind, level, self.seed_of(epoch))
        return Distorter(photograph, self._denoiser).distort(kind, level, rng)


def distorting_of(config: ConfigDict) -> Distorting:
    """How a config has the images of photographs made; a negative seed is a GlpiError."""
    seed = config.data.distortion_seed
    if seed < 0:
        raise GlpiError(f"config.data.distortion_seed = {seed}: is negative")
    return Distorting(seed, config.data.redraw_distortions, config.data.dncnn)
