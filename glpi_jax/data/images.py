"""Image files to uint8 RGB arrays, and the errors that say why one could not be read."""

import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from glpi_jax.errors import GlpiError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

# Pillow gives both with samples on the scale 0..65535; other formats leave mode "I" unscaled.
_FORMATS_WITH_16_BIT_INTEGERS = ("PNG", "PPM")


class ImageError(GlpiError):
    """An image that cannot be read: the message names the file and the cause."""


def read_image(path: str | os.PathLike[str], *, apply_orientation: bool) -> np.ndarray:
    """Read and decode one image file; see `decode_image`.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ImageError: the path is missing, a folder, unreadable, or not a whole image.
    """
    return decode_image(read_encoded(path), str(path), apply_orientation=apply_orientation)


def read_encoded(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file.

    Raises:
        ImageError: the path is missing, a folder, or unreadable.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: this is a folder, an image file is needed") from None
    except PermissionError:
        raise ImageError(f"{path}: permission denied; make the file readable") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({_one_line(error)})") from error


def decode_image(data: bytes, name: str, *, apply_orientation: bool) -> np.ndarray:
    """Decode an image held in memory to 8-bit RGB.

    Grey is replicated to three channels; transparency is composited on white; 16-bit grey is
    scaled to 8 bits by value / 257, rounded (Pillow itself cuts 16-bit colour to 8 bits: within one
    step of that); CMYK and other colour spaces are converted without colour profiles; of several
    frames the first is taken. Float and 32-bit integer images are refused: nothing in the file
    says which value is white.

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
    if not data:
        raise ImageError(f"{name}: the file is empty")
    try:
        with Image.open(BytesIO(data)) as image:
            source_format = image.format
            image.load()
            oriented = ImageOps.exif_transpose(image) if apply_orientation else image
            return _to_rgb(oriented, source_format, name)
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


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Expand files and folders to image files.

    A file is taken whatever its suffix. A folder is searched recursively, links included, for
    `IMAGE_SUFFIXES` (either case), sorted by path; hidden files and folders are left out. A file
    reached twice is listed once.

    Raises:
        GlpiError: a path does not exist, a folder holds no image or cannot be listed.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            images = _images_below(path)
            if not images:
                suffixes = " ".join(sorted(IMAGE_SUFFIXES))
                raise GlpiError(f"{path}: no image in this folder (looked for {suffixes})")
            found.update(dict.fromkeys(images))
        elif path.exists():
            found[path] = None
        else:
            raise GlpiError(f"{path}: no such file or folder")
    return list(found)


def _images_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise GlpiError(f"{error.filename}: this folder cannot be listed ({error.strerror})")

    images = []
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link back to a folder already walked
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        images += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(images)


def _to_rgb(image: Image.Image, source_format: str | None, name: str) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _grey_16_bit_to_rgb(np.asarray(image), image.info.get("transparency"))
    if image.mode == "I" and source_format in _FORMATS_WITH_16_BIT_INTEGERS:
        return _grey_16_bit_to_rgb(np.asarray(image), None)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageError(
            f"{name}: {kind} samples have no agreed white level; save the image with 8 or 16 bits"
        )
    if image.mode == "La":  # premultiplied; Pillow converts it to LA only
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _grey_16_bit_to_rgb(grey: np.ndarray, transparent: int | None) -> np.ndarray:
    eight_bit = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if transparent is not None:
        eight_bit[grey == transparent] = 255
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
