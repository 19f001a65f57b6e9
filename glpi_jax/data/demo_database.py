"""The demonstration database: real photographs from installed packages, distorted and labelled.

The photographs ship with scikit-image, scikit-learn and matplotlib, so nothing is downloaded. They
are cut into tiles, distorted as KADID-10k was, and labelled with KADID-10k's mean human score of
the same distortion type and level. The result is a "csv" database (`load_database("csv", folder)`)
whose references are the scenes, so that a split by reference never shows one scene in two parts.
"""

import csv
import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import staging_folder, write_json
from glpi_jax.core.pools import run_unordered
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.images import read_image
from glpi_jax.data.sources import load_database
from glpi_jax.distortions import LEVELS, MEAN_DMOS, Distorter, find_distortion, seed_for

LABEL_NOTE = (
    "KADID-10k's mean human score for each distortion type and level, averaged over the 81 pictures"
    " of KADID-10k (1 to 5, higher is better). Nobody rated the training pictures themselves: a"
    " label says nothing about how the content of its picture hides or shows the distortion."
)

# To be raised whenever the same settings would give other images or labels.
_RENDER_VERSION = 4
_PHOTOGRAPH_SIDE = 640  # longer side in pixels before cutting, at most
_MAX_SHORT_SIDE, _MAX_LONG_SIDE = 384, 512
_SMALL_SIDES = (384, 288, 216)  # longer sides of the reduced photographs


@dataclass(frozen=True)
class PackagePhotograph:
    """A photograph inside an installed package, and whom it is from.

    A grey one is distorted only by types that do not work on colour, which would leave it as it is.
    """

    package: str
    distribution: str
    file: str
    credit: str
    grey: bool = False


def _skimage(file: str, credit: str, *, grey: bool = False) -> PackagePhotograph:
    return PackagePhotograph("skimage", "scikit-image", f"data/{file}", credit, grey)


def _sklearn(file: str, credit: str) -> PackagePhotograph:
    return PackagePhotograph("sklearn", "scikit-learn", f"datasets/images/{file}", credit)


# The photographs of the three packages, one of each scene. Left out are medical pictures (ihc,
# retina), and those that are blurred or low in contrast as they come (moon, clock_motion, cell).
SCENES: dict[str, PackagePhotograph] = {
    "astronaut": _skimage("astronaut.png", "NASA, public domain"),
    "cat": _skimage("chelsea.png", "Stefan van der Walt, CC0"),
    "coffee": _skimage("coffee.png", "Rachel Michetti, CC0"),
    "rocket": _skimage("rocket.jpg", "SpaceX, public domain"),
    "motorcycle": _skimage(
        "motorcycle_left.png", "Middlebury stereo data 2014 (D. Scharstein et al.)"
    ),
    "hubble": _skimage("hubble_deep_field.jpg", "NASA, public domain"),
    "pagoda": _sklearn("china.jpg", "danielbuechele (Flickr), CC BY 2.0"),
    "flower": _sklearn("flower.jpg", "vultilion (Flickr), CC BY 2.0"),
    "admiral": PackagePhotograph(
        "matplotlib",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "James S. Davis, US Navy, public domain",
    ),
    "cameraman": _skimage("camera.png", "Lav Varshney, CC0", grey=True),
    "brick": _skimage("brick.png", "CC0 Textures, CC0", grey=True),
    "grass": _skimage("grass.png", "linolafett (DeviantArt), CC0", grey=True),
    "gravel": _skimage("gravel.png", "CC0 Textures, CC0", grey=True),
    "coins": _skimage("coins.png", "Brooklyn Museum Collection", grey=True),
}

# KADID types that change nothing but colour.
_COLOUR_TYPES = frozenset({4, 5, 7, 8})


