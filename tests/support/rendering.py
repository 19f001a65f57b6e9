"""For tests of rendered folders: small photographs, and a short way to render them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glpi_jax.data.images import read_image
from glpi_jax.distortions import distort, seed_for
from glpi_jax.saqt.render import Rendered, render_photographs
from glpi_jax.saqt.render_photograph import RenderSettings
from glpi_jax.saqt.selection import Selection, select_all

SETTINGS = RenderSettings(
    types=(1, 11),
    levels=(1, 4),
    seed=7,
    dncnn=None,
    format_name="png",
    arrayrecord=False,
    apply_orientation=False,
)
NAMES = ("ash.png", "birch.at.dawn.png", "cedar.png", "elm.png", "fir.png")


def photograph(seed: int, width: int = 60, height: int = 50) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))


def render(selection: Selection | Path, out: Path, **changes: Any) -> Rendered:
    options: dict[str, Any] = {
        "shard": (1, 1),
        "processes": 1,
        "skip_bad": False,
        "progress": False,
    }
    options |= {key: changes.pop(key) for key in [*changes] if key in options}
    if isinstance(selection, Path):
        selection = select_all(selection)
    return render_photographs(selection, out, replace(SETTINGS, **changes), **options)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(path: Path) -> np.ndarray:
    return read_image(path, apply_orientation=False)


def expected(path: Path, kind: int, level: int, **options: Any) -> np.ndarray:
    return distort(read(path), kind, level, rng=seed_for(path.name, kind, level, 7), **options)
