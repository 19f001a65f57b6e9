"""Crops, flips, padding and resizing of one image: pure NumPy (Pillow for resizing).

Images are (height, width, 3) uint8 arrays. Randomness comes from the generator that is passed in.
"""

import hashlib
import math
from typing import Literal

import numpy as np
from PIL import Image

from glpi_jax.core.errors import GlpiError

ResizeMethod = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RESIZE_METHODS = tuple(_RESAMPLING)


def image_rng(name: str, seed: int) -> np.random.Generator:
    """A generator fixed by an image's name and a seed, the same on every machine and in any order.

    A negative seed is a GlpiError.
    """
    if seed < 0:
        raise GlpiError(f"seed {seed}: must not be negative")
    digest = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
    entropy = [seed, *(int(word) for word in digest)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def resize(image: np.ndarray, height: int, width: int, *, method: ResizeMethod) -> np.ndarray:
    """Resize to exactly (height, width), without keeping the aspect; antialiased when shrinking.

    Pillow's filters, as torchvision's `Resize` on a Pillow image uses them.

    Raises:
        GlpiError: a size below 1, or an unknown method.
    """
    if height < 1 or width < 1:
        raise GlpiError(f"resize to {height}×{width}: height and width must be at least 1")
    if method not in _RESAMPLING:
        raise GlpiError(f"resize method {method!r}: must be one of {', '.join(_RESAMPLING)}")
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), _RESAMPLING[method]))


def check_crop(crop: int) -> None:
    """Raise a GlpiError unless a crop has a pixel."""
    if crop < 1:
        raise GlpiError(f"crop {crop}: must be at least 1 pixel")


def pad_to_crop(image: np.ndarray, crop: int) -> np.ndarray:
    """Mirror an image outward, evenly on both sides, until both sides measure at least `crop`.

    The mirror repeats the edge pixel and is applied as often as needed, so a 1×1 image works.
    An image that is large enough is returned as it is. A crop below 1 is a GlpiError.
    """
    check_crop(crop)
    height, width = image.shape[:2]
    missing_rows, missing_columns = max(crop - height, 0), max(crop - width, 0)
    if not missing_rows and not missing_columns:
        return image
    top, left = missing_rows // 2, missing_columns // 2
    padding = ((top, missing_rows - top), (left, missing_columns - left), (0, 0))
    return np.pad(image, padding, mode="symmetric")


def random_crop(image: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """One square crop, every position equally likely; smaller images are padded first.

    Returns:
        (crop, crop, 3) view of the image (or of its padded copy).
    """
    padded = pad_to_crop(image, crop)
    top = int(rng.integers(padded.shape[0] - crop + 1))
    left = int(rng.integers(padded.shape[1] - crop + 1))
    return padded[top : top + crop, left : left + crop]


def check_flips(horizontal: float, vertical: float) -> None:
    """Raise a GlpiError unless both are probabilities."""
    for key, probability in (("horizontal", horizontal), ("vertical", vertical)):
        if not 0 <= probability <= 1:
            raise GlpiError(f"{key} flip probability {probability}: must lie in [0, 1]")


def random_flips(
    image: np.ndarray, *, horizontal: float, vertical: float, rng: np.random.Generator
) -> np.ndarray:
    """Mirror left–right with probability `horizontal` and upside down with `vertical`.

    Both numbers are always drawn, so that what follows does not depend on the probabilities. The
    result is a view; a probability outside [0, 1] is a GlpiError.
    """
    check_flips(horizontal, vertical)
    mirror, upend = rng.random(2) < (horizontal, vertical)
    image = image[:, ::-1] if mirror else image
    return image[::-1] if upend else image


def random_crops(image: np.ndarray, crop: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` independent random crops (count, crop, crop, 3); errors as of `grid_crops`."""
    padded = _padded(image, crop, count)
    return np.stack([random_crop(padded, crop, rng) for _ in range(count)])


def grid_crops(image: np.ndarray, crop: int, count: int) -> np.ndarray:
    """Exactly `count` crops, spread evenly over the image from edge to edge, row by row.

    The number of rows makes the steps down and across as equal as can be. Where `count` is not a
    multiple of it, some rows hold one crop more, each row spread over the whole width. A single row
    or a single crop in a row is centred. Smaller images are padded first.

    Returns:
        (count, crop, crop, 3) uint8.

    Raises:
        GlpiError: `count` or `crop` is below 1.
    """
    padded = _padded(image, crop, count)
    travel_down, travel_across = padded.shape[0] - crop, padded.shape[1] - crop
    rows = round(math.sqrt(count * (travel_down + 1) / (travel_across + 1)))
    rows = min(max(rows, 1), count)
    crops = []
    for row, top in enumerate(_even_positions(travel_down, rows)):
        in_row = count * (row + 1) // rows - count * row // rows
        for left in _even_positions(travel_across, in_row):
            crops.append(padded[top : top + crop, left : left + crop])
    return np.stack(crops)


def _even_positions(travel: int, count: int) -> list[int]:
    if count == 1:
        return [travel // 2]
    return [round(travel * index / (count - 1)) for index in range(count)]


def _padded(image: np.ndarray, crop: int, count: int) -> np.ndarray:
    if count < 1:
        raise GlpiError(f"{count} crops an image: must be at least 1")
    return pad_to_crop(image, crop)