def render_demo_database(
    folder: str | os.PathLike[str],
    *,
    types: Sequence[int],
    seed: int,
    processes: int,
    progress: bool,
    scenes: Sequence[str] = tuple(SCENES),
) -> Path:
    """Render the demonstration database into a folder, or find it there finished.

    Four tiles of each scene are distorted by each type at each level (grey photographs by no type
    that works on colour): `images/` holds them with `labels.csv` and `database.json`, `references/`
    the untouched tiles, which carry no label, and `manifest.json` the settings, versions and
    photographs that made them. Each image depends on the seed and its own name, type and level
    alone. The folder appears when all of it is done.

    Args:
        folder: where the database goes; must not exist, be empty, or hold the same database.
        types: KADID type numbers.
        seed: of the random distortions.
        processes: how many render side by side; with more than one, a script that calls this needs
            the `if __name__ == "__main__":` guard.
        progress: show progress on stderr.
        scenes: keys of `SCENES`; all of them unless given.

    Returns:
        the folder.

    Raises:
        GlpiError: a package with photographs is missing, an unknown scene or type, a folder that
            holds something else, or a rendering process that died.
    """
    target = Path(folder)
    _check_settings(scenes, types, processes)
    manifest = _manifest(scenes, types, seed)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        _check_finished(target, manifest)
        return target

    with staging_folder(target) as staging:
        tiles = _write_tiles(staging, scenes, types)
        _render(staging, tiles, seed, processes, progress)
        _write_labels(staging, tiles)
        write_json(staging / "manifest.json", manifest)
        try:
            os.replace(staging, target)
        except OSError:
            if not target.is_dir():
                raise
            # Another process finished the same folder in the meantime.
            _check_finished(target, manifest)
    return target


def cut_tiles(photograph: np.ndarray) -> list[np.ndarray]:
    """Cut the centre out of a photograph, and reduce the whole of it to three smaller sizes.

    The sizes show the same scene with structure of other finenesses, which matters more for what
    the model learns than further cuts at one size.

    Args:
        photograph: (height, width, 3) uint8; brought to 640 pixels on the longer side if larger.

    Returns:
        four arrays: at most 384 × 512 pixels of the centre, then the whole photograph with 384,
        288 and 216 pixels on the longer side.
    """
    longer = max(photograph.shape[:2])
    full = _reduce(photograph, _PHOTOGRAPH_SIDE) if longer > _PHOTOGRAPH_SIDE else photograph
    height, width = full.shape[:2]
    limits = (_MAX_SHORT_SIDE, _MAX_LONG_SIDE)
    max_height, max_width = limits if height <= width else limits[::-1]
    top, left = max(height - max_height, 0) // 2, max(width - max_width, 0) // 2
    centre = full[top : top + max_height, left : left + max_width]
    return [centre, *(_reduce(photograph, side) for side in _SMALL_SIDES)]


