"""Does pretraining on distorted photographs help where few labelled images are? SAQT in miniature.

    python benchmarks/saqt_transfer.py [--folder FOLDER] [--json FILE] [--seeds N]

For each seed the demo's scenes are dealt out anew, so that no scene plays two parts:

- Five in colour give 25 photographs for SAQT pretraining on the fly (all 25 distortion types, five
  levels). Their labels are KADID-10k's mean scores by type and level (`MEAN_DMOS`), as if every
  photograph had been matched with a reference that has just these.
- Two in colour are the labelled set to fine-tune on: four sizes, twelve types, five levels. One in
  grey selects the epoch; two in colour and one in grey are tested on.

`glpi_demo` is trained on the labelled set twice, with the same seed, order, crops, rates and number
of steps: from random weights, and from the pretrained ones. What differs is the start alone; the
pretraining's own steps come on top. The table has the SROCC on the test scenes, and its median.

The labels of both sets are means by type and level over other pictures, as in the demo: pretraining
can show what distortions look like on more scenes, but nothing here measures the matching of
photographs with references, and all of it is far smaller than the method's own experiments.

About twelve minutes on one core; another number of cores rounds otherwise and gives other figures.
A run that was killed resumes where it stopped in the same folder.
"""

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.files import write_json
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.demo_database import SCENES, photograph_path, render_demo_database
from glpi_jax.data.images import read_image
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.splits import Split, check_split, write_split
from glpi_jax.distortions import MEAN_DMOS
from glpi_jax.results.workdirs import RESULTS_FILE
from glpi_jax.saqt.labels import Match, write_label_tables
from glpi_jax.workflow.runs import train_run

COLOUR = tuple(scene for scene, photograph in SCENES.items() if not photograph.grey)
GREY = tuple(scene for scene, photograph in SCENES.items() if photograph.grey)
# Of the labelled set: at least one from each of KADID's seven groups, which keeps it small.
TYPES = (1, 2, 3, 4, 8, 9, 10, 11, 13, 16, 19, 24)
PRETRAINING, FINE_TUNING, TEST_COLOUR, VALIDATION, TEST_GREY = 5, 2, 2, 1, 1
SIDE = 416  # longer side of a scene before it is quartered; a quarter is a photograph
PRETRAINING_EPOCHS, FINE_TUNING_EPOCHS, EVALUATE_EVERY = 4, 10, 5
BATCH = 32
ARMS = ("from scratch", "pretrained")


def deal(seed: int) -> dict[str, list[str]]:
    """Which scene plays which part."""
    colour, grey = random.Random(seed), random.Random(seed)
    scenes, grey_scenes = list(COLOUR), list(GREY)
    colour.shuffle(scenes)
    grey.shuffle(grey_scenes)
    train_end = PRETRAINING + FINE_TUNING
    return {
        "pretraining": scenes[:PRETRAINING],
        "train": scenes[PRETRAINING:train_end],
        "validation": grey_scenes[:VALIDATION],
        "test": [
            *scenes[train_end : train_end + TEST_COLOUR],
            *grey_scenes[VALIDATION : VALIDATION + TEST_GREY],
        ],
    }


def write_photographs(folder: Path, scenes: list[str]) -> None:
    """The whole of each scene, small, and its quarters, with a label table beside them."""
    (folder / "photographs").mkdir(parents=True, exist_ok=True)
    matches = []
    for scene in scenes:
        pixels = Image.fromarray(read_image(photograph_path(scene), apply_orientation=True))
        factor = SIDE / max(pixels.size)
        width, height = (round(side * factor / 2) for side in pixels.size)
        large = pixels.resize((2 * width, 2 * height), Image.Resampling.LANCZOS)
        cuts = [large.crop((x, y, x + width, y + height)) for x in (0, width) for y in (0, height)]
        cuts.append(pixels.resize((width, height), Image.Resampling.LANCZOS))
        for number, cut in enumerate(cuts, start=1):
            name = f"{scene}_{number}.png"
            cut.save(folder / "photographs" / name)
            matches.append(Match(name, ("I01.png",), (1.0,)))
    scores = np.array([MEAN_DMOS[number] for number in sorted(MEAN_DMOS)])
    labels = np.repeat(scores[None], len(matches), axis=0)
    write_label_tables(matches, labels, folder / "labels", columns="new")


