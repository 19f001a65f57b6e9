"""Pictures that `glpi rank` and `glpi map` write: PNG files that say so, and replace no other."""

import io
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE = "glpi_jax"  # in the text chunk `Software`; photographs have another or none


def png_of(image: Image.Image) -> bytes:
    """A PNG file that `is_own_picture` knows again."""
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()


def is_own_picture(path: Path) -> bool:
    """Whether a file is a picture that glpi has written."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return False
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == SOFTWARE
    except Exception:  # as in decoding: Pillow raises nearly anything on damaged files
        return False
