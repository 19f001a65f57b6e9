"""Images of any kind to crops, read and decoded by threads ahead of the device."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO, TypeAlias

import jax
import numpy as np
from PIL import Image

from glpi_jax.data.crops import Crops
from glpi_jax.data.images import (
    DECODING_BYTES_PER_PIXEL,
    IMAGE_SUFFIXES,
    Decoded,
    ImageError,
    check_file,
    convert_image,
    decode_first_frame,
    pixel_count,
    read_encoded,
)
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.scoring.fetch import fetch_image, is_foreign_url, is_url
from glpi_jax.scoring.results import Problem
from glpi_jax.scoring.video import Frame, has_video_signature, is_video

MIN_SIDE = 16  # pixels: one patch of the ViT; less shows nothing that could be judged
MEMORY_BYTES = 2**30  # for files and images that are being decoded, together

# A file's path, a URL, a Pillow image, pixels, the content of a file, an open file, or a frame of
# a video.
Source: TypeAlias = (
    str
    | os.PathLike[str]
    | Image.Image
    | np.ndarray
    | jax.Array
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Frame
    | Problem
)
_NO_COLLECTIONS = (str, os.PathLike, Image.Image, bytes, bytearray, memoryview, Frame, Problem)


@dataclass
class Reading:
    """One image ready to be scored, or why it is not.

    Attributes:
        name: what results call the image.
        crops: (n, crop, crop, 3) uint8, None if there is an error.
        note: what was done to an unusual image.
        error: why there are no crops.
    """

    name: str
    crops: np.ndarray | None = None
    note: str | None = None
    error: str | None = None


class MemoryBudget:
    """Bytes that threads may use together; who needs more than there are waits, then runs alone."""

    def __init__(self, total: int):
        """Begin with all of it free."""
        self._total = total
        self._used = 0
        self._changed = threading.Condition()
        self._first_in_line = threading.Lock()  # so that small images do not overtake for ever

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold `size` bytes of the budget, or all of it if that is less."""
        size = min(size, self._total)
        with self._first_in_line, self._changed:
            self._changed.wait_for(lambda: self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


class Reader:
    """Turns sources into crops, in order, a few images ahead of whoever asks for them."""

    def __init__(
        self,
        crops: Crops,
        *,
        preprocessing: Preprocessing,
        side: int,
        ahead: int,
        memory_bytes: int = MEMORY_BYTES,
    ):
        """Settle what is cut out of every image.

        Args:
            crops: which crops.
            preprocessing: of every image before crops are cut.
            side: of a crop in pixels.
            ahead: images whose crops are held ready, besides those in the threads.
            memory_bytes: see `MemoryBudget`; an image that needs more is decoded alone.
        """
        self._crops = crops
        self._preprocessing = preprocessing
        self._side = side
        self._ahead = ahead
        self._threads = min(8, os.cpu_count() or 1)
        self._budget = MemoryBudget(memory_bytes)

    def read(self, sources: Iterable[Source]) -> Iterator[Reading]:
        """Yield each source's crops or error, in order; a source is asked for only when needed.

        Files and URLs are read by threads. An image in memory is cut at once, since whoever gave
        it may change it when asked for the next.

        Raises:
            TypeError: a source is of no kind that can be read, or an array does not hold pixels.
        """
        executor = ThreadPoolExecutor(self._threads, thread_name_prefix="glpi-read")
        stop = threading.Event()
        waiting: deque[Future[Reading]] = deque()
        try:
            for index, source in enumerate(sources):
                waiting.append(self._start(source, index, executor, stop))
                if len(waiting) > self._ahead + self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()  # a slow server would hold up whoever interrupts
            executor.shutdown(cancel_futures=True)

    def _start(
        self, source: Source, index: int, executor: ThreadPoolExecutor, stop: threading.Event
    ) -> Future[Reading]:
        name = _name_of(source, f"image {index}")
        if isinstance(source, str | os.PathLike):
            return executor.submit(self._reading, source, name, PurePath(name).name, stop)
        ready: Future[Reading] = Future()
        file_name = PurePath(name).name if isinstance(source, Frame) else None
        ready.set_result(self._reading(source, name, file_name))
        return ready

    def _reading(
        self,
        source: Source,
        name: str,
        file_name: str | None,
        stop: threading.Event | None = None,
    ) -> Reading:
        """Decode and cut; an image that cannot be read is an error, and only that."""
        try:
            turn = self._preprocessing.apply_orientation
            image, animated = _decode(source, name, self._budget, stop, apply_orientation=turn)
            _check_size(image, name)
            image = self._preprocessing.resized(image, name)
        except ImageError as error:
            return Reading(name, error=str(error))
        notes = ["animated: the first frame is scored"] if animated else []
        if isinstance(source, Frame) and source.note:
            notes.append(source.note)
        height, width = image.shape[:2]
        if min(height, width) < self._side:
            notes.append(
                f"{width}×{height}, smaller than the crop: mirrored to {self._side} pixels"
            )
        crops = self._crops.cut(image, self._side, file_name)
        return Reading(name, crops, "; ".join(notes) or None)


def is_single(images: Any) -> bool:
    """Whether something is one image, or at least nothing that holds several."""
    if isinstance(images, np.ndarray | jax.Array):
        return images.ndim < 4
    if isinstance(images, _NO_COLLECTIONS) or _is_open_file(images):
        return True
    try:
        iter(images)
    except TypeError:
        return True
    return False


def read_pixels(source: Source, *, apply_orientation: bool) -> np.ndarray:
    """Return one image as (height, width, 3) uint8 RGB, in its own size.

    Args:
        source: of any kind.
        apply_orientation: turn a file or Pillow image as its EXIF orientation says.

    Raises:
        ImageError: it cannot be read, or is too small to be judged.
        TypeError: it is of no kind that can be read.
    """
    name = _name_of(source, "image")
    budget = MemoryBudget(MEMORY_BYTES)
    pixels = _decode(source, name, budget, apply_orientation=apply_orientation).pixels
    _check_size(pixels, name)
    return pixels


def read_preprocessed(source: Source, preprocessing: Preprocessing) -> np.ndarray:
    """Return one image as crops are cut from it: (height, width, 3) uint8 RGB.

    Raises:
        ImageError: it cannot be read, is too small to be judged, or is too large after the resize.
        TypeError: it is of no kind that can be read.
    """
    pixels = read_pixels(source, apply_orientation=preprocessing.apply_orientation)
    return preprocessing.resized(pixels, _name_of(source, "image"))


def _name_of(source: Source, unnamed: str) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, Frame | Problem):
        return source.name
    name = getattr(source, "name" if _is_open_file(source) else "filename", None)
    return name if name and isinstance(name, str) else unnamed  # Pillow images, open files


