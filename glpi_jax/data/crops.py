"""Test crops: how many of an image are scored, and where they lie; the one place that checks it.

Evaluation, scoring, `glpi serve` and `glpi port verify` cut their crops by a `Crops`; a config's
section `evaluation` and the options of the command line become one.
"""

import hashlib
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

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
        names = {"count": "crops ", "placement": "crop placement ", "seed": "seed "}
        _check(names, self.count, self.placement, self.seed)

    @classmethod
    def of_config(cls, config: ConfigDict) -> Self:
        """Return the test crops of a config; a value out of range is a GlpiError with the key."""
        section = config.evaluation
        seed = config.seed if section.placement == "random" else 0
        keys = {
            "count": "config.evaluation.crops = ",
            "placement": "config.evaluation.placement = ",
            "seed": "config.seed = ",
        }
        _check(keys, section.crops, section.placement, seed)
        return cls(section.crops, section.placement, seed)

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


def _check(names: Mapping[str, str], count: Any, placement: Any, seed: Any) -> None:
    """Raise a GlpiError if a field of a `Crops` is out of range; `names` are those in errors."""
    if placement not in PLACEMENTS:
        raise GlpiError(f"{names['placement']}{placement!r}: must be {' or '.join(PLACEMENTS)}")
    for field, value in (("count", count), ("seed", seed)):
        if not _is_whole(value):
            kind = type(value).__name__
            raise GlpiError(f"{names[field]}{value!r}: must be a whole number, not {kind}")
    if not 1 <= count <= MAX_CROPS:
        raise GlpiError(f"{names['count']}{count!r}: must be 1 to {MAX_CROPS}")
    if seed < 0:
        raise GlpiError(f"{names['seed']}{seed!r}: must not be negative")
    if seed and placement == "grid":
        raise GlpiError(
            f"{names['seed']}{seed!r}: is for random placement; a grid is always the same"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_whole(name: str, value: object) -> None:
    """Raise a TypeError if an argument is no whole number, as 2.0."""
    if not _is_whole(value):
        raise TypeError(f"{name} {value!r}: must be a whole number, not {type(value).__name__}")


PAPER_CROPS = Crops(count=25, placement="random", seed=0)
