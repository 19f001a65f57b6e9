"""What pages are made from: the templates, and pictures embedded in them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from glpi_jax.core.templates import template_environment
from glpi_jax.data.images import ImageError, read_image
from glpi_jax.report import plots
from glpi_jax.report.tables import number, spread_text

TEMPLATES = template_environment("glpi_jax.report", number=number, spread_text=spread_text)
_THUMBNAIL_PIXELS = 280
_JPEG_QUALITY = 82


class Plot(NamedTuple):
    """A plot in its light and its dark version, data URIs."""

    light: str
    dark: str


def embed_plot(draw: Callable[[plots.Theme], bytes]) -> Plot:
    """Draw both versions of a plot."""
    return Plot(*(_data_uri("png", draw(theme)) for theme in (plots.LIGHT, plots.DARK)))


class Thumbnail(NamedTuple):
    """A small JPEG of an image: a data URI, its size in pixels, the file's name."""

    source: str
    width: int
    height: int
    name: str


def embed_thumbnail(path: Path, *, apply_orientation: bool) -> Thumbnail | None:
    """Make an image small; None if there is no such image, or it cannot be read.

    Args:
        path: of the image.
        apply_orientation: turn it as EXIF says, as it was for the model.
    """
    try:
        image = Image.fromarray(read_image(path, apply_orientation=apply_orientation))
    except ImageError:
        return None
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Thumbnail(_data_uri("jpeg", buffer.getvalue()), *image.size, path.name)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
