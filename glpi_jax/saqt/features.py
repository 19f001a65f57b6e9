"""Semantic vectors of photographs of any size, in batches of few shapes over a device mesh.

Each photograph is computed whole and at its own size, as the authors do: it is padded to the next
of a small set of shapes, and the network masks the padding, so that the vector is that of the
photograph alone. Programs are compiled for shapes, not for sizes.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import ImageError, read_image
from glpi_jax.data.transforms import resize
from glpi_jax.models.resnet import EXPANSION, ResNet, semantic_vectors

ImageSize: TypeAlias = tuple[int, int]
Key = TypeVar("Key")

SMALLEST_SIDE = 32  # pixels; also the least step between two sides
# `batch_size` images of this size, KADIS-700k's, set how many pixels are computed at a time.
USUAL_PIXELS = 512 * 384
# A rare shape waits for others of its kind no longer than this, counted in photographs …
LONGEST_WAIT = 1000
# … and no longer than until this many batches' pixels wait.
WAITING_BATCHES = 8


class ReadyPhotograph(NamedTuple):
    """A photograph ready for the network, and its size in the file, if reduced a larger one."""

    image: np.ndarray  # (height, width, 3) uint8 RGB
    size: ImageSize


def padded_shape(height: int, width: int) -> ImageSize:
    """The shape that a photograph is padded to: each side the next of 32, 64, …, 256, 320, 384, ….

    From 128 on there are four sides an octave, so that a side grows by less than a quarter, and
    photographs of up to 8192×8192 pixels have 784 shapes in all; those of one camera or database
    have a few.
    """

    def padded(side: int) -> int:
        step = max(SMALLEST_SIDE, 2 ** ((side - 1).bit_length() - 3))
        return -(-side // step) * step

    return padded(height), padded(width)


def read_photographs(
    paths: Sequence[str | os.PathLike[str]], *, max_pixels: int | None, threads: int
) -> Iterator[ReadyPhotograph | ImageError]:
    """Decode photographs in order, a few ahead; an unreadable one gives its error.

    At most threads + 2 photographs are held at a time. EXIF orientation is applied.

    Args:
        paths: image files.
        max_pixels: reduce photographs with more pixels to this many, the aspect kept; None: never.
        threads: photographs decoded at a time, at least 1.
    """

    def read(path: str | os.PathLike[str]) -> ReadyPhotograph | ImageError:
        try:
            image = read_image(path, apply_orientation=True)
        except ImageError as error:
            return error
        height, width = image.shape[:2]
        if max_pixels is not None and height * width > max_pixels:
            scale = (max_pixels / (height * width)) ** 0.5
            smaller = max(1, int(height * scale)), max(1, int(width * scale))
            image = resize(image, *smaller, method="bicubic")
        return ReadyPhotograph(image, (height, width))

    executor = ThreadPoolExecutor(threads)
    ahead: deque[Future[ReadyPhotograph | ImageError]] = deque()
    try:
        for path in paths:
            ahead.append(executor.submit(read, path))
            if len(ahead) == threads + 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        # Not waiting: the garbage collector may come here in a thread that is about to start,
        # where joining another never returns.
        executor.shutdown(wait=False, cancel_futures=True)


class FeatureExtractor:
    """Turns images into semantic vectors; see `glpi_jax.models.resnet.semantic_vectors`.

    A batch of a shape always has as many images, so a shape is compiled once: `batch_size` for
    each device, or fewer where they are larger than 512×384, so that no more pixels are computed
    at a time; at least one. Every device computes its part of the batch.

    Attributes:
        dimension: values of a vector.
    """

    def __init__(self, resnet: ResNet, variables: Any, mesh: Mesh, *, batch_size: int) -> None:
        """Put the network, `variables` its `params` and `batch_stats`, on devices of this process.

        The batch is split over all axes of the mesh; `batch_size` counts images of 512×384 pixels
        on each device, at least 1.
        """
        if batch_size < 1:
            raise GlpiError(f"batch size {batch_size}: must be at least 1")
        self.dimension = EXPANSION * resnet.widths[-1]
        self._devices = mesh.size
        self._batch_size = batch_size
        whole = NamedSharding(mesh, PartitionSpec())
        split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

        def compute(variables: Any, images: jax.Array, sizes: jax.Array) -> jax.Array:
            return semantic_vectors(resnet, variables, images, sizes)

        self._variables = jax.device_put(variables, whole)
        self._compute = jax.jit(compute, in_shardings=(whole, split, split), out_shardings=split)

    def images_in_batch(self, shape: ImageSize) -> int:
        """How many images of a shape are computed at a time, over all devices."""
        fitting = self._batch_size * USUAL_PIXELS // (shape[0] * shape[1])
        return self._devices * min(self._batch_size, max(1, fitting))

    def __call__(
        self, images: Iterable[tuple[Key, np.ndarray]]
    ) -> Iterator[tuple[list[Key], np.ndarray]]:
        """Compute vectors batch by batch, each as soon as it is full or has waited long.

        A batch is dispatched before the previous one is read, so that the host decodes while the
        devices compute.

        Args:
            images: (key, (height, width, 3) uint8 RGB).

        Yields:
            the keys of a batch and their (keys, dimension) float32 vectors; every key once, those
            of different shapes in another order than they came.

        Raises:
            GlpiError: a device has too little memory.
        """
        # By shape, in the order of their first images: when the first came, keys and images.
        waiting: dict[ImageSize, tuple[int, list[Key], list[np.ndarray]]] = {}
        in_flight: deque[tuple[list[Key], ImageSize, jax.Array]] = deque()
        pixels = 0
        most_pixels = WAITING_BATCHES * self._devices * self._batch_size * USUAL_PIXELS

        def dispatch(shape: ImageSize) -> None:
            nonlocal pixels
            _, keys, arrays = waiting.pop(shape)
            pixels -= len(keys) * shape[0] * shape[1]
            batch = np.zeros((self.images_in_batch(shape), *shape, 3), np.uint8)
            sizes = np.ones((len(batch), 2), np.int32)  # a size of 0 would divide by it
            for row, array in enumerate(arrays):
                height, width = sizes[row] = array.shape[:2]
                batch[row, :height, :width] = array
            with _named_memory_errors(shape):
                in_flight.append((keys, shape, self._compute(self._variables, batch, sizes)))

        def collect(leave: int) -> Iterator[tuple[list[Key], np.ndarray]]:
            while len(in_flight) > leave:
                keys, shape, vectors = in_flight.popleft()
                with _named_memory_errors(shape):
                    computed = np.asarray(vectors)[: len(keys)]
                yield keys, computed

        for number, (key, image) in enumerate(images):
            shape = padded_shape(*image.shape[:2])
            _, keys, arrays = waiting.setdefault(shape, (number, [], []))
            keys.append(key)
            arrays.append(image)
            pixels += shape[0] * shape[1]
            if len(keys) == self.images_in_batch(shape):
                dispatch(shape)
                yield from collect(leave=1)
            while waiting:
                oldest, (opened, *_) = next(iter(waiting.items()))
                if number - opened < LONGEST_WAIT and pixels <= most_pixels:
                    break
                dispatch(oldest)
                yield from collect(leave=1)
        while waiting:
            dispatch(next(iter(waiting)))
            yield from collect(leave=1)
        yield from collect(leave=0)


@contextmanager
def _named_memory_errors(shape: ImageSize) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        height, width = shape
        raise GlpiError(
            f"too little device memory for photographs of up to {width}×{height} pixels: take a"
            " smaller --batch-size, or have large ones reduced by --max-pixels"
        ) from error
