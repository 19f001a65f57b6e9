"""Image files to uint8 RGB arrays, and the errors that say why one could not be read."""

import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from glpi_jax.core.errors import GlpiError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

MAX_FILE_BYTES = 2**31  # more than the largest image that is decoded takes without compression
DECODING_BYTES_PER_PIXEL = 12  # at most about, decoders included, besides the file itself

_STRIP_PIXELS = 2**20
# Pillow gives both with samples on the scale 0..65535; other formats leave mode "I" unscaled.
_FORMATS_WITH_16_BIT_INTEGERS = ("PNG", "PPM")
# Orientations that are not their own inverse.
_TURNED_BACK: dict[object, int] = {6: 8, 8: 6}


_FILE_ERRORS: dict[type[OSError], str] = {
    FileNotFoundError: "no such image file",
    IsADirectoryError: "this is a folder, an image file is needed",
    PermissionError: "permission denied; make the file readable",
}


class ImageError(GlpiError):
    """An image that cannot be read: the message names the file and the cause."""


def read_image(path: str | os.PathLike[str], *, apply_orientation: bool) -> np.ndarray:
    """Read and decode one image file; result and errors as of `read_encoded`, `decode_image`."""
    return decode_image(read_encoded(path), str(path), apply_orientation=apply_orientation)


def read_encoded(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file; errors as of `check_file`, or an ImageError if unreadable."""
    check_file(path)
    with _file_errors(path):
        return Path(path).read_bytes()


def check_file(path: str | os.PathLike[str]) -> int:
    """Size in bytes of what may be an image file.

    A pipe or a device is refused before it is opened, which could wait for ever.

    Raises:
        ImageError: the path is missing, a folder, no regular file, or larger than
            `MAX_FILE_BYTES`.
    """
    with _file_errors(path):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: a pipe or device, an image file is needed")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(
            f"{path}: {status.st_size / 2**30:.1f} GiB are too many for an image; the most is "
            f"{MAX_FILE_BYTES / 2**30:g} GiB"
        )
    return status.st_size


def pixel_count(source: str | os.PathLike[str] | bytes) -> int:
    """Pixels of an image as its header states them; 0 where Pillow finds no header.

    Args:
        source: a regular file, or its content.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.width * image.height
    except Exception:  # whatever is wrong, decoding says it better
        return 0


class Decoded(NamedTuple):
    """An image, and whether its file holds an animation, of which this is the first frame."""

    pixels: np.ndarray
    animated: bool


def decode_image(data: bytes, name: str, *, apply_orientation: bool) -> np.ndarray:
    """Decode an image held in memory to 8-bit RGB.

    Grey is replicated to three channels; transparency is composited on white; grey of 12 or 16 bits
    is scaled to 8 bits and rounded (Pillow itself cuts 16-bit colour to 8 bits: within one step of
    that); CMYK and other colour spaces are converted without colour profiles; of several
    frames the first is taken. Float and 32-bit integer images are refused: nothing in the file
    says which value is white.

    Memory is about 7 bytes a pixel besides the file, at most `DECODING_BYTES_PER_PIXEL`.

    Args:
        data: the whole file.
        name: what an error message calls the image.
        apply_orientation: turn and mirror as the EXIF orientation says.

    Returns:
        (height, width, 3) uint8 RGB, C-contiguous and writable.

    Raises:
        ImageError: empty, truncated, corrupt, too large (Pillow's decompression-bomb limit), not an
            image, or of a kind that has no 8-bit meaning.
    """
    return decode_first_frame(data, name, apply_orientation=apply_orientation).pixels


def decode_first_frame(data: bytes, name: str, *, apply_orientation: bool) -> Decoded:
    """Do as `decode_image` does, and say whether there were more frames."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    with _decoding_errors(name), Image.open(BytesIO(data)) as image:
        # A telephone's MPO file holds other views of the same photograph, or its depth.
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        pixels = _pixels(image, name, apply_orientation=apply_orientation, last_use=True)
        return Decoded(pixels, animated)


def convert_image(image: Image.Image, name: str, *, apply_orientation: bool) -> np.ndarray:
    """Convert a Pillow image, which stays as it is, to what `decode_image` makes of a file.

    Raises:
        ImageError: its file is truncated, corrupt or closed, or it has no 8-bit meaning.
    """
    with _decoding_errors(name):
        return _pixels(image, name, apply_orientation=apply_orientation, last_use=False)


def _nowhere(folder: str) -> bool:
    return False


def _raise(error: GlpiError) -> None:
    raise error


def list_images(
    paths: Iterable[str | os.PathLike[str]], *, skip: Callable[[str], bool] = _nowhere
) -> list[Path]:
    """Expand files and folders to image files.

    A file is taken whatever its suffix. A folder is searched as `walk_images` does, without the
    folders in it that are to be skipped. A file reached twice is listed once.

    Raises:
        GlpiError: a path does not exist, a folder holds no image or cannot be listed.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found.update(dict.fromkeys(map(Path, walk_images(path, skip=skip))))
        elif path.exists():
            found[path] = None
        else:
            raise GlpiError(f"{path}: no such file or folder")
    return list(found)


def walk_images(
    folder: Path,
    on_error: Callable[[GlpiError], None] = _raise,
    *,
    skip: Callable[[str], bool] = _nowhere,
) -> Iterator[str]:
    """Yield the image files below a folder, sorted by path, while they are found.

    The folder is searched recursively, links included, for `IMAGE_SUFFIXES` (either case); hidden
    files and folders are left out. Of a folder that several links reach, one is followed.

    Args:
        folder: where to search.
        on_error: told about a folder that cannot be listed; if it does not raise, the rest is
            searched.
        skip: tells which folders below it are not searched.

    Raises:
        GlpiError: there is no image.
    """
    found = False
    for path in images_below(str(folder), on_error, skip=skip):
        found = True
        yield str(Path(path))
    if not found:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise GlpiError(f"{folder}: no image in this folder (looked for {suffixes})")


def images_below(
    folder: str,
    on_error: Callable[[GlpiError], None] = _raise,
    *,
    skip: Callable[[str], bool] = _nowhere,
) -> Iterator[str]:
    """Yield what `walk_images` does, each path beginning with the folder as given, or nothing."""
    visited: set[tuple[int, int]] = set()
    to_visit = [(folder, True)]  # paths, and whether each is a folder; the next one is the last
    while to_visit:
        path, is_folder = to_visit.pop()
        if not is_folder:
            if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
                yield path
            continue
        if path != folder and skip(path):
            continue
        entries: list[tuple[str, bool]] = []
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) not in visited:  # else a link back
                visited.add((status.st_dev, status.st_ino))
                with os.scandir(path) as found:
                    entries = [
                        (e.path, os.path.isdir(e.path)) for e in found if not e.name.startswith(".")
                    ]
        except OSError as error:
            on_error(GlpiError(f"{path}: this folder cannot be listed ({error.strerror})"))
        to_visit += sorted(entries, reverse=True)


