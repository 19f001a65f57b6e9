"""Where the random types get their numbers: an explicit generator, or values that are given."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def drawn(
    distortion: str,
    name: str,
    given: ArrayLike | None,
    rng: np.random.Generator | None,
    sample: Callable[[np.random.Generator], ArrayLike],
    shape: tuple[int, ...],
) -> NDArray[Any]:
    """The values of a random type: `given` if not None, else `sample(rng)`; always of `shape`.

    Raises:
        GlpiError: neither is there, or `given` has another shape.
    """
    if given is not None:
        values = np.asarray(given)
        if values.shape != shape:
            raise GlpiError(
                f"{distortion}: the draw {name!r} has shape {values.shape}; it must be {shape}."
            )
        return values
    if rng is None:
        raise GlpiError(
            f"{distortion} is random: give rng (a numpy Generator, see seed_for) "
            f"or the draw {name!r}."
        )
    return np.asarray(sample(rng))
