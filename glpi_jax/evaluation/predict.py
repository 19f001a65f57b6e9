"""From crops to image scores: fixed batches through the jitted model, averaged per image."""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from glpi_jax.core.compilation import compiler_options
from glpi_jax.distributed.mesh import batch_sharding, check_batch_size, local_rows, to_devices
from glpi_jax.models.glpi import GLPI
from glpi_jax.models.pixels import normalise

Key = TypeVar("Key", bound=Hashable)
ScoreCrops = Callable[[Any, jax.Array | np.ndarray], jax.Array]


class Prediction(NamedTuple):
    """The mean over an image's crops and their standard deviation: `predict` gives raw ones.

    Raw is what the network gives; `in_label_units` makes a score of it.
    """

    score: float
    crop_std: float


def in_label_units(prediction: Prediction, *, label_scale: float, label_shift: float) -> Prediction:
    """Return a prediction in the units of the labels.

    The network was trained on label_scale · label + label_shift; the scale is above 0.
    """
    score, crop_std = prediction
    return Prediction((score - label_shift) / label_scale, crop_std / label_scale)


def compile_scorer(model: GLPI, mesh: Mesh) -> ScoreCrops:
    """Jit the model over the mesh: (variables, (B, crop, crop, 3) uint8) → (B,) float32.

    Crops and scores are split over all devices; the variables may lie in any way. Crops from NumPy
    go to the devices of one process alone.
    """

    def score(variables: Any, crops: jax.Array) -> jax.Array:
        return model.apply(variables, normalise(crops))[0]

    split = batch_sharding(mesh)
    return jax.jit(
        score,
        in_shardings=(None, split),
        out_shardings=split,
        compiler_options=compiler_options(mesh),
    )


def predict(
    score_crops: ScoreCrops,
    variables: Any,
    images: Iterable[tuple[Key, np.ndarray]],
    *,
    batch_size: int,
    mesh: Mesh,
    batches: int = 0,
) -> Iterator[tuple[Key, Prediction]]:
    """Predict images, raw and in order, in batches of one size whatever the crops of each.

    The last batch is padded, and what the padding scores is dropped. A batch is dispatched before
    the previous one is read, so that the host prepares crops while the device computes.

    Several processes score their own images each, in batches that they share.

    Args:
        score_crops: from `compile_scorer`.
        variables: the model's variables.
        images: (key, crops (n, crop, crop, 3) uint8) of each image, n ≥ 1.
        batch_size: crops at a time, of all processes; a multiple of the devices.
        mesh: where `score_crops` runs.
        batches: the least number of batches, filled up with padding: of several processes each
            takes part in every batch, so all need the number that the busiest needs.
    """
    check_batch_size(batch_size, mesh, "config.evaluation.batch_size")
    own_size = batch_size // jax.process_count()
    waiting: deque[tuple[Key, int]] = deque()  # images whose scores are not complete
    in_flight: deque[tuple[jax.Array, int]] = deque()  # scores to be read, and how many count
    scores: list[float] = []

    def crops_of_images() -> Iterator[np.ndarray]:
        for key, crops in images:
            waiting.append((key, len(crops)))
            yield from crops

    def collect(leave: int) -> Iterator[tuple[Key, Prediction]]:
        while len(in_flight) > leave:
            batch, count = in_flight.popleft()
            scores.extend(local_rows(batch)[:count].astype(np.float64))
        while waiting and len(scores) >= waiting[0][1]:
            key, count = waiting.popleft()
            own = np.array(scores[:count])
            del scores[:count]
            yield key, Prediction(float(own.mean()), float(own.std()))

    rows = crops_of_images()
    padding = np.zeros((), np.uint8)
    for number in itertools.count():
        crops = list(itertools.islice(rows, own_size))
        if not crops and number >= batches:
            break
        padding = np.zeros_like(crops[0]) if crops else padding
        whole = np.stack([*crops, *[padding] * (own_size - len(crops))])
        together = to_devices({"crops": whole}, mesh)["crops"]
        in_flight.append((score_crops(variables, together), len(crops)))
        yield from collect(leave=1)
    yield from collect(leave=0)
