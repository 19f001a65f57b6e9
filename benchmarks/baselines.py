"""BRISQUE and NIQE beside glpi_jax on a labelled database.

    python benchmarks/baselines.py --database KIND --root FOLDER [--labels FILE]
        [--split-round N --part PART] [--limit N] [--methods brisque niqe glpi]
        [--model MODEL ...] [--json FILE]

Shows on any data whether the weights are better than scores that need no training. Needs the
package `brisque` (extra `baselines`) unless --methods leaves BRISQUE out.

- `brisque`: A. Mittal, A. K. Moorthy and A. C. Bovik, "No-reference image quality assessment in the
  spatial domain", IEEE Transactions on Image Processing 21(12), 2012; the package's support vector
  machine, trained on LIVE.
- `niqe`: `niqe.py` beside this file, with its authors' statistics; trained on no scores.
- `glpi`: the weights of the package, or each --model; with the model's own number of grid crops.

All methods score the same pixels, and those where lower is better are turned. PLCC is taken after
the logistic fit with four parameters. The images a second include decoding; one image is scored
before the clock starts.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from niqe import Niqe

import glpi_jax
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.identical import keep_together
from glpi_jax.data.loader import ImageLoader
from glpi_jax.data.on_the_fly import Distorting
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import READERS, Database, load_database
from glpi_jax.data.splits import official_seed, strict_split
from glpi_jax.evaluation.logistic import full_metrics
from glpi_jax.evaluation.metrics import oriented

Figures = dict[str, Any]

METHODS = ("brisque", "niqe", "glpi")
PARTS = ("train", "validation", "test")
# The fractions of configs/base.py.
TRAIN_FRACTION, VALIDATION_FRACTION = 0.8, 0.2

Image = tuple[Path, np.ndarray]  # its name, and (height, width, 3) uint8
ScoreImages = Callable[[Iterable[Image]], Iterator[float]]  # higher is better


def brisque_scorer() -> ScoreImages:
    """Return a scorer of the package brisque.

    Raises:
        GlpiError: it is not installed.
    """
    try:
        from brisque import BRISQUE
    except ImportError as error:
        raise GlpiError(
            "BRISQUE needs the package brisque with OpenCV: pip install 'glpi_jax[baselines]', or"
            f" leave it out with --methods niqe glpi ({error})"
        ) from error

    class Brisque(BRISQUE):
        def scale_features(self, features: Iterable[Any]) -> np.ndarray:
            # Some are (1,) arrays, which NumPy 2.4 does not take for numbers.
            numbers = [float(np.ravel(value)[0]) for value in features]
            if not np.isfinite(numbers).all():
                raise GlpiError("BRISQUE is undefined for a flat image")
            scaled: np.ndarray = super().scale_features(numbers)
            return scaled

    return one_by_one("brisque", Brisque().score)


def one_by_one(method: str, score: Callable[[np.ndarray], float]) -> ScoreImages:
    """Return a scorer that turns each score; its errors name the image."""

    def scores(images: Iterable[Image]) -> Iterator[float]:
        for path, pixels in images:
            try:
                yield -float(score(pixels))
            except GlpiError as error:
                raise GlpiError(f"{path}: {error}; --methods leaves {method} out") from error

    return scores


def glpi_scorer(source: str | None) -> ScoreImages:
    """Return a scorer of a model, by default of the weights of the package."""
    model = glpi_jax.load(source)
    sign = -1.0 if model.lower_better else 1.0

    def scores(images: Iterable[Image]) -> Iterator[float]:
        for result in model.score_iter(pixels for _, pixels in images):
            assert result.score is not None, result.error  # the pixels are decoded already
            yield sign * result.score

    return scores


def chosen_rows(
    database: Database, *, split_round: int | None, part: str, limit: int | None
) -> Sequence[int]:
    """Return the rows to score: all, or a part of a strict split; at most `limit`, evenly spread.

    Raises:
        GlpiError: the database is too small to split, or the limit is below 2.
    """
    rows: Sequence[int] = range(len(database))
    if split_round is not None:
        split = strict_split(
            database,
            train_fraction=TRAIN_FRACTION,
            validation_fraction=VALIDATION_FRACTION,
            seed=official_seed(split_round),
        )
        split = keep_together(database, split, threads=2, move=True)
        rows = sorted(getattr(split, part))
    if limit is None or limit >= len(rows):
        return rows
    if limit < 2:
        raise GlpiError(f"--limit {limit}: a correlation needs at least 2 images")
    return [rows[int(place)] for place in np.linspace(0, len(rows) - 1, limit).round()]


def without_flat_images(database: Database, rows: Sequence[int]) -> Sequence[int]:
    """Leave out images of one colour, for which BRISQUE and NIQE are undefined, and name them."""
    load = image_loader(database)
    flat = [row for row in rows if np.ptp(load(row)) == 0]
    if flat:
        names = ", ".join(database.images[row] for row in flat)
        print(f"left out {len(flat)} images of one colour: {names}", file=sys.stderr)
    return [row for row in rows if row not in set(flat)]


def image_loader(database: Database) -> ImageLoader:
    """Return what decodes the images of a database, in their own size."""
    return ImageLoader(
        database,
        preprocessing=Preprocessing((), "bilinear", apply_orientation=False),
        cache_bytes=0,
        distorting=Distorting(seed=0, redraw=False, dncnn=""),
    )


def measure(method: str, score: ScoreImages, database: Database, rows: Sequence[int]) -> Figures:
    """Score rows and compare the scores with the labels.

    Raises:
        GlpiError: an image cannot be read or scored.
    """
    load = image_loader(database)
    next(score([(database.path(rows[0]), load(rows[0]))]))  # compiles
    scores = []
    begin = time.perf_counter()
    with progress_bar(len(rows), unit="image", description=method) as bar:
        for value in score((database.path(row), load(row)) for row in rows):
            scores.append(value)
            bar.advance()
    seconds = time.perf_counter() - begin
    labels = oriented(database.scores[list(rows)], database.higher_is_better)
    metrics = full_metrics(scores, labels)
    return {
        "method": method,
        "srocc": metrics["srocc"],
        "plcc_logistic4": metrics["plcc_logistic4"],
        "krcc": metrics["krcc"],
        "images_per_second": len(rows) / seconds,
        "images": len(rows),
    }


def print_table(figures: Sequence[Figures]) -> None:
    """Print a row for each method; "-" stands for an undefined correlation."""
    width = max(len("method"), *(len(row["method"]) for row in figures))
    print(f"{'method':{width}}   SROCC    PLCC    KRCC  images/s  images")
    for row in figures:
        correlations = " ".join(
            f"{'-':>7}" if row[key] is None else f"{row[key]:7.3f}"
            for key in ("srocc", "plcc_logistic4", "krcc")
        )
        speed = row["images_per_second"]
        print(f"{row['method']:{width}} {correlations} {speed:9.1f} {row['images']:7d}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="BRISQUE and NIQE beside glpi_jax.")
    parser.add_argument("--database", required=True, choices=READERS, help="the kind of source")
    parser.add_argument("--root", required=True, type=Path, help="folder of the database")
    parser.add_argument("--labels", type=Path, help="label file, for the kinds pyiqa and liqe")
    parser.add_argument("--split-round", type=int, help="score a part of this strict split alone")
    parser.add_argument("--part", choices=PARTS, default="test", help="of the split")
    parser.add_argument("--limit", type=int, help="score so many images, evenly spread")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--model", nargs="+", help="workdirs, hub folders or checkpoints; default: shipped weights"
    )
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    args = parser.parse_args()
    try:
        database = load_database(args.database, args.root, args.labels)
        rows = chosen_rows(database, split_round=args.split_round, part=args.part, limit=args.limit)
        scorers: dict[str, ScoreImages] = {}
        if "brisque" in args.methods:
            scorers["brisque"] = brisque_scorer()
        if "niqe" in args.methods:
            scorers["niqe"] = one_by_one("niqe", Niqe().score)
        if "glpi" in args.methods:
            for model in args.model or [None]:
                scorers[model or "glpi"] = glpi_scorer(model)
        rows = without_flat_images(database, rows)
        figures = [measure(name, score, database, rows) for name, score in scorers.items()]
    except GlpiError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print_table(figures)
    if args.json:
        part = {} if args.split_round is None else {"round": args.split_round, "part": args.part}
        write_json(args.json, {"database": database.name, **part, "methods": figures})


if __name__ == "__main__":
    main()
