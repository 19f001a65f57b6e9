"""Make the weights that come with the package again, from data to weights.

    python benchmarks/shipped_weights.py --clive ChallengeDB_release --agiqa3k AGIQA-3K \\
        --photographs kodak lomiri-wallpapers mate-backgrounds --vit vit_s.safetensors \\
        --workdir runs/shipped

Three sources on one scale, 0 to 100, higher is better:

- CLIVE's training part (round 1, strict), as photographed and reduced to two smaller sizes, with
  its MOS;
- CLIVE's training part under KADID-10k's distortions as well, with its MOS times (d − 1)/3.8, where
  d is KADID-10k's mean score of the type and level: photographs with the grain and the faults of
  cameras, which must not gain when a codec or a blur smooths them;
- AGIQA-3K's training part (round 1, strict), with its quality MOS times 20;
- clean photographs untouched and under KADID-10k's 25 distortions, as if CLIVE's raters had given
  them a MOS of 78: nine of ten photographs of CLIVE's training part have less.

Validation parts of the two databases are watched, test parts are scored at the end. Kept out of
training altogether: the test scenes of the demonstration, and the five photographs of Kodak whose
distortion ladders the model card shows. `--vit` is what benchmarks/dinov2_from_onnx.py writes.

Where the photographs are from: Kodak's 24 (unrestricted use), Debian's packages lomiri-wallpapers
and mate-backgrounds, and the demonstration's scenes in scikit-image, scikit-learn and matplotlib.
"""

import argparse
import csv
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from configs import authentic  # noqa: E402 - found by the line above
from glpi_jax.core.files import staging_folder, write_json  # noqa: E402
from glpi_jax.core.pools import run_unordered  # noqa: E402
from glpi_jax.core.progress import progress_bar  # noqa: E402
from glpi_jax.data.demo_database import SCENES, photograph_path  # noqa: E402
from glpi_jax.data.images import decode_image, read_image  # noqa: E402
from glpi_jax.data.sources import Database  # noqa: E402
from glpi_jax.distortions import MEAN_DMOS, Distorter, seed_for  # noqa: E402
from glpi_jax.evaluation.protocols import make_split, open_databases  # noqa: E402
from glpi_jax.hub import Card, save_folder  # noqa: E402

UNSEEN_SCENES = ("admiral", "coins", "motorcycle")
# The ladders of the model card, by the SHA-256 of their pixels: Kodak's 3, 8, 13, 19 and 23.
LADDERS = {
    "234e61f585503f2a44400f5561131e8a512ef2c15328cd83d5cdbf10e2616cf2",
    "889c3740e4ed54ca53d11ae735a44d15fa24fe312b3bd1609a80618a4092c208",
    "875703d56fb9396f478b5d7d3b18e2b77c17147a685c6dc2567e1c574aaf01e3",
    "7956408ef24222d37ac53f579bd24d5b2c3557b16c657e8b71c1b6ae9f18de1b",
    "81992a83592267e69125666f3e3e04c1819529b4c4c1e55fde0a6a741bac4219",
}
CLIVE_SIDES = (None, 340, 280)  # of the copies, shorter side in pixels; None is the photograph
# Of a clean photograph, shorter side in pixels: one of the first with all types, the larger one
# with the ladder types alone, since training and scoring reduce it once more.
PHOTOGRAPH_SIDES, LARGER_SIDE = (320, 384, 448), 512
# At these sides with mild levels, over grain too faint to be seen: standard deviations of 255. A
# codec that smooths such grain away must not gain by it.
GRAINY_SIDES, GRAIN = (352, 416, 512, 576), (1.0, 4.0)
# Types whose five levels are all rendered: Gaussian blur, JPEG 2000, JPEG and white noise; of the
# others so many levels for each photograph.
LADDER_TYPES, OTHER_LEVELS = (1, 9, 10, 11), 2
# KADID-10k has no scores of its references; d, 1 to 5, is 4.61 for its mildest distortion.
UNTOUCHED_D = 4.8
# Of a clean photograph. A label far above what photographs of CLIVE score pulls at mild distortions
# as much as at the photograph itself, and the network does not learn to tell them apart.
CLEAN = 78.0
# Of each photograph of CLIVE's training part: two mild levels of blur, JPEG 2000 and JPEG, a strong
# one of any ladder, and levels of other types.
MILD_TYPES, MILD_LEVELS, CLIVE_OTHERS = (1, 9, 10), (1, 2, 3), 2
SMALLEST_SIDE = 300  # pixels: smaller pictures are no photographs to distort
AGIQA_SCALE = 20.0  # from 0 … 5 to 0 … 100
SEED = 0


