"""A small database on disk, shared by the tests of the data package."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glpi_jax.data.sources import Database, load_database


@pytest.fixture
def small_database(tmp_path: Path) -> Database:
    """Six contents of two images each, 40×48; every pixel of an image tells its row (red)."""
    folder = tmp_path / "small"
    folder.mkdir()
    lines = ["image,score,reference,distortion,level"]
    for row in range(12):
        rng = np.random.default_rng(row)
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        pixels[..., 0] = row
        Image.fromarray(pixels).save(folder / f"{row:02d}.png")
        lines.append(f"{row:02d}.png,{row / 2},scene{row // 2},noise,{row % 2 + 1}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return load_database("csv", folder)
