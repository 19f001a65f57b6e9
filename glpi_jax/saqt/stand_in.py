"""Stand-ins for what SAQT downloads, so that its steps can be tried without: no result is real.

KADID-10k is 4 GB and torchvision's ResNet-101 is on a server. Here are a folder with KADID-10k's
layout and a file with the ResNet's names, made from nothing but installed packages.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from glpi_jax.core.files import write_bytes, write_text
from glpi_jax.data.demo_database import photograph_path
from glpi_jax.data.images import read_image
from glpi_jax.distortions.kadid_scores import MEAN_DMOS
from glpi_jax.weights.backbones import torchvision_shapes

SIZE = (512, 384)  # width and height of KADID-10k's images


def write_stand_in_references(folder: Path, scenes: Sequence[str]) -> Path:
    """Write `images/I01.png` … and `dmos.csv`, laid out as KADID-10k is; returns the folder.

    The references are the demo's photographs, 512 × 384 pixels as KADID-10k's are. Each has
    KADID-10k's mean score of every type and level over its own 81 references, so that photographs
    get the same labels whichever reference they are matched with. No distorted images are written.

    Args:
        folder: made if it is missing; files of these names are replaced.
        scenes: keys of `glpi_jax.data.demo_database.SCENES`.

    Raises:
        GlpiError: a photograph's package is missing, or nothing can be written.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["dist_img", "ref_img", "dmos", "var"])
    for number, scene in enumerate(scenes, start=1):
        name = f"I{number:02d}"
        pixels = read_image(photograph_path(scene), apply_orientation=True)
        content = io.BytesIO()
        Image.fromarray(pixels).resize(SIZE, Image.Resampling.LANCZOS).save(content, "PNG")
        write_bytes(folder / "images" / f"{name}.png", content.getvalue())
        for kind, scores in MEAN_DMOS.items():
            for level, score in enumerate(scores, start=1):
                rows.writerow([f"{name}_{kind:02d}_{level:02d}.png", f"{name}.png", score, 0])
    write_text(folder / "dmos.csv", text.getvalue())
    return folder


def write_random_resnet(path: Path, *, name: str = "resnet101", seed: int = 0) -> Path:
    """Write random weights with torchvision's names and shapes, and return the path.

    They know nothing of photographs. Cosines between their vectors follow colour and contrast more
    than what is in a picture.

    Args:
        path: a .safetensors file, replaced in one step.
        name: key of `glpi_jax.weights.backbones.RESNETS`.
        seed: of the weights.

    Raises:
        GlpiError: the file cannot be written.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for entry, shape in torchvision_shapes(name).items():
        if len(shape) == 4:  # He initialisation
            scale = np.sqrt(2 / np.prod(shape[1:]), dtype=np.float32)
            arrays[entry] = rng.standard_normal(shape, np.float32) * scale
        elif entry.endswith(("running_var", "weight")) and len(shape) == 1:
            # The last norm of a block small, or vectors would grow with each of its 33 blocks.
            value = 0.2 if entry.endswith("bn3.weight") else 1.0
            arrays[entry] = np.full(shape, value, np.float32)
        else:
            arrays[entry] = np.zeros(shape, np.float32)
    write_bytes(path, save(arrays))
    return path
