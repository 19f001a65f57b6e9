"""`manifest.json` of a folder that `glpi saqt render` makes: settings, photographs and versions."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glpi_jax.core.config import flatten
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import read_json_object

MANIFEST = "manifest.json"
FORMAT = 1


def is_rendered(folder: str) -> bool:
    """Whether `glpi saqt render` has made a folder, or begun to: its images are no photographs."""
    try:
        read_manifest(Path(folder))
    except GlpiError:
        return False
    return True


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a rendered folder, with what checking it needs.

    Raises:
        GlpiError: none is there, or a damaged one, or one of another version's form.
    """
    path = out / MANIFEST
    if not os.path.isfile(path):  # Path.is_file raises where a folder is locked
        raise GlpiError(f"{path}: no such file; {out} was not made by glpi saqt render")
    manifest = read_json_object(path)
    if manifest.get("format") != FORMAT:
        raise GlpiError(f"{path}: not a manifest of this version's form (format {FORMAT})")
    values = flatten(manifest)
    for key, is_valid in _CHECKED_KEYS.items():
        if not is_valid(values.get(key)):
            raise GlpiError(
                f"{path}: damaged ({key} is {shown(values.get(key))}); restore it, or render into a"
                " new folder"
            )
    return manifest


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, int) for number in value)


_CHECKED_KEYS: dict[str, Callable[[Any], bool]] = {
    "settings.types": _are_numbers,
    "settings.levels": _are_numbers,
    "settings.image_format.name": lambda value: isinstance(value, str),
    "photographs.count": lambda value: isinstance(value, int),
}


def shown(value: Any) -> str:
    """A manifest's value for messages."""
    return json.dumps(value) if value is not None else "missing"