def common(config: ConfigDict, seed: int) -> ConfigDict:
    """What pretraining and fine-tuning share."""
    config.seed = seed
    config.model.name, config.model.dropout, config.model.dtype = "glpi_demo", 0.0, "float32"
    config.data.threads = 2
    config.data.prefetch = 8
    config.data.cache_bytes = 1024**3
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 1e-3, 50
    config.model.pretrained.vit = config.model.pretrained.resnet = ""
    config.optimizer.rules = ((r".*", 1.0),)
    config.train.batch_size = BATCH
    config.train.log_every_steps = 40
    config.train.checkpoint_every_steps = 200
    config.evaluation.crops, config.evaluation.placement = 9, "grid"
    config.evaluation.batch_size = 64
    config.evaluation.bootstrap_resamples = 0
    return config


def pretraining(folder: Path, seed: int) -> ConfigDict:
    """Of 25 photographs 23 train, 2875 images and 90 steps an epoch."""
    config = common(load_config(shipped_config("saqt_pretrain")), seed)
    config.data.root = str(folder / "photographs")
    config.data.labels = str(folder / "labels")
    config.split.train_fraction, config.split.validation_fraction = 0.96, 0.04
    config.train.epochs = PRETRAINING_EPOCHS
    config.optimizer.cosine_half_period = PRETRAINING_EPOCHS * 90
    config.evaluation.every_epochs = PRETRAINING_EPOCHS
    return config


def fine_tuning(database: Path, split: Path, seed: int, start: str) -> ConfigDict:
    """480 training images, fifteen steps an epoch."""
    config = common(load_config(shipped_config("base")), seed)
    config.data.database, config.data.root = "csv", str(database)
    config.split.kind, config.split.name = "file", str(split)
    config.init_from = start
    config.train.epochs = FINE_TUNING_EPOCHS
    config.optimizer.cosine_half_period = FINE_TUNING_EPOCHS * 15
    config.evaluation.every_epochs = EVALUATE_EVERY
    return config


def split_by_scene(database: Database, parts: dict[str, list[str]]) -> Split:
    """The rows of each part's scenes."""
    rows = {
        part: tuple(row for row, scene in enumerate(database.references) if scene in parts[part])
        for part in ("train", "validation", "test")
    }
    return check_split(database, Split(**rows))


def measure(folder: Path, database: Database, seed: int) -> dict[str, object]:
    """Both trainings of a seed; what was tested."""
    own = folder / f"seed_{seed}"
    parts = deal(seed)
    write_photographs(own, parts["pretraining"])
    write_split(own / "split.json", database, split_by_scene(database, parts))
    train_run(pretraining(own, seed), own / "pretraining")
    srocc = {}
    for arm, start in zip(ARMS, ("", str(own / "pretraining")), strict=True):
        workdir = own / arm.replace(" ", "_")
        train_run(fine_tuning(database.root, own / "split.json", seed, start), workdir)
        results = json.loads((workdir / RESULTS_FILE).read_text(encoding="utf-8"))
        srocc[arm] = results["parts"]["test"]["metrics"]["srocc"]
    return {"seed": seed, "scenes": parts, "srocc": srocc}


def run(folder: Path, seeds: int) -> dict[str, object]:
    """Render the labelled set, then measure seed by seed."""
    jax.config.update("jax_compilation_cache_dir", str(folder / "compilations"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    labelled = render_demo_database(
        folder / "labelled", types=TYPES, seed=0, processes=1, progress=True
    )
    database = load_database("csv", labelled)
    rounds = []
    with progress_bar(seeds, unit="seed", description="SAQT transfer") as bar:
        for seed in range(seeds):
            rounds.append(measure(folder, database, seed))
            bar.advance()
    medians = {
        arm: statistics.median(one["srocc"][arm] for one in rounds)  # type: ignore[index]
        for arm in ARMS
    }
    return {
        "model": "glpi_demo",
        "pretraining_epochs": PRETRAINING_EPOCHS,
        "fine_tuning_epochs": FINE_TUNING_EPOCHS,
        "batch_size": BATCH,
        "rounds": rounds,
        "median_srocc": medians,
    }


def table(results: dict) -> str:
    """SROCC by seed and start, in Markdown."""
    lines = [f"| seed | test scenes | {' | '.join(ARMS)} |", "|---" * (2 + len(ARMS)) + "|"]
    for one in results["rounds"]:
        cells = [f"{one['srocc'][arm]:.3f}" for arm in ARMS]
        lines.append(
            f"| {one['seed']} | {', '.join(one['scenes']['test'])} | {' | '.join(cells)} |"
        )
    medians = [f"{results['median_srocc'][arm]:.3f}" for arm in ARMS]
    return "\n".join([*lines, f"| median | | {' | '.join(medians)} |"])


def main() -> None:
    """Measure, print, and write the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="keep data and runs here, and go on from there")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = run(options.folder or Path(temporary), options.seeds)
    print(table(results))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
