"""Batches for training (Grain) and crops for evaluation, from a Database's rows.

The training order and every crop depend on the seed and the step alone: not on threads, worker
processes or hosts, nor on whether images are files or records, or distorted as they are read.
"""

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import grain
import numpy as np
from absl import flags

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.pools import end_with_parent
from glpi_jax.data.images import ImageError, decode_image
from glpi_jax.data.on_the_fly import Distorting, ImageMaker
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database
from glpi_jax.data.transforms import (
    grid_crops,
    image_rng,
    random_crop,
    random_crops,
    random_flips,
)

Placement = Literal["random", "grid"]


class ImageLoader:
    """Decodes (and resizes) images of a database, keeping as many as a budget of bytes allows.

    What fits first stays: every epoch visits every image once, so dropping old images for new ones
    would only lose hits. Safe to share between threads; in a worker process it begins empty, with
    the same budget. What is kept is read-only.

    Of a database of photographs these are kept, the last one whatever the budget, and each row's
    image is distorted from its own.
    """

    def __init__(
        self,
        database: Database,
        *,
        preprocessing: Preprocessing,
        cache_bytes: int,
        distorting: Distorting | None = None,
    ):
        """See `training_dataset` for the arguments."""
        if cache_bytes < 0:
            raise GlpiError(f"cache_bytes {cache_bytes}: must be 0 (no cache) or more")
        self._make: ImageMaker | None = None
        if database.photographs is not None:
            if distorting is None:
                raise GlpiError(f"{database.name}: nothing says how its photographs are distorted")
            self._make = ImageMaker(database.photographs, distorting)
        self._database = database
        self._preprocessing = preprocessing
        self._cache_bytes = cache_bytes
        self._empty_cache()

    def _empty_cache(self) -> None:
        self._lock = threading.Lock()
        self._free_bytes = self._cache_bytes
        self._cache: dict[int, np.ndarray] = {}
        self._last: tuple[int, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_cache": None, "_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._empty_cache()

    def __call__(self, row: int, epoch: int = 0) -> np.ndarray:
        """The (height, width, 3) uint8 image of a row; the epoch may change its distortion."""
        photographs = self._database.photographs
        if photographs is None or self._make is None:
            return self._kept(row, row, resize=True)
        variant = photographs.variant(row)
        photograph = self._kept(variant.photograph, row, resize=False)
        try:
            image = self._make(photograph, variant, epoch)
        except GlpiError as error:
            raise ImageError(f"{self._database.path(row)}: {error}") from error
        return self._preprocessing.resized(image, str(self._database.path(row)))

    def _kept(self, file: int, row: int, *, resize: bool) -> np.ndarray:
        """The image file of a row, from the cache if it is there; files are numbered."""
        with self._lock:
            cached = self._cache.get(file)
            if cached is None and self._last is not None and self._last[0] == file:
                cached = self._last[1]
        if cached is not None:
            return cached
        name = str(self._database.path(row))
        image = decode_image(
            self._database.encoded(row),
            name,
            apply_orientation=self._preprocessing.apply_orientation,
        )
        if resize:
            image = self._preprocessing.resized(image, name)
        image.flags.writeable = False
        with self._lock:
            if file not in self._cache and image.nbytes <= self._free_bytes:
                self._cache[file] = image
                self._free_bytes -= image.nbytes
            if self._make is not None:  # rows of one photograph follow each other in evaluation
                self._last = (file, image)
        return image


class _Epochs(grain.transforms.MapWithIndex):
    """A row → the row and its epoch, counted from 0."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def map_with_index(self, index: int, element: int) -> tuple[int, int]:
        return element, index // self._rows


class _RandomView(grain.transforms.RandomMap):
    """A row and its epoch → the row's image, randomly flipped and cropped, with its score."""

    def __init__(
        self,
        database: Database,
        loader: ImageLoader,
        *,
        crop: int,
        horizontal_flip: float,
        vertical_flip: float,
    ):
        self._scores = database.scores.astype(np.float32)
        self._loader = loader
        self._crop = crop
        self._horizontal_flip = horizontal_flip
        self._vertical_flip = vertical_flip

    def random_map(
        self, element: tuple[int, int], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        row, epoch = element
        flipped = random_flips(
            self._loader(row, epoch),
            horizontal=self._horizontal_flip,
            vertical=self._vertical_flip,
            rng=rng,
        )
        view = random_crop(flipped, self._crop, rng)
        # A copy in any case: a view would keep the whole image until the batch is complete.
        return {"image": view.copy(), "score": self._scores[row]}


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
    says so with new draws of the random distortions. Batches run on over
    the end of an epoch, so `rows` may be fewer than a batch. Item k belongs to step k: with b =
    batch_size // process_count it is {"image": (b, crop, crop, 3) uint8, "score": (b,) float32,
    "example": (b,) int32, the places in the whole batch},
    and over all processes the items k are the batch that one process would get.

    Args:
        database: where images and scores come from.
        rows: the training rows.
        crop: side of the square crop in pixels; smaller images are mirrored outward.
        batch_size: images a step over all processes.
        seed: of order, flips and crops, 0 to 2³²−1.
        horizontal_flip: probability of a left–right mirror.
        vertical_flip: probability of an upside-down mirror.
        cache_bytes: budget of each process for decoded images kept in memory; 0 decodes every time.
            Besides those, no more whole images exist at a time than there are threads. Of a
            database of photographs it is these that are kept, undistorted.
        preprocessing: of every image before cropping (the official code applies no EXIF
            orientation).
        process_index: this process, 0 to process_count − 1.
        process_count: number of processes that share a batch.
        distorting: how the images of a database of photographs are made; None for the others.

    Raises:
        GlpiError: a number out of range, no rows, or a batch that the processes cannot share.
    """
    if not rows:
        raise GlpiError(f"{database.name}: no training rows")
    if crop < 1:
        raise GlpiError(f"crop {crop}: must be at least 1 pixel")
    if not 0 <= process_index < process_count:
        raise GlpiError(f"process {process_index} of {process_count}: there is no such process")
    if batch_size < 1 or batch_size % process_count:
        raise GlpiError(
            f"batch size {batch_size} cannot be shared by {process_count} processes; make it a"
            f" multiple of {process_count}"
        )
    if not 0 <= seed < 2**32:
        raise GlpiError(f"seed {seed}: must lie in 0 … 2³²−1")
    for key, probability in (("horizontal", horizontal_flip), ("vertical", vertical_flip)):
        if not 0 <= probability <= 1:
            raise GlpiError(f"{key} flip probability {probability}: must lie in [0, 1]")
    loader = ImageLoader(
        database,
        preprocessing=preprocessing,
        cache_bytes=cache_bytes,
        distorting=distorting,
    )
    view = _RandomView(
        database,
        loader,
        crop=crop,
        horizontal_flip=horizontal_flip,
        vertical_flip=vertical_flip,
    )
    # The slice for a process comes after the random map: a crop's generator then depends on the
    # image's place in the global order, not on how many processes there are. Before the seed, what
    # is done changes no draw: Grain counts the steps since then.
    return (
        _ordered(rows, seed)
        .random_map(view)
        .repeat()[process_index::process_count]
        .batch(batch_size // process_count, drop_remainder=True)
        .map(_Numbered(process_index, process_count))
    )


def training_rows(rows: Sequence[int], *, seed: int, batch_size: int, batch: int) -> list[int]:
    """Which rows a batch of `training_dataset` has, over all processes, in order.

    Args:
        rows, seed, batch_size: as given there.
        batch: the item of the dataset, from 0: the batch of step k is k − 1.
    """
    endless = _ordered(rows, seed).repeat()
    return [endless[place][0] for place in range(batch * batch_size, (batch + 1) * batch_size)]


def _ordered(rows: Sequence[int], seed: int) -> grain.MapDataset:
    """(row, epoch) in the order of an epoch, which `repeat` draws anew for every one."""
    return grain.MapDataset.source(rows).map_with_index(_Epochs(len(rows))).seed(seed).shuffle()


class _Numbered(grain.transforms.Map):
    """A process's part of a batch → the same with `example`, the places in the whole batch."""

    def __init__(self, process_index: int, process_count: int) -> None:
        self._index, self._count = process_index, process_count

    def map(self, element: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = len(element["score"])
        places = self._index + self._count * np.arange(count, dtype=np.int32)
        return {**element, "example": places}


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

    def reading(ready: int) -> grain.ReadOptions:
        return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ready)

    def start(rest: grain.MapDataset) -> grain.DatasetIterator:
        if not workers:
            return iter(rest.to_iter_dataset(reading(prefetch)))
        if not flags.FLAGS.is_parsed():  # Grain hands its flags to the workers
            flags.FLAGS.mark_as_parsed()
        inside = rest.to_iter_dataset(reading(threads))
        options = grain.MultiprocessingOptions(
            num_workers=workers, per_worker_buffer_size=math.ceil(prefetch / workers)
        )
        return iter(inside.mp_prefetch(options, _prepare_worker).map(_copied))

    return BatchIterator(dataset, start)


def _prepare_worker(worker: int, workers: int) -> None:
    """Leave it to the training process when to end: it may still need batches to save in order.

    Ctrl-C reaches every process of a terminal, SIGTERM every one of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()


def _copied(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch in memory of its own; a worker's shared memory is given back at once."""
    return {key: np.array(values) for key, values in batch.items()}


def evaluation_crops(
    database: Database,
    rows: Sequence[int],
    *,
    crop: int,
    count: int,
    placement: Placement,
    seed: int,
    preprocessing: Preprocessing,
    threads: int,
    distorting: Distorting | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, crops) in the order of `rows`, each image decoded once, a few images ahead.

    A database of photographs is distorted as in the first epoch. At most threads + 2 images' crops
    are held at a time.

    Args:
        database: where images come from.
        rows: which images, in order.
        crop: side of the square crops in pixels; smaller images are mirrored outward.
        count: number of crops an image.
        placement: "random": drawn anew for each image from its file name and the seed, so they
            depend neither on the other images nor on their order; "grid": evenly spread.
        seed: of the random placement.
        preprocessing: of every image before cropping.
        threads: number of images decoded at a time, at least 1.
        distorting: how the images of a database of photographs are made; None for the others.

    Yields:
        row and its (count, crop, crop, 3) uint8 crops.

    Raises:
        GlpiError: a number out of range (at the call), an unreadable image (at its turn).
    """
    if placement not in ("random", "grid"):
        raise GlpiError(f"crop placement {placement!r}: must be random or grid")
    if crop < 1 or count < 1 or threads < 1 or seed < 0:
        raise GlpiError(
            f"crop {crop}, count {count}, threads {threads} must be at least 1 and seed {seed} not"
            " negative"
        )
    loader = ImageLoader(
        database,
        preprocessing=preprocessing,
        cache_bytes=0,
        distorting=distorting,
    )

    def crops_of(row: int) -> np.ndarray:
        image = loader(row)
        if placement == "grid":
            return grid_crops(image, crop, count)
        return random_crops(image, crop, count, image_rng(database.images[row], seed))

    def crops_in_order() -> Iterator[tuple[int, np.ndarray]]:
        executor = ThreadPoolExecutor(threads)
        ahead: deque[tuple[int, Future[np.ndarray]]] = deque()
        try:
            for row in rows:
                ahead.append((row, executor.submit(crops_of, row)))
                if len(ahead) == threads + 2:
                    ready_row, crops = ahead.popleft()
                    yield ready_row, crops.result()
            while ahead:
                ready_row, crops = ahead.popleft()
                yield ready_row, crops.result()
        finally:
            executor.shutdown(cancel_futures=True)

    return crops_in_order()