CARD = Path(__file__).with_name("shipped_card.md")  # of the model card, with fields


class Item(NamedTuple):
    """A row of labels.csv, and the part that it belongs to."""

    image: str
    score: float
    reference: str
    source: str
    part: str


def pixels_sha256(image: np.ndarray) -> str:
    """Return the digest of an image's pixels, whatever file they came in."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image until its shorter side has so many pixels; smaller ones stay as they are."""
    height, width = image.shape[:2]
    factor = side / min(height, width)
    if factor >= 1:
        return image
    size = (max(side, round(width * factor)), max(side, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def database_items(
    name: str, root: Path, folder: Path, sides: tuple[int | None, ...], scale: float
) -> Iterator[Item]:
    """Copy a labelled database into the folder, its training part at several sizes."""
    config = authentic.get_config(name)
    config.data.root = str(root)
    source, _ = open_databases(config)
    split = make_split(config, source)
    for part in ("train", "validation", "test"):
        for row in getattr(split, part):
            yield from _copies(name, source, row, folder, sides, scale, part)


def _copies(
    name: str,
    source: Database,
    row: int,
    folder: Path,
    sides: tuple[int | None, ...],
    scale: float,
    part: str,
) -> Iterator[Item]:
    encoded = source.encoded(row)
    path = source.path(row)
    score, reference = scale * float(source.scores[row]), f"{name}/{path.stem}"
    for side in sides if part == "train" else sides[:1]:
        if side is None:
            image = f"images/{name}_{path.name}"
            (folder / image).write_bytes(encoded)
        else:
            image = f"images/{name}_{path.stem}_{side}.png"
            pixels = decode_image(encoded, str(path), apply_orientation=False)
            Image.fromarray(shrink(pixels, side)).save(folder / image, compress_level=1)
        yield Item(image, score, reference, name, part)


def distort_labelled(folder: Path, item: Item) -> list[Item]:
    """Write a labelled photograph under some distortions, with its score times theirs."""
    pixels = read_image(folder / item.image, apply_orientation=False)
    rng = random.Random(f"{SEED} {item.reference}")
    levels = {number: rng.sample(MILD_LEVELS, 2) for number in MILD_TYPES}
    levels.setdefault(rng.choice(LADDER_TYPES), []).append(rng.choice((4, 5)))
    others = sorted(set(MEAN_DMOS) - set(LADDER_TYPES))
    levels |= {number: [rng.randint(1, 5)] for number in rng.sample(others, CLIVE_OTHERS)}
    name = item.reference.replace("/", "_")
    return _distorted(folder, item.reference, name, pixels, levels, item.part, item.score)


def clean_photographs(folders: list[Path]) -> dict[str, Path]:
    """Return the photographs to distort by name: of the folders, and of the demonstration."""
    found = {f"scene_{name}": photograph_path(name) for name in SCENES}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.is_file():
                found[f"{folder.name}_{path.stem}"] = path
    return found


def distort_photograph(folder: Path, name: str, path: Path) -> list[Item]:
    """Write a photograph untouched and under every type, and return their rows.

    A ladder's photograph gives no row, a flat or small picture neither.
    """
    pixels = read_image(path, apply_orientation=True)
    held_out = pixels_sha256(pixels) in LADDERS
    if held_out or min(pixels.shape[:2]) < SMALLEST_SIDE or _is_drawn(pixels):
        return []
    rng = random.Random(f"{SEED} {name}")
    test = name.removeprefix("scene_") in UNSEEN_SCENES
    levels = {
        number: list(range(1, 6))
        if test or number in LADDER_TYPES
        else rng.sample(range(1, 6), OTHER_LEVELS)
        for number in MEAN_DMOS
    }
    part = "test" if test else "train"
    items = _distort(folder, name, name, shrink(pixels, rng.choice(PHOTOGRAPH_SIDES)), levels, part)
    if test:
        return items
    if min(pixels.shape[:2]) >= LARGER_SIDE:
        ladders = {number: chosen for number, chosen in levels.items() if number in LADDER_TYPES}
        larger = shrink(pixels, LARGER_SIDE)
        items += _distort(folder, name, f"{name}_{LARGER_SIDE}", larger, ladders, part)
    return items + grainy_copies(folder, name, pixels)


def grainy_copies(folder: Path, name: str, pixels: np.ndarray) -> list[Item]:
    """Write a clean photograph at some sizes, with faint grain, at mild levels."""
    items = []
    mild = {number: list(MILD_LEVELS) for number in MILD_TYPES}
    for side in GRAINY_SIDES:
        if side <= min(pixels.shape[:2]):
            copy = _with_grain(shrink(pixels, side), seed_for(name, 0, side, SEED))
            items += _distort(folder, name, f"{name}_grain_{side}", copy, mild, "train")
    return items


def _with_grain(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add grain of a drawn strength, the same to each channel."""
    grain = rng.uniform(*GRAIN) * rng.standard_normal((*pixels.shape[:2], 1))
    return np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8)


def _distort(
    folder: Path,
    reference: str,
    name: str,
    pixels: np.ndarray,
    levels: dict[int, list[int]],
    part: str,
) -> list[Item]:
    """Write one size of a photograph untouched and at these levels of each type."""
    untouched = Item(f"images/{name}.png", CLEAN, reference, "kadid", part)
    Image.fromarray(pixels).save(folder / untouched.image, compress_level=1)
    return [untouched, *_distorted(folder, reference, name, pixels, levels, part, CLEAN)]


def _distorted(
    folder: Path,
    reference: str,
    name: str,
    pixels: np.ndarray,
    levels: dict[int, list[int]],
    part: str,
    untouched: float,
) -> list[Item]:
    """Write these levels of each type, scored by KADID-10k relative to the untouched score."""
    items = []
    distorter = Distorter(pixels)
    for number, chosen in levels.items():
        seeds = [seed_for(name, number, level, SEED) for level in range(1, 6)]
        for level, distorted in enumerate(distorter.distort_levels(number, seeds), 1):
            if level in chosen:
                image = f"images/{name}_{number:02d}_{level}.png"
                Image.fromarray(distorted).save(folder / image, compress_level=1)
                score = untouched * (MEAN_DMOS[number][level - 1] - 1) / (UNTOUCHED_D - 1)
                items.append(Item(image, score, reference, "kadid", part))
    return items


def _is_drawn(pixels: np.ndarray) -> bool:
    """Tell a drawing from a photograph: much of it is exactly flat."""
    small = pixels.astype(np.int16)
    flat = (np.abs(np.diff(small, axis=1)).sum(-1) == 0).mean()
    return bool(flat > 0.3)


def _distort_all(
    distort: Callable[..., list[Item]], tasks: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[Item]:
    """Yield the rows of all photographs, with their progress."""
    with progress_bar(len(tasks), unit="photograph", description="distort") as bar:
        for made in run_unordered(distort, tasks, processes, what="distorting"):
            yield from made
            bar.advance(1)


def render(args: argparse.Namespace, folder: Path) -> None:
    """Write the folder with labels.csv and the lists of its parts, or find it there."""
    if folder.is_dir():
        return
    with staging_folder(folder) as staging:
        (staging / "images").mkdir()
        items = list(database_items("clive", args.clive, staging, CLIVE_SIDES, 1.0))
        as_taken = {item.reference: item for item in reversed(items) if item.part == "train"}
        labelled = [(staging, item) for item in as_taken.values()]
        items += database_items("agiqa3k", args.agiqa3k, staging, (None,), AGIQA_SCALE)
        photographs = clean_photographs(args.photographs)
        clean = [(staging, name, path) for name, path in photographs.items()]
        items += _distort_all(distort_labelled, labelled, args.processes)
        items += _distort_all(distort_photograph, clean, args.processes)
        items.sort()
        with (staging / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "score", "reference", "distortion"])
            writer.writerows([i.image, round(i.score, 4), i.reference, i.source] for i in items)
        (staging / "lists").mkdir()
        for part in ("train", "validation", "test"):
            names = [item.image for item in items if item.part == part]
            (staging / "lists" / f"{part}.txt").write_text("\n".join(names) + "\n")
        write_json(
            staging / "database.json",
            {
                "name": "shipped",
                "score_name": "MOS",
                "higher_is_better": True,
                "label_note": (
                    "the MOS of CLIVE (0 to 100), the quality MOS of AGIQA-3K times 20; under"
                    " KADID-10k's distortions MOS·(d − 1)/3.8 with KADID-10k's mean score d of the"
                    " type and level, where a clean photograph counts as 78"
                ),
            },
        )
        staging.replace(folder)


def card_of(run: Path, notice: str) -> Card:
    """Return the model card, with the run's figures of each source."""
    results = json.loads((run / "results.json").read_text())
    by_source = results["parts"]["test"]["by_distortion"]
    figures = {
        name: f"SROCC {by_source[name]['srocc']:.3f}, PLCC {by_source[name]['plcc']:.3f}"
        for name in ("clive", "agiqa3k", "kadid")
    }
    text = CARD.read_text(encoding="utf-8").format(
        scenes=", ".join(UNSEEN_SCENES), notice=notice, **figures
    )
    return Card(
        title="The weights that come with glpi_jax",
        license="other",
        text=text,
        score_range=(0, 100),
    )


def copyright_notice(clive: Path) -> str:
    """Return CLIVE's notice, which has to go with what is made from it, as a Markdown quote."""
    lines = (clive / "README.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("Copyright (c)"))
    last = next(i for i, line in enumerate(lines) if "NOTICE ENDS" in line)
    return "\n".join(f"> {line.strip()}".rstrip() for line in lines[first:last])


def main() -> None:
    """Make the training set, train, and write the hub folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clive", type=Path, required=True, help="folder of CLIVE")
    parser.add_argument("--agiqa3k", type=Path, required=True, help="folder of AGIQA-3K")
    parser.add_argument(
        "--photographs", type=Path, nargs="+", required=True, help="folders of clean photographs"
    )
    parser.add_argument("--vit", type=Path, required=True, help="DINOv2 ViT-S, .safetensors")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of data and run")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "glpi_jax/hub/shipped", help="hub folder to write"
    )
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--data-only", action="store_true", help="stop when the data is there")
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    data = args.workdir / "data"
    render(args, data)
    if args.data_only:
        return
    train = ["train", "--config", "configs/shipped.py", "--workdir", str(args.workdir / "run")]
    train += [f"--config.data.root={data}", f"--config.split.name={data / 'lists'}"]
    train += [f"--config.model.pretrained.vit={args.vit}"]
    subprocess.run([sys.executable, "-m", "glpi_jax", *train], cwd=ROOT, check=True)
    card = card_of(args.workdir / "run", copyright_notice(args.clive))
    save_folder(args.workdir / "run", args.out, card, force=True, weights="int8")


if __name__ == "__main__":
    main()