def _is_open_file(source: Any) -> bool:
    return hasattr(source, "read")


def _decode(
    source: Source,
    name: str,
    budget: MemoryBudget,
    stop: threading.Event | None = None,
    *,
    apply_orientation: bool,
) -> Decoded:
    if isinstance(source, Problem):
        raise ImageError(source.error)
    if isinstance(source, np.ndarray | jax.Array):
        source = np.asarray(source)
        return Decoded(_rgb_pixels(source, name), False)
    if isinstance(source, Frame):
        return Decoded(source.pixels, False)
    if isinstance(source, Image.Image):
        return Decoded(convert_image(source, name, apply_orientation=apply_orientation), False)
    if isinstance(source, str | os.PathLike) and not is_url(name):
        if is_foreign_url(name):
            raise ImageError(
                f"{name}: of URLs only http:// and https:// are read; name a file by its path"
            )
        if is_video(name):
            raise _video_error(name)
        size = check_file(name)
        with budget.reserve(size + DECODING_BYTES_PER_PIXEL * pixel_count(name)):
            return _decode_file(read_encoded(name), name, apply_orientation=apply_orientation)
    if isinstance(source, str | os.PathLike):
        data = fetch_image(name, stop=stop)
    else:
        data = _content(source, name)
    with budget.reserve(DECODING_BYTES_PER_PIXEL * pixel_count(data)):
        return _decode_file(data, name, apply_orientation=apply_orientation)


def _content(source: bytes | bytearray | memoryview | BinaryIO, name: str) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if not _is_open_file(source):
        raise TypeError(
            f"{name}: {type(source).__name__} is no image; give a path, a URL, a Pillow image, a"
            " uint8 array, the bytes of an image file or a file opened with 'rb'"
        )
    content = source.read()
    if not isinstance(content, bytes):
        raise TypeError(f"{name}: a file opened as text; open it with 'rb'")
    return content


def _decode_file(data: bytes, name: str, *, apply_orientation: bool) -> Decoded:
    if has_video_signature(data):
        raise _video_error(name)
    return decode_first_frame(data, name, apply_orientation=apply_orientation)


def _video_error(name: str) -> ImageError:
    remedy = "`glpi score` and video_frames take its frames"
    if is_url(name):
        remedy = "download it for its frames"
    elif PurePath(name).suffix.lower() in IMAGE_SUFFIXES:
        remedy = "give its name the suffix of a video for its frames"
    return ImageError(f"{name}: a video, an image is needed; {remedy}")


def _rgb_pixels(array: np.ndarray, name: str) -> np.ndarray:
    """Grey is repeated, transparency laid on white."""
    if array.dtype != np.uint8 or not (
        array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    ):
        remedy = ""
        if np.issubdtype(array.dtype, np.floating):
            remedy = "; values from 0 to 1: multiply by 255 and .astype(numpy.uint8)"
        raise TypeError(
            f"{name}: an array of {array.dtype} with shape {array.shape}; an image is uint8 of "
            f"shape (height, width), (height, width, 3) or (height, width, 4){remedy}"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 4 and array.size:
        return convert_image(Image.fromarray(array), name, apply_orientation=False)
    return array[:, :, :3]


def _check_size(image: np.ndarray, name: str) -> None:
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{name}: {width}×{height} pixels are too few to judge; the least is "
            f"{MIN_SIDE}×{MIN_SIDE}"
        )