def _reduce(image: np.ndarray, longer_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    factor = longer_side / max(height, width)
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def photograph_path(scene: str) -> Path:
    """Where a scene's photograph lies on this machine; its package is not imported.

    A package that is not installed, or does not hold the photograph, is a GlpiError.
    """
    photograph = SCENES[scene]
    spec = importlib.util.find_spec(photograph.package)
    if spec is None or not spec.submodule_search_locations:
        raise GlpiError(
            f"the demo's photograph {scene!r} comes with {photograph.distribution}, which is not"
            " installed; run: pip install 'glpi_jax[demo]'"
        )
    path = Path(spec.submodule_search_locations[0], photograph.file)
    if not path.is_file():
        raise GlpiError(
            f"{path}: {photograph.distribution} {version(photograph.distribution)} does not hold"
            f" this photograph; run: pip install --force-reinstall {photograph.distribution}"
        )
    return path


def _check_settings(scenes: Sequence[str], types: Sequence[int], processes: int) -> None:
    for scene in scenes:
        if scene not in SCENES:
            raise GlpiError(f"unknown scene {scene!r}: must be one of {', '.join(SCENES)}")
    for number in types:
        name = find_distortion(number).name
        if number not in MEAN_DMOS:
            raise GlpiError(f"distortion {name}: KADID-10k has no scores of it")
    for what, values in (("scenes", scenes), ("types", types)):
        if not values or len(set(values)) != len(values):
            raise GlpiError(f"{what} {list(values)}: must name at least one, and none twice")
    if processes < 1:
        raise GlpiError(f"processes {processes}: must be at least 1")


def _manifest(scenes: Sequence[str], types: Sequence[int], seed: int) -> dict[str, Any]:
    """All that the images depend on."""
    return {
        "render_version": _RENDER_VERSION,
        "settings": {"scenes": list(scenes), "types": list(types), "seed": seed},
        "versions": {name: version(name) for name in ("numpy", "pillow", "scipy")},
        "photographs": {
            scene: {
                "file": Path(SCENES[scene].file).name,
                "from": SCENES[scene].distribution,
                "credit": SCENES[scene].credit,
                "sha256": hashlib.sha256(photograph_path(scene).read_bytes()).hexdigest(),
            }
            for scene in scenes
        },
    }


def _check_finished(folder: Path, manifest: dict[str, Any]) -> None:
    """Accept a folder that holds exactly the database that would be rendered."""
    remedy = "delete it or give another folder"
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise GlpiError(f"{folder}: not a rendered demo database; {remedy}") from None
    for key, value in manifest.items():
        if not isinstance(found, dict) or found.get(key) != value:
            raise GlpiError(
                f"{folder}: this demo database was rendered with other {key.replace('_', ' ')}"
                f" (see its manifest.json); {remedy}"
            )
    try:
        load_database("csv", folder)
    except GlpiError as error:
        raise GlpiError(f"{folder}: this demo database is damaged; {remedy} ({error})") from error


def _write_tiles(
    folder: Path, scenes: Sequence[str], types: Sequence[int]
) -> dict[str, tuple[str, list[int]]]:
    """Write the untouched tiles to references/; return {tile name: (scene, types that it gets)}."""
    (folder / "references").mkdir()
    tiles = {}
    for scene in scenes:
        numbers = [n for n in types if not (SCENES[scene].grey and n in _COLOUR_TYPES)]
        photograph = read_image(photograph_path(scene), apply_orientation=True)
        for number, tile in enumerate(cut_tiles(photograph), start=1):
            name = f"{scene}_{number}"
            _save(tile, folder / "references" / f"{name}.png")
            tiles[name] = scene, numbers
    return tiles


def _render(
    folder: Path, tiles: dict[str, tuple[str, list[int]]], seed: int, processes: int, progress: bool
) -> None:
    (folder / "images").mkdir()
    tasks = [(folder, tile, numbers, seed) for tile, (_, numbers) in tiles.items()]
    images = len(LEVELS) * sum(len(numbers) for _, numbers in tiles.values())
    with progress_bar(images, unit="image", description="render demo", enabled=progress) as bar:
        for count in run_unordered(_render_tile, tasks, processes, what="rendering"):
            bar.advance(count)


def _render_tile(folder: Path, tile: str, numbers: Sequence[int], seed: int) -> int:
    """Render one tile under types at every level; return how many images that makes."""
    image = read_image(folder / "references" / f"{tile}.png", apply_orientation=False)
    distorter = Distorter(image)
    for number in numbers:
        rngs = [seed_for(tile, number, level, seed) for level in LEVELS]
        for level, pixels in enumerate(distorter.distort_levels(number, rngs), start=1):
            _save(pixels, folder / _image_name(tile, number, level))
    return len(numbers) * len(LEVELS)


def _write_labels(folder: Path, tiles: dict[str, tuple[str, list[int]]]) -> None:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "score", "reference", "distortion", "level"])
        for tile, (scene, numbers) in tiles.items():
            for number in numbers:
                name = find_distortion(number).name
                for level, score in zip(LEVELS, MEAN_DMOS[number], strict=True):
                    image = _image_name(tile, number, level)
                    writer.writerow([image, score, scene, name, level])
    description = {
        "name": "demo",
        "score_name": "DMOS",
        "higher_is_better": True,
        "label_note": LABEL_NOTE,
    }
    write_json(folder / "database.json", description)


def _image_name(tile: str, number: int, level: int) -> str:
    return f"images/{tile}_{number:02d}_{level}.png"


def _save(image: np.ndarray, path: Path) -> None:
    # Level 1 is several times faster to write than Pillow's 6 and hardly larger on photographs.
    Image.fromarray(image).save(path, compress_level=1)
