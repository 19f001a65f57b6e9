"""One photograph under all types and levels, encoded and written: what a rendering process does."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
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
from glpi_jax.distortions import (
    TOTAL_VARIATION,
    Denoiser,
    Distorter,
    find_distortion,
    seed_for,
)
from glpi_jax.saqt.rendered import LeftOut, Record, SourcePhotograph, variant_name

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

    @property
    def images_per_photograph(self) -> int:
        """Types times levels."""
        return len(self.types) * len(self.levels)


def denoiser_of(settings: RenderSettings) -> Denoiser:
    """What type 15 removes its noise with.

    Raises:
        GlpiError: weights that cannot be used.
    """
    return TOTAL_VARIATION if settings.dncnn is None else _dncnn(settings.dncnn)


@cache
def _dncnn(weights: Path) -> Denoiser:
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
    source_bytes, source_sha256 = len(content), _sha256(content)
    del content  # a large photograph's file is large too
    height, width, _ = pixels.shape
    reason = why_unusable(path, width, height, settings.types, settings.format_name)
    if reason:
        return LeftOut(photograph.prefix, reason)
    images = {}
    try:
        for number, level, image in _distorted(pixels, path.name, settings):
            check_stopped()
            encoded = encode(image, settings.format_name)
            _write(out / variant_name(photograph.prefix, number, level, settings.suffix), encoded)
            images[f"{number:02d}_{level:02d}"] = (len(encoded), _sha256(encoded))
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


def why_unusable(
    path: Path, width: int, height: int, types: Sequence[int], format_name: str
) -> str | None:
    """What is wrong with the size of a photograph, None if nothing is."""
    for number in types:
        distortion = find_distortion(number)
        if min(width, height) < distortion.min_side:
            return (
                f"{path}: {width}x{height} pixels, but type {number} {distortion.name} needs"
                f" {distortion.min_side} a side; take a larger photograph or leave the type out"
                " (--types)"
            )
    if format_name == "webp" and max(width, height) > _WEBP_LONGEST_SIDE:
        return (
            f"{path}: {width}x{height} pixels, but WebP ends at {_WEBP_LONGEST_SIDE} a side; render"
            " as png"
        )
    return None


def _distorted(
    pixels: NDArray[np.uint8], name: str, settings: RenderSettings
) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield type, level and image."""
    distorter = Distorter(pixels, denoiser_of(settings))
    for number in settings.types:
        rngs = {level: seed_for(name, number, level, settings.seed) for level in settings.levels}
        for level, image in distorter.each_level(number, rngs):
            yield number, level, image


def encode(image: NDArray[np.uint8], format_name: str) -> bytes:
    """An image (H, W, 3), uint8, as a file of one of `FORMATS`, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format_name, **FORMATS[format_name])
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except GlpiError as error:
        raise GlpiError(
            f"{error}; make room, and the same command resumes where it stopped"
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
