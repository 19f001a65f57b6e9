"""Pictures that `glpi rank` and `glpi map` write: PNG files that say so, and replace no other."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from glpi_jax.core.errors import GlpiError

SOFTWARE = "glpi_jax"  # in the text chunk `Software`; photographs have another or none


def shrunk(pixels: np.ndarray, side: int) -> Image.Image:
    """A (height, width, 3) uint8 photograph, reduced if its longer side has more pixels."""
    height, width = pixels.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def png_of(image: Image.Image) -> bytes:
    """A PNG file that `is_own_picture` knows again."""
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()


def is_own_picture(path: Path) -> bool:
    """Whether a file is a picture that glpi has written."""
    if not path.is_file():  # opening a pipe would wait for its writer
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == SOFTWARE
    except Exception:  # as in decoding: Pillow raises nearly anything on damaged files
        return False


def check_picture_file(path: Path) -> Path:
    """Check that a picture may be written to a path, before the long work that makes it.

    Returns the path, or where it leads if it is a link; GlpiError if it replaces anything but a
    picture of glpi, or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise GlpiError(f"--out {path}: must end in .png")
    if not path.parent.is_dir():
        raise GlpiError(f"--out {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise GlpiError(f"--out {path}: this is a folder; name a file in it")
    # Most likely a photograph, as in `--out *.png`.
    if os.path.lexists(path) and not is_own_picture(path):
        raise GlpiError(
            f"--out {path}: exists, and is no picture of glpi; give another name or delete it"
        )
    target = path.resolve() if path.is_symlink() else path
    if not os.access(target.parent, os.W_OK):
        raise GlpiError(f"--out {path}: the folder {target.parent} cannot be written to")
    return target
