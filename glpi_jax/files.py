"""Text and JSON files that are replaced in one step."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from glpi_jax.errors import GlpiError


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as `write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a text file so that readers see the old content or the new, never a part.

    Raises:
        GlpiError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # surrogateescape: a file name in the text need not be valid UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise GlpiError(f"{path}: cannot be written ({error.strerror})") from error
