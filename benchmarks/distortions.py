"""Time of the KADID distortions on one photograph, on one core, in milliseconds of CPU.

    python benchmarks/distortions.py [--json FILE] [--repeats N] [--size WIDTHxHEIGHT]

Each type is timed at each level alone (`distort`), and at its five levels on one `Distorter` that
all types share, the way a data set is rendered; the total is of the latter. Of several repeats the
fastest counts. The photograph is scikit-image's `coffee`.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Read by the libraries below when they are loaded.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
import skimage.data  # noqa: E402
from PIL import Image  # noqa: E402

from glpi_jax.core.files import write_json  # noqa: E402
from glpi_jax.distortions import DISTORTIONS, LEVELS, Distorter, distort, seed_for  # noqa: E402


def photograph(width: int, height: int) -> np.ndarray:
    """scikit-image's coffee cup (H, W, 3), uint8: cut from its middle, reduced if need be."""
    image = Image.fromarray(skimage.data.coffee())
    scale = max(width / image.width, height / image.height, 0.8)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def cpu_ms(work: Callable[..., object], *args: object) -> float:
    """Milliseconds of CPU that a call takes."""
    start = time.process_time()
    work(*args)
    return 1e3 * (time.process_time() - start)


def measure_alone(image: np.ndarray, repeats: int) -> dict[int, list[float]]:
    """Milliseconds of each type at each level, one image a call."""

    def once(number: int, level: int) -> float:
        rng = seed_for("coffee", number, level, 0)
        return cpu_ms(distort, image, number, level, rng)

    return {
        number: [min(once(number, level) for _ in range(repeats)) for level in LEVELS]
        for number in DISTORTIONS
    }


def measure_shared(image: np.ndarray, repeats: int) -> dict[int, float]:
    """Milliseconds of each type's five levels, all types on one object in the order of numbers."""
    best = dict.fromkeys(DISTORTIONS, float("inf"))
    for _ in range(repeats):
        distorter = Distorter(image)
        for number in DISTORTIONS:
            rngs = [seed_for("coffee", number, level, 0) for level in LEVELS]
            best[number] = min(best[number], cpu_ms(distorter.distort_levels, number, rngs))
    return best


def print_table(table: Mapping[int, Sequence[float]], last: str) -> None:
    """Milliseconds by type and level; `last` is the heading of a sixth number, if there is one."""
    print(f"{'type':27}" + "".join(f"{f'level {level}':>9}" for level in LEVELS) + f"{last:>11}")
    for number, times in table.items():
        cells = "".join(f"{taken:9.2f}" for taken in times[:5])
        cells += "".join(f"{taken:11.2f}" for taken in times[5:])
        print(f"{number:2} {DISTORTIONS[number].name:24}{cells}")


def print_totals(alone: Mapping[int, Sequence[float]], shared: Mapping[int, float]) -> None:
    """Milliseconds of all images."""
    total_alone = sum(map(sum, alone.values()))
    print(f"\n{5 * len(alone)} images one by one: {total_alone:.0f} ms")
    print(f"{5 * len(shared)} images on one Distorter: {sum(shared.values()):.0f} ms")


def main() -> None:
    """Measure, print, and write the figures where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default 3)")
    parser.add_argument("--size", default="512x384", help="WIDTHxHEIGHT, default 512x384")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    image = photograph(width, height)

    distort(image, 1, 3)  # the first call of a library costs more

    alone = measure_alone(image, options.repeats)
    shared = measure_shared(image, options.repeats)
    print_table({n: [*times, shared[n]] for n, times in alone.items()}, "5 shared")
    print_totals(alone, shared)
    if options.json:
        write_json(
            options.json,
            {
                "width": width,
                "height": height,
                "cpu_ms_alone": alone,
                "cpu_ms_five_levels_shared": shared,
                "cpu_ms_total_shared": sum(shared.values()),
            },
        )


if __name__ == "__main__":
    main()
