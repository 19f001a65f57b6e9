"""From crops to image scores: fixed batches through the jitted model, averaged per image."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from glpi_jax.models.glpi import GLPI
from glpi_jax.training.sharding import batch_sharding, check_batch_size, replicated
from glpi_jax.training.step import normalise

Key = TypeVar("Key", bound=Hashable)
ScoreCrops = Callable[[Any, np.ndarray], jax.Array]


class Prediction(NamedTuple):
    """An image's score: the mean over its crops, and their standard deviation."""

    score: float
    crop_std: float


def compile_scorer(model: GLPI, mesh: Mesh) -> ScoreCrops:
    """Jit the model over the mesh: (variables, (B, crop, crop, 3) uint8) → (B,) float32."""

    def score(variables: Any, crops: jax.Array) -> jax.Array:
        return model.apply(variables, normalise(crops))[0]

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(score, in_shardings=(whole, split), out_shardings=whole)


def predict(
    score_crops: ScoreCrops,
    variables: Any,
    images: Iterable[tuple[Key, np.ndarray]],
    *,
    batch_size: int,
    mesh: Mesh,
) -> Iterator[tuple[Key, Prediction]]:
    """Score images, in order, in batches of one size whatever the crops of each.

    The last batch is padded, and what the padding scores is dropped. A batch is dispatched before
    the previous one is read, so that the host prepares crops while the device computes.

    Args:
        score_crops: from `compile_scorer`.
        variables: the model's variables.
        images: (key, crops (n, crop, crop, 3) uint8) of each image, n ≥ 1.
        batch_size: crops at a time; a multiple of the devices.
        mesh: where `score_crops` runs.
    """
    check_batch_size(batch_size, mesh, "config.evaluation.batch_size")
    waiting: deque[tuple[Key, int]] = deque()  # images whose scores are not complete
    in_flight: deque[tuple[jax.Array, int]] = deque()  # scores to be read, and how many count
    scores: list[float] = []
    pending: list[np.ndarray] = []  # crops of a batch to be
    held = 0

    def dispatch(crops: np.ndarray) -> None:
        count = len(crops)
        if count < batch_size:
            padding = np.zeros((batch_size - count, *crops.shape[1:]), crops.dtype)
            crops = np.concatenate([crops, padding])
        in_flight.append((score_crops(variables, crops), count))

    def collect(leave: int) -> Iterator[tuple[Key, Prediction]]:
        while len(in_flight) > leave:
            batch, count = in_flight.popleft()
            scores.extend(np.asarray(batch, np.float64)[:count])
        while waiting and len(scores) >= waiting[0][1]:
            key, count = waiting.popleft()
            own = np.array(scores[:count])
            del scores[:count]
            yield key, Prediction(float(own.mean()), float(own.std()))

    for key, crops in images:
        waiting.append((key, len(crops)))
        pending.append(crops)
        held += len(crops)
        if held >= batch_size:
            together = np.concatenate(pending)
            whole = held - held % batch_size
            for start in range(0, whole, batch_size):
                dispatch(together[start : start + batch_size])
            pending, held = [together[whole:]], held - whole
            yield from collect(leave=1)
    if held:
        dispatch(np.concatenate(pending))
    yield from collect(leave=0)
