"""Photographs a second of `Scorer.score_iter`, as `glpi score` calls it, and its memory.

    python benchmarks/scoring_files.py [--images N] [--megapixels N] [--json FILE]

On JPEGs of many sizes, cut from the photographs that ship with scikit-image, in a temporary folder
which the system keeps in memory, with the weights of the package:

- `one by one` calls `Scorer.score` for each file: nothing is read ahead, and each image fills a
  batch alone.
- `streamed` is one `Scorer.score_iter` over all files. Both must give the same scores.
- How many programs JAX has compiled for all those sizes.
- The most memory that a process uses for one large JPEG, and for a small one besides, each in a
  process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

import glpi_jax
from glpi_jax.core.files import write_json

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SIDES = (160, 1200)  # of the images, in pixels
QUALITY = 90
MEMORY_CODE = r"""
import re, sys, warnings
import glpi_jax
warnings.simplefilter("ignore")
(result,) = glpi_jax.load().score([sys.argv[1]])
assert result.error is None, result.error
# Not getrusage, which begins with the memory of the process that started this one.
print(int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) / 1024)
"""


def make_photographs(folder: Path, images: int) -> tuple[list[Path], float]:
    """Parts of photographs, resized to sides that are drawn anew for each; and their megapixels."""
    rng = np.random.default_rng(0)
    originals = [Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS]
    paths, pixels = [], 0
    for number in range(images):
        original = originals[number % len(originals)]
        width, height = (int(side) for side in rng.integers(*SIDES, size=2))
        left, top = (int(rng.integers(side // 3)) for side in original.size)
        part = original.crop((left, top, *original.size))
        paths.append(folder / f"{number:05d}.jpg")
        part.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=QUALITY)
        pixels += width * height
    return paths, pixels / 1e6


def measure(score: Callable[[list[Path]], Iterable[Any]], paths: list[Path]) -> dict[str, Any]:
    """Scores, and the seconds that they took on the clock and of this process's processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    scores = [result.score for result in score(paths)]
    return {
        "scores": scores,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def peak_megabytes(path: Path) -> float:
    """The most memory of a process that loads the model and scores one file."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_CODE, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Photographs a second, and memory.")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--megapixels", type=int, default=100, help="of the large image")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, megapixels = make_photographs(folder, args.images)
        scorer = glpi_jax.load()
        scorer.score(paths[0])  # compiles
        alone = measure(lambda paths: (scorer.score(path) for path in paths), paths)
        streamed = measure(scorer.score_iter, paths)
        np.testing.assert_allclose(streamed["scores"], alone["scores"], atol=1e-4)
        side = round((args.megapixels * 1e6) ** 0.5)
        large = folder / "large.jpg"
        photograph = Image.fromarray(data.astronaut())
        photograph.resize((side, side), Image.Resampling.BILINEAR).save(large, quality=QUALITY)
        memory = {
            "small_image_peak_mb": peak_megabytes(paths[0]),
            "large_image_peak_mb": peak_megabytes(large),
        }
    table = {
        "images": args.images,
        "megapixels_a_photograph": megapixels / args.images,
        "one_by_one_images_per_second": args.images / alone["seconds"],
        "streamed_images_per_second": args.images / streamed["seconds"],
        "one_by_one_cpu_ms_per_image": 1e3 * alone["cpu_seconds"] / args.images,
        "streamed_cpu_ms_per_image": 1e3 * streamed["cpu_seconds"] / args.images,
        "compiled_programs": scorer._score_crops._cache_size(),  # type: ignore[attr-defined]
        "large_image_megapixels": side * side / 1e6,
        **memory,
        "large_image_bytes_per_pixel": 2**20
        * (memory["large_image_peak_mb"] - memory["small_image_peak_mb"])
        / (side * side),
        "cpus": os.cpu_count(),
    }
    for key, value in table.items():
        print(f"{key:32} {value:10.2f}" if isinstance(value, float) else f"{key:32} {value:10}")
    if args.json:
        write_json(args.json, table)


if __name__ == "__main__":
    main()
