"""Batches for training (Grain) from a Database's rows.

The training order and every crop depend on the seed and the step alone: not on threads, worker
processes or hosts, nor on whether images are files or records, or distorted as they are read.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.pools import end_with_parent
from glpi_jax.core.signals import leave_to_parent
from glpi_jax.data.loader import ImageLoader
from glpi_jax.data.on_the_fly import Distorting
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database
from glpi_jax.data.transforms import check_crop, check_flips, random_crop, random_flips


def training_dataset(
    database: Database,
    rows: Sequence[int],
    *,
    crop: int,
    batch_size: int,
    seed: int,
    horizontal_flip: float,
    vertical_flip: float,
    cache_bytes: int,
    preprocessing: Preprocessing,
    process_index: int,
    process_count: int,
    distorting: Distorting | None = None,
) -> grain.MapDataset:
    """An endless dataset of this process's part of every training batch.

    Each epoch visits every row once, in a new order, with new flips and crops, and if `distorting`
    says so with new draws of the random distortions. Batches run on over the end of an epoch, so
    `rows` may be fewer than a batch. Item k belongs to step k: with b = batch_size // process_count
    it is {"image": (b, crop, crop, 3) uint8, "score": (b,) float32, "example": (b,) int32, the
    places in the whole batch}, and over all processes the items k are the batch that one process
    would get.

    Args:
        database: where images and scores come from.
        rows: the training rows.
        crop: side of the square crop in pixels; smaller images are mirrored outward.
        batch_size: images a step over all processes.
        seed: of order, flips and crops, 0 to 2³²−1.
        horizontal_flip, vertical_flip: probabilities of a left–right and an upside-down mirror.
        cache_bytes: budget of each process for decoded images kept in memory; 0 decodes every time.
            Besides those, no more whole images exist at a time than there are threads. Of a
            database of photographs it is these that are kept, undistorted.
        preprocessing: of every image before cropping (the official code applies no EXIF
            orientation).
        process_index, process_count: this process, from 0, of those that share a batch.
        distorting: how the images of a database of photographs are made; None for the others.

    Raises:
        GlpiError: a number out of range, no rows, or a batch that the processes cannot share.
    """
    if not rows:
        raise GlpiError(f"{database.name}: no training rows")
    check_crop(crop)
    check_flips(horizontal_flip, vertical_flip)
    if not 0 <= process_index < process_count:
        raise GlpiError(f"process {process_index} of {process_count}: there is no such process")
    if batch_size < 1 or batch_size % process_count:
        raise GlpiError(
            f"batch size {batch_size} cannot be shared by {process_count} processes; make it a"
            f" multiple of {process_count}"
        )
    if not 0 <= seed < 2**32:
        raise GlpiError(f"seed {seed}: must lie in 0 … 2³²−1")
    loader = ImageLoader(
        database, preprocessing=preprocessing, cache_bytes=cache_bytes, distorting=distorting
    )
    scores = database.scores.astype(np.float32)

    def random_view(
        row_and_epoch: tuple[int, int], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        row, epoch = row_and_epoch
        image = loader(row, epoch)
        flipped = random_flips(image, horizontal=horizontal_flip, vertical=vertical_flip, rng=rng)
        view = random_crop(flipped, crop, rng)
        # A copy in any case: a view would keep the whole image until the batch is complete.
        return {"image": view.copy(), "score": scores[row]}

    def numbered(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        places = np.arange(len(batch["score"]), dtype=np.int32)
        return {**batch, "example": process_index + process_count * places}

    # The slice for a process comes after the random map: a crop's generator then depends on the
    # image's place in the global order, not on how many processes there are. Before the seed, what
    # is done changes no draw: Grain counts the steps since then.
    return (
        _ordered(rows, seed)
        .random_map(random_view)
        .repeat()[process_index::process_count]
        .batch(batch_size // process_count, drop_remainder=True)
        .map(numbered)
    )


def training_rows(rows: Sequence[int], *, seed: int, batch_size: int, batch: int) -> list[int]:
    """The rows of item `batch` of a `training_dataset`, over all processes: step `batch` + 1."""
    endless = _ordered(rows, seed).repeat()
    return [endless[place][0] for place in range(batch * batch_size, (batch + 1) * batch_size)]


def _ordered(rows: Sequence[int], seed: int) -> grain.MapDataset:
    """(row, epoch) in the order of an epoch, which `repeat` draws anew for every one."""
    count = len(rows)
    with_epochs = grain.MapDataset.source(rows).map_with_index(
        lambda index, row: (row, index // count)
    )
    return with_epochs.seed(seed).shuffle()


class BatchIterator(Iterator[dict[str, Any]]):
    """Iterates over the batches of a training dataset; made by `to_iterator`.

    Its state is the number of the next batch: it fits any number of threads, workers and hosts.
    """

    def __init__(
        self, dataset: grain.MapDataset, start: Callable[[grain.MapDataset], grain.DatasetIterator]
    ) -> None:
        """Nothing is started before the first batch is asked for."""
        self._dataset = dataset
        self._start = start
        self._next_index = 0
        self._running: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, Any]:
        if self._running is None:
            self._running = self._start(self._dataset[self._next_index :])
        batch = next(self._running)
        self._next_index += 1
        return batch

    def skip(self) -> None:
        """Count a batch that others read."""
        self.set_state({"next_index": self._next_index + 1})

    def get_state(self) -> dict[str, int]:
        """What `set_state` takes, fit for JSON."""
        return {"next_index": self._next_index}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Go on with the very batch that was next when the state was taken."""
        self.close()
        self._next_index = state["next_index"]

    def close(self) -> None:
        """Stop threads and processes; another batch would start them again."""
        if self._running is not None:
            self._running.close()
            self._running = None


def to_iterator(
    dataset: grain.MapDataset, *, threads: int, prefetch: int, workers: int
) -> BatchIterator:
    """Iterate over batches that threads, or worker processes with threads, prepare ahead.

    Threads suffice where decoding is most of the work: Pillow decodes outside of Python's lock.
    Worker processes take seconds to start, and import the program's main file, which must have
    the usual `if __name__ == "__main__":`.

    Args:
        dataset: from `training_dataset`.
        threads: number of batches prepared at a time, in each worker if there are workers; 0
            prepares one after the other.
        prefetch: number of batches held ready, at least 1 if there are threads or workers.
        workers: number of processes that prepare batches; 0 does it in this one.

    Raises:
        GlpiError: a number out of range.
    """
    if workers < 0:
        raise GlpiError(f"workers {workers}: must be 0 (no worker processes) or more")
    if threads < 0 or prefetch < 0 or (threads + workers > 0 and prefetch == 0):
        raise GlpiError(
            f"threads {threads}, prefetch {prefetch}: threads and workers need a prefetch of ≥ 1"
        )

    ready = threads if workers else prefetch
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ready)

    def start(rest: grain.MapDataset) -> grain.DatasetIterator:
        batches = rest.to_iter_dataset(reading)
        if not workers:
            return iter(batches)
        if not flags.FLAGS.is_parsed():  # Grain hands its flags to the workers
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(
            num_workers=workers, per_worker_buffer_size=math.ceil(prefetch / workers)
        )
        return iter(batches.mp_prefetch(options, _prepare_worker).map(_copied))

    return BatchIterator(dataset, start)


def _prepare_worker(worker: int, workers: int) -> None:
    """Leave it to the training process when to end: it may still need batches to save in order."""
    leave_to_parent(sigterm=True)
    end_with_parent()


def _copied(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch in memory of its own; a worker's shared memory is given back at once."""
    return {key: np.array(values) for key, values in batch.items()}
