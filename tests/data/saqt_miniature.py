"""A few drawn photographs with the label table of SAQT, and the set that rendering them gives."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from glpi_jax.distortions import distort, seed_for
from glpi_jax.saqt.labels import Columns, Match, photograph_prefix, write_label_tables


def build_photographs(
    folder: Path, *, photographs: int, columns: Columns = "new", size: tuple[int, int] = (52, 48)
) -> Path:
    """Write `photographs/` and `labels/` into a new folder, and return it; sizes are in pixels.

    Their names do not come in the order of the table.
    """
    (folder / "photographs").mkdir(parents=True)
    matches = []
    for number in range(photographs):
        rng = np.random.default_rng(number)
        blocks = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        name = f"photo{photographs - number}{('.png', '.bmp')[number % 2]}"
        blocks.resize(size).save(folder / "photographs" / name)
        matches.append(Match(name, (f"I{number + 1:02d}.png",), (0.5,)))
    levels = np.arange(5, 0, -1) + np.arange(25)[:, None] / 100
    labels = levels + np.arange(photographs)[:, None, None] / 10
    write_label_tables(matches, labels, folder / "labels", columns=columns)
    return folder


def build_rendered(folder: Path, source: Path, *, seed: int) -> Path:
    """The images of `build_photographs` as a csv database in a new folder, which is returned."""
    with (source / "labels/labels_001.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    lines = ["image,score,reference,distortion,level"]
    for row in labels:
        name = row["source_image"]
        kind, level = int(row["distortion_type"]), int(row["distortion_level"])
        with Image.open(source / "photographs" / name) as photograph:
            pixels = np.asarray(photograph)
        made = distort(pixels, kind, level, rng=seed_for(name, kind, level, seed))
        image = row["distorted_image"]
        assert image == f"{photograph_prefix(name, 0)}_{kind:02d}_{level:02d}.bmp"
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made).save(folder / image)
        lines.append(f"{image},{row['quality_score']},{name},type{kind},{level}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder
