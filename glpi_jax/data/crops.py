"""Test crops: how many of an image are scored, and where they lie; the one place that checks it.

Evaluation, scoring, `glpi serve` and `glpi port verify` cut their crops by a `Crops`; a config's
section `evaluation` and the options of the command line become one.
"""

import hashlib
import numbers
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.transforms import grid_crops, image_rng, random_crops

Placement = Literal["grid", "random"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)

MAX_CROPS = 1024  # forty times the paper's; the crops of several images are held in memory


@dataclass(frozen=True)
class Crops:
    """How many crops of an image are averaged, and where they lie.

    Attributes:
        count: 1 to `MAX_CROPS`.
        placement: "grid", spread evenly from edge to edge, so that a score depends on the pixels
            alone; "random", drawn from the image's file name (of an image in memory: from its
            pixels) and the seed, as in the paper's evaluation.
        seed: of the random placement, 0 or more.
    """

    count: int
    placement: Placement = "grid"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            GlpiError: one is out of range, there is no such placement, or a grid is given a seed.
            TypeError: one is no whole number.
        """
        check_whole("crops", self.count)
        check_whole("seed", self.seed)
        if self.placement not in PLACEMENTS:
            raise GlpiError(f"crop placement {self.placement!r}: must be {' or '.join(PLACEMENTS)}")
        if not 1 <= self.count <= MAX_CROPS:
            raise GlpiError(f"crops {self.count}: must be 1 to {MAX_CROPS}")
        if self.seed < 0:
            raise GlpiError(f"seed {self.seed}: must not be negative")
        if self.seed and self.placement == "grid":
            raise GlpiError(f"seed {self.seed}: is for random placement; a grid is always the same")

    @classmethod
    def of_config(cls, config: ConfigDict) -> Self:
        """Return the test crops of a run, by `config.evaluation` and `config.seed`.

        Raises:
            GlpiError: one of them is out of range; the key is named.
        """
        section = config.evaluation
        seed = config.seed if section.placement == "random" else 0
        try:
            return cls(section.crops, section.placement, seed)
        except (GlpiError, TypeError) as error:
            about, _, remedy = str(error).partition(": ")
            key, value = {
                "crops": ("evaluation.crops", section.crops),
                "crop": ("evaluation.placement", section.placement),
                "seed": ("seed", seed),
            }[about.partition(" ")[0]]
            raise GlpiError(f"config.{key} = {value!r}: {remedy}") from error

    def cut(self, image: np.ndarray, side: int, file_name: str | None) -> np.ndarray:
        """Cut the crops of one image.

        Args:
            image: (height, width, 3) uint8; mirrored outward where it is smaller than a crop.
            side: of a crop, in pixels.
            file_name: what random crops are drawn from; None draws them from the pixels.

        Returns:
            (count, side, side, 3) uint8.
        """
        if self.placement == "grid":
            return grid_crops(image, side, self.count)
        if file_name is None:
            digest = hashlib.sha256(repr(image.shape).encode())
            digest.update(np.ascontiguousarray(image).data)
            file_name = digest.hexdigest()
        return random_crops(image, side, self.count, image_rng(file_name, self.seed))


def check_whole(name: str, value: object) -> None:
    """Check an argument that must be a whole number.

    Raises:
        TypeError: it is something else, 2.0 included.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} {value!r}: must be a whole number, not {type(value).__name__}")


PAPER_CROPS = Crops(count=25, placement="random", seed=0)
