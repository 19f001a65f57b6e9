"""Images of a Database's rows: decoded, distorted if need be, kept; and their test crops.

An image depends on its row and epoch alone: not on threads, nor on whether images are files or
records, or distorted as they are read.
"""

import functools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.crops import Crops
from glpi_jax.data.images import ImageError, decode_image
from glpi_jax.data.on_the_fly import Distorting
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database


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
        """Take the arguments as `glpi_jax.data.pipeline.training_dataset` describes them."""
        if cache_bytes < 0:
            raise GlpiError(f"cache_bytes {cache_bytes}: must be 0 (no cache) or more")
        if database.photographs is not None and distorting is None:
            raise GlpiError(f"{database.name}: nothing says how its photographs are distorted")
        self._database = database
        self._preprocessing = preprocessing
        self._cache_bytes = cache_bytes
        self._distorting = distorting
        self._lock = threading.Lock()
        self._free_bytes = cache_bytes
        self._cache: dict[int, np.ndarray] = {}
        self._last: tuple[int, np.ndarray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        make = functools.partial(
            ImageLoader,
            preprocessing=self._preprocessing,
            cache_bytes=self._cache_bytes,
            distorting=self._distorting,
        )
        return make, (self._database,)

    def __call__(self, row: int, epoch: int = 0) -> np.ndarray:
        """The (height, width, 3) uint8 image of a row; the epoch may change its distortion."""
        photographs = self._database.photographs
        if photographs is None or self._distorting is None:
            return self._kept(row, row, resize=True)
        variant = photographs.variant(row)
        photograph = self._kept(variant.photograph, row, resize=False)
        name = photographs.file_name(variant.photograph)
        try:
            image = self._distorting.distort(photograph, name, variant, epoch)
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
        name, turn = str(self._database.path(row)), self._preprocessing.apply_orientation
        image = decode_image(self._database.encoded(row), name, apply_orientation=turn)
        if resize:
            image = self._preprocessing.resized(image, name)
        image.flags.writeable = False
        with self._lock:
            if file not in self._cache and image.nbytes <= self._free_bytes:
                self._cache[file] = image
                self._free_bytes -= image.nbytes
            if not resize:  # rows of one photograph follow each other in evaluation
                self._last = (file, image)
        return image


def evaluation_crops(
    database: Database,
    rows: Sequence[int],
    *,
    crop: int,
    crops: Crops,
    preprocessing: Preprocessing,
    threads: int,
    distorting: Distorting | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (row, crops) in the order of `rows`, each image decoded once, a few images ahead.

    A database of photographs is distorted as in the first epoch. At most threads + 2 images' crops
    are held at a time.

    Args:
        database, rows, crop, preprocessing, distorting: as of `pipeline.training_dataset`.
        crops: how many of each image, and where. Random ones are drawn anew for each image from its
            file name and the seed, so they depend neither on the other images nor on their order.
        threads: number of images decoded at a time, at least 1.

    Yields:
        row and its (crops.count, crop, crop, 3) uint8 crops.

    Raises:
        GlpiError: a number out of range (at the call), an unreadable image (at its turn).
    """
    if crop < 1 or threads < 1:
        raise GlpiError(f"crop {crop}, threads {threads}: both must be at least 1")
    loader = ImageLoader(
        database, preprocessing=preprocessing, cache_bytes=0, distorting=distorting
    )

    def crops_of(row: int) -> np.ndarray:
        return crops.cut(loader(row), crop, database.images[row])

    def crops_in_order() -> Iterator[tuple[int, np.ndarray]]:
        executor = ThreadPoolExecutor(threads)
        ahead: deque[Future[np.ndarray]] = deque()
        waiting = iter(rows)
        try:
            ahead.extend(executor.submit(crops_of, row) for row in islice(waiting, threads + 1))
            for row in rows:
                ahead.extend(executor.submit(crops_of, next_row) for next_row in islice(waiting, 1))
                yield row, ahead.popleft().result()
        finally:
            # Not waiting: the garbage collector may come here in a thread that is about to start,
            # where joining another never returns.
            executor.shutdown(wait=False, cancel_futures=True)

    return crops_in_order()
