"""Where the random types get their numbers: an explicit generator, or values that are given."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from glpi_jax.core.errors import GlpiError


def seed_for(image_name: str, type_number: int, level: int, seed: int) -> np.random.Generator:
    """Generator of one distorted image, the same whatever the order or the worker.

    Args:
        image_name: name of the reference image, as the database lists it.
        type_number: KADID type, 1..25.
        level: 1..5.
        seed: the seed of the whole data set.
    """
    key = "\0".join([image_name, str(type_number), str(level), str(seed)])
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence(words))


@dataclass(frozen=True)
class Draw:
    """The numbers that a type of that name and draw gets: `given`, or drawn from `rng`."""

    distortion: str
    name: str
    rng: np.random.Generator | None = None
    given: ArrayLike | None = None

    def take(
        self,
        shape: tuple[int, ...],
        sample: Callable[[np.random.Generator], Any],
        *,
        or_longer: bool = False,
    ) -> Any:
        """Return `sample(rng)`, or `given` as an array; what is given `or_longer` is cut.

        Raises:
            GlpiError: neither is there, or `given` has another shape.
        """
        if self.given is None:
            if self.rng is None:
                raise GlpiError(
                    f"{self.distortion} is random: give rng (a numpy Generator, see seed_for) "
                    f"or the draw {self.name!r}."
                )
            return sample(self.rng)
        values = np.asarray(self.given)
        values = values[: shape[0]] if or_longer else values
        if values.shape != shape:
            raise GlpiError(
                f"{self.distortion}: the draw {self.name!r} has shape {values.shape}; "
                f"it must be {shape}."
            )
        return values