@contextmanager
def _file_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        unknown = f"cannot be read ({error.strerror or _one_line(error)})"
        raise ImageError(f"{path}: {_FILE_ERRORS.get(type(error), unknown)}") from error
    except ValueError as error:  # a zero byte in the name
        raise ImageError(f"{path}: no file has such a name ({_one_line(error)})") from error


@contextmanager
def _decoding_errors(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image in any format that Pillow reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: the image is too large ({_one_line(error)})") from error
    except Exception as error:
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, EOFError, IndexError, KeyError, MemoryError, …
        cause = _one_line(error) or type(error).__name__
        raise ImageError(f"{name}: corrupt or truncated image ({cause})") from error


def _pixels(
    image: Image.Image, name: str, *, apply_orientation: bool, last_use: bool
) -> np.ndarray:
    orientation = _load(image, apply_orientation=apply_orientation)
    unscaled = image.mode == "I" and image.format not in _FORMATS_WITH_16_BIT_INTEGERS
    if unscaled or image.mode == "F":
        kind = "32-bit integer" if unscaled else "floating-point"
        raise ImageError(
            f"{name}: {kind} samples have no agreed white level; save the image with 8 or 16 bits"
        )
    to_rgb = _grey_to_rgb(image) if image.mode.startswith("I") else _strip_to_rgb
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    # Strip by strip, since Pillow's images take four bytes a pixel and each conversion makes one.
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = to_rgb(strip)
    if last_use:
        image.close()  # its memory goes before the turned copy comes
    return np.ascontiguousarray(_turned(pixels, orientation))


def _load(image: Image.Image, *, apply_orientation: bool) -> object:
    """Load an image; returns the orientation by which its pixels are then to be turned."""
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    stored = _orientation(image) if is_tiff else 1
    image.load()
    if apply_orientation:
        return _orientation(image)
    # Pillow turns a TIFF while it loads it, and takes the tag away. The EXIF data of others is not
    # even looked at: it may be damaged.
    if is_tiff and _orientation(image) != stored:
        return _TURNED_BACK.get(stored, stored)
    return 1


def _orientation(image: Image.Image) -> object:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _turned(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Turn as an EXIF orientation says; what is not in the standard turns nothing."""
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels


def _strip_to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == "LAB":
        return np.asarray(ImageCms.applyTransform(image, _lab_to_srgb()))
    if image.mode == "La":  # premultiplied; Pillow converts it to LA only
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


def _grey_to_rgb(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """What scales the strips of an image of integers: 16-bit ones, unless it is a TIFF of others.

    Pillow gives the samples of a TIFF as they are in the file.
    """
    highest, white_is_zero = 2**16 - 1, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        highest = 2 ** image.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0] - 1
        white_is_zero = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    transparent = image.info.get("transparency")

    def convert(strip: Image.Image) -> np.ndarray:
        grey = np.asarray(strip).astype(np.int32)
        light = highest - grey if white_is_zero else grey
        eight_bit = ((light * 255 + highest // 2) // highest).astype(np.uint8)
        if transparent is not None:
            eight_bit[grey == transparent] = 255
        return np.repeat(eight_bit[:, :, None], 3, axis=2)

    return convert


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
