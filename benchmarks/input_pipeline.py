"""Images a second of the input pipeline: evaluation crops and training batches.

    python benchmarks/input_pipeline.py [--json FILE] [--images N] [--batches N] [--batch-size N]

On generated JPEGs of 512×384 in a temporary folder, which the system keeps in memory. Two tables:

- The 25 test crops of each image, cut after decoding it once (`evaluation_crops`) and after
  decoding it for each crop.
- Training batches of crops of 224×224 from files and from the prepared form, by worker processes
  and threads; images a second after the pipeline has filled, and the seconds to the first batch.

The CPU time is that of this process, which on a busy machine says more than the time on the clock.
Needs the extra `datasets`.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glpi_jax.core.files import write_json
from glpi_jax.data.crops import Crops
from glpi_jax.data.loader import evaluation_crops
from glpi_jax.data.pipeline import to_iterator, training_dataset
from glpi_jax.data.prepare import prepare_database
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database, load_database

WIDTH, HEIGHT, QUALITY = 512, 384, 95
CROP, CROPS = 224, 25
EVALUATION_THREADS = 2
THREADS, WORKERS = (0, 2, 4), (0, 2)
PREFETCH = 4
AS_STORED = Preprocessing((), "bilinear", apply_orientation=False)


def make_database(folder: Path, images: int) -> Database:
    """Smooth shapes under noise, which compress about as photographs do."""
    folder.mkdir()
    lines = ["image,score"]
    for number in range(images):
        rng = np.random.default_rng(number)
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(shapes.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), float)
        pixels += rng.normal(0, 6, pixels.shape)
        name = f"{number:05d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name, quality=QUALITY)
        lines.append(f"{name},{number}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return load_database("csv", folder)


def measure_evaluation(database: Database) -> Iterator[dict[str, Any]]:
    """Images a second, all crops of an image counting as one."""
    every_row = range(len(database))
    for way, rows, count in (
        ("decoded once", list(every_row), CROPS),
        (f"decoded {CROPS}×", [row for row in every_row for _ in range(CROPS)], 1),
    ):
        crops = evaluation_crops(
            database,
            rows,
            crop=CROP,
            crops=Crops(count, "random"),
            preprocessing=AS_STORED,
            threads=EVALUATION_THREADS,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        made = sum(len(cut) for _, cut in crops)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert made == CROPS * len(database)
        yield {
            "test_crops": way,
            "images_per_second": len(database) / wall,
            "cpu_ms_per_image": 1e3 * cpu / len(database),
        }


def measure_training(
    forms: dict[str, Database], batch_size: int, batches: int
) -> Iterator[dict[str, Any]]:
    """Images a second for each form, number of workers and number of threads."""
    for (form, database), workers, threads in itertools.product(forms.items(), WORKERS, THREADS):
        dataset = training_dataset(
            database,
            range(len(database)),
            crop=CROP,
            batch_size=batch_size,
            seed=0,
            horizontal_flip=0.5,
            vertical_flip=0.5,
            cache_bytes=0,
            preprocessing=AS_STORED,
            process_index=0,
            process_count=1,
        )
        iterator = to_iterator(dataset, threads=threads, prefetch=PREFETCH, workers=workers)
        begin = time.perf_counter()
        next(iterator)
        first_batch = time.perf_counter() - begin
        # What lies ready would count as made in no time.
        for _ in range(PREFETCH + (threads + 1) * max(1, workers)):
            next(iterator)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(batches):
            next(iterator)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        iterator.close()
        yield {
            "form": form,
            "workers": workers,
            "threads": threads,
            "images_per_second": batches * batch_size / wall,
            "cpu_ms_per_image": 1e3 * cpu / (batches * batch_size),
            "seconds_to_first_batch": first_batch,
        }


def shown(lines: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print a table while it is measured."""
    table = []
    for line in lines:
        if not table:
            print("\n" + "  ".join(f"{key:>12}" for key in line))
        cells = {key: f"{v:.2f}" if isinstance(v, float) else str(v) for key, v in line.items()}
        print("  ".join(f"{cell:>{max(12, len(key))}}" for key, cell in cells.items()), flush=True)
        table.append(line)
    return table


def main() -> None:
    """Measure, print, and write the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--images", type=int, default=32, help="JPEGs to make (default 32)")
    parser.add_argument("--batches", type=int, default=20, help="timed batches (default 20)")
    parser.add_argument("--batch-size", type=int, default=16, help="images a batch (default 16)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_database(Path(folder, "files"), options.images)
        prepared = prepare_database(files, Path(folder, "prepared"), progress=False)
        forms = {"files": files, "prepared": load_database("prepared", prepared)}
        evaluation = shown(measure_evaluation(files))
        training = shown(measure_training(forms, options.batch_size, options.batches))
    if options.json:
        settings = {
            "cpus": os.cpu_count(),
            "images": options.images,
            "width": WIDTH,
            "height": HEIGHT,
            "batch_size": options.batch_size,
            "batches": options.batches,
        }
        write_json(options.json, {**settings, "evaluation": evaluation, "training": training})


if __name__ == "__main__":
    main()
