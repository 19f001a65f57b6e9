"""One photograph under all types and levels, encoded and written: what a rendering process does."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_bytes
from glpi_jax.core.pools import check_stopped
from glpi_jax.data.images import ImageError, decode_image, read_encoded
from glpi_jax.distortions import TOTAL_VARIATION, Denoiser, Distorter, find_distortion, seed_for
from glpi_jax.saqt.rendered import MAKE_ROOM, LeftOut, Record, SourcePhotograph

_WEBP_LONGEST_SIDE = 16383

# Pillow's options. Lossless all of them; the quickest of each, since the others save little: WebP
# of method 4 takes ten times as long for 12 % less, PNG of level 6 four times for 8 %.
FORMATS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "png": {"compress_level": 1},
        "webp": {"lossless": True, "quality": 0, "method": 0},
        "bmp": {},
    }
)


@dataclass(frozen=True)
class RenderSettings:
    """What the pixels and the files depend on, besides the photographs.

    Attributes:
        types: KADID type numbers, each once.
        levels: of 1 to 5, each once.
        seed: of the random distortions.
        dncnn: weights of the denoiser of type 15 (`distortions.dncnn`); None for total variation.
        format_name: a key of `FORMATS`.
        arrayrecord: pack the files of each folder into one ArrayRecord file.
        apply_orientation: turn photographs as their EXIF orientation says.
    """

    types: tuple[int, ...]
    levels: tuple[int, ...]
    seed: int
    dncnn: Path | None
    format_name: str
    arrayrecord: bool
    apply_orientation: bool

    @property
    def suffix(self) -> str:
        """Of the image files."""
        return f".{self.format_name}"


@cache
def load_denoiser(weights: Path | None) -> Denoiser:
    """What type 15 removes its noise with: a DnCNN, or total variation without weights."""
    if weights is None:
        return TOTAL_VARIATION
    from glpi_jax.distortions.dncnn import load_dncnn  # starts JAX

    return load_dncnn(weights)


def render_photograph(
    photograph: SourcePhotograph, out: Path, settings: RenderSettings
) -> Record | LeftOut:
    """Write all images of a photograph; each gets its name when it is whole.

    An image depends on the pixels and the file name of the photograph, its type, its level and the
    seed: `distort(pixels, type, level, rng=seed_for(photograph.path.name, type, level, seed))`.

    Returns:
        what to record, or why the photograph is of no use.

    Raises:
        GlpiError: an image cannot be written, or memory is short.
    """
    path = photograph.path
    try:
        content = read_encoded(path)
        pixels = decode_image(content, str(path), apply_orientation=settings.apply_orientation)
    except ImageError as error:
        return LeftOut(photograph.prefix, str(error))
    source_bytes, source_sha256 = len(content), sha256(content)
    del content  # a large photograph's file is large too
    height, width, _ = pixels.shape
    reason = why_unusable(path, width, height, settings)
    if reason:
        return LeftOut(photograph.prefix, reason)
    images = {}
    try:
        distorter = Distorter(pixels, load_denoiser(settings.dncnn))
        for number in settings.types:
            rngs = {n: seed_for(path.name, number, n, settings.seed) for n in settings.levels}
            for level, image in distorter.each_level(number, rngs):
                check_stopped()
                encoded = encode(image, settings.format_name)
                key = f"{number:02d}_{level:02d}"
                _write(out / f"{photograph.prefix}_{key}{settings.suffix}", encoded)
                images[key] = (len(encoded), sha256(encoded))
    except MemoryError:
        raise GlpiError(
            f"{path}: not enough memory for its {width}x{height} pixels; use fewer --processes"
        ) from None
    return Record(
        prefix=photograph.prefix,
        source=path.name,
        source_bytes=source_bytes,
        source_sha256=source_sha256,
        width=width,
        height=height,
        images=images,
    )


def why_unusable(path: Path, width: int, height: int, settings: RenderSettings) -> str | None:
    """What is wrong with the size of a photograph, None if nothing is."""
    for number in settings.types:
        distortion = find_distortion(number)
        if min(width, height) < distortion.min_side:
            return (
                f"{path}: {width}x{height} pixels, but type {number} {distortion.name} needs"
                f" {distortion.min_side} a side; take a larger photograph or leave the type out"
                " (--types)"
            )
    if settings.format_name == "webp" and max(width, height) > _WEBP_LONGEST_SIDE:
        return (
            f"{path}: {width}x{height} pixels, but WebP ends at {_WEBP_LONGEST_SIDE} a side; render"
            " as png"
        )
    return None


def encode(image: NDArray[np.uint8], format_name: str) -> bytes:
    """An image (H, W, 3), uint8, as a file of one of `FORMATS`, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format_name, **FORMATS[format_name])
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except GlpiError as error:
        raise GlpiError(f"{error}; {MAKE_ROOM}") from error


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()
