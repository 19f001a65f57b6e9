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
from glpi_jax.scoring.results import ImageScore, Problem
from glpi_jax.scoring.video import Frame, has_video_signature, is_video

MIN_SIDE = 16  # pixels: one patch of the ViT; less shows nothing that could be judged
MEMORY_BYTES = 2**30  # for files and images that are being decoded, together

_Pixels: TypeAlias = Image.Image | np.ndarray | jax.Array
_Bytes: TypeAlias = bytes | bytearray | memoryview
Source: TypeAlias = str | os.PathLike[str] | _Pixels | _Bytes | BinaryIO | Frame | Problem
"""A file's path or URL, pixels, the content of a file, an open file, or a frame of a video."""
_NO_COLLECTIONS = str | os.PathLike | Image.Image | _Bytes | Frame | Problem


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


@dataclass(frozen=True)
class Reader:
    """Turns sources into crops, in order, and reads a few images ahead of the caller.

    Attributes:
        crops: which crops are cut from every image.
        preprocessing: of every image before crops are cut.
        side: of a crop in pixels.
        ahead: images whose crops are held ready, besides those in the threads.
        memory_bytes: see `MemoryBudget`; an image that needs more is decoded alone.
    """

    crops: Crops
    preprocessing: Preprocessing
    side: int
    ahead: int
    memory_bytes: int = MEMORY_BYTES

    def read(self, sources: Iterable[Source]) -> Iterator[tuple[ImageScore, np.ndarray | None]]:
        """Yield results without scores and (n, side, side, 3) uint8 crops, None where an error is.

        They come in the order of the sources, each of which is asked for only when needed.

        Files and URLs are read by threads. An image in memory is cut at once, since whoever gave
        it may change it when asked for the next.

        Raises:
            TypeError: a source is of no kind that can be read, or an array does not hold pixels.
        """
        threads = min(8, os.cpu_count() or 1)
        executor = ThreadPoolExecutor(threads, thread_name_prefix="glpi-read")
        budget, stop = MemoryBudget(self.memory_bytes), threading.Event()
        waiting: deque[Future[tuple[ImageScore, np.ndarray | None]]] = deque()
        try:
            for index, source in enumerate(sources):
                arguments = source, name_of(source, f"image {index}"), budget, stop
                if isinstance(source, str | os.PathLike):
                    waiting.append(executor.submit(self._reading, *arguments))
                else:
                    waiting.append(Future())
                    waiting[-1].set_result(self._reading(*arguments))
                if len(waiting) > self.ahead + threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()  # a slow server would hold up whoever interrupts
            # Not waiting: the garbage collector may come here in a thread that is about to start,
            # where joining another never returns.
            executor.shutdown(wait=False, cancel_futures=True)

    def _reading(
        self, source: Source, name: str, budget: MemoryBudget, stop: threading.Event
    ) -> tuple[ImageScore, np.ndarray | None]:
        """Decode and cut; an image that cannot be read is an error, and only that."""
        try:
            turn = self.preprocessing.apply_orientation
            image, animated = _decode(source, name, budget, stop, apply_orientation=turn)
            _check_size(image, name)
            image = self.preprocessing.resized(image, name)
        except ImageError as error:
            return ImageScore(name, error=str(error)), None
        notes = ["animated: the first frame is scored"] if animated else []
        if isinstance(source, Frame) and source.note:
            notes.append(source.note)
        height, width = image.shape[:2]
        if min(height, width) < self.side:
            notes.append(f"{width}×{height}, smaller than the crop: mirrored to {self.side} pixels")
        has_file_name = isinstance(source, str | os.PathLike | Frame)
        file_name = PurePath(name).name if has_file_name else None
        crops = self.crops.cut(image, self.side, file_name)
        return ImageScore(name, note="; ".join(notes) or None), crops


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

    `apply_orientation` turns a file or Pillow image as its EXIF orientation says.

    Raises:
        ImageError: it cannot be read, or is too small to be judged.
        TypeError: it is of no kind that can be read.
    """
    name, budget = name_of(source), MemoryBudget(MEMORY_BYTES)
    pixels = _decode(source, name, budget, apply_orientation=apply_orientation).pixels
    _check_size(pixels, name)
    return pixels


def name_of(source: Source, unnamed: str = "image") -> str:
    """What results and errors call a source."""
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
    if isinstance(source, Frame):
        return Decoded(source.pixels, False)
    if isinstance(source, np.ndarray | jax.Array):
        return Decoded(_rgb_pixels(np.asarray(source), name), False)
    if isinstance(source, Image.Image):
        return Decoded(convert_image(source, name, apply_orientation=apply_orientation), False)
    data, size = None, 0
    if not isinstance(source, str | os.PathLike):
        data = _content(source, name)
    elif is_url(name):
        data = fetch_image(name, stop=stop)
    elif is_foreign_url(name):
        raise ImageError(
            f"{name}: of URLs only http:// and https:// are read; name a file by its path"
        )
    elif is_video(name):
        raise _video_error(name)
    else:
        size = check_file(name)
    pixels = pixel_count(name if data is None else data)
    with budget.reserve(size + DECODING_BYTES_PER_PIXEL * pixels):
        data = read_encoded(name) if data is None else data
        if has_video_signature(data):
            raise _video_error(name)
        return decode_first_frame(data, name, apply_orientation=apply_orientation)


def _content(source: _Bytes | BinaryIO, name: str) -> bytes:
    if isinstance(source, _Bytes):
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
        least = f"{MIN_SIDE}×{MIN_SIDE}"
        raise ImageError(
            f"{name}: {width}×{height} pixels are too few to judge; the least is {least}"
        )
