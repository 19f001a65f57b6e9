"""The demonstration, start to end: render, train, evaluate, report, score (`glpi demo`)."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.demo_database import render_demo_database
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.splits import read_split
from glpi_jax.distortions import LEVELS
from glpi_jax.report import results_markdown
from glpi_jax.scoring import load
from glpi_jax.workflow.runs import evaluate_run, train_run
from glpi_jax.workflow.workdir import SPLIT_FILE

LADDERS = ("gaussian_blur", "jpeg", "white_noise")  # scored level by level at the end


def render(config: ConfigDict) -> Path:
    """Render the config's demonstration database, or find it finished; returns its folder."""
    if "render" not in config:
        raise GlpiError("this config has no section `render`: use configs/demo.py")
    return render_demo_database(
        Path(config.data.root),
        types=config.render.types,
        seed=config.render.seed,
        processes=config.render.processes,
        progress=True,
    )


def run_demo(config: ConfigDict, workdir: Path) -> None:
    """Render the data, train, evaluate on unseen scenes, write the report, score a few pictures.

    Every stage resumes where an earlier call stopped; finished ones take no time.
    """
    begin = time.monotonic()
    _stage("1/4  render the database from photographs that ship with Python packages")
    folder = render(config)
    _stage(f"2/4  train {config.model.name} on the training scenes")
    if not train_run(config, workdir):
        _stage("     already trained")
    _stage("3/4  results on scenes that training never saw")
    results = evaluate_run(config, workdir)
    print(results_markdown(results), flush=True)
    _stage("4/4  scores of unseen photographs at rising distortion")
    database = load_database(config.data.database, folder)
    rows = read_split(workdir / SPLIT_FILE, database).test
    print(_ladder_tables(database, rows, workdir), flush=True)
    minutes, seconds = divmod(round(time.monotonic() - begin), 60)
    print(
        f"\nDone in {minutes} min {seconds} s.\n"
        f"  report    {workdir / 'report.html'}\n"
        f"  results   {workdir / 'results.json'}\n"
        f"  metrics   {workdir / 'metrics.csv'}, {workdir / 'tensorboard'}\n"
        f"  database  {folder}\n"
        f"  score your own:  glpi score {workdir} photo.jpg"
    )


def _ladder_tables(database: Database, rows: Sequence[int], workdir: Path) -> str:
    """Scores level by level of a tile of each scene: the first of its tiles, untouched first."""
    tiles: dict[str, str] = {}
    for row in rows:
        tiles.setdefault(database.references[row], _tile_of(database.images[row]))
    pictures: dict[tuple[str, str, int], Path] = {}
    for tile in tiles.values():
        pictures[tile, "", 0] = database.root / "references" / f"{tile}.png"
    for row in rows:
        tile, name = _tile_of(database.images[row]), str(database.distortions[row])
        if tile in tiles.values() and name in LADDERS:
            pictures[tile, name, database.levels[row] or 0] = database.path(row)
    results = load(workdir).score(list(pictures.values()))
    for result in results:
        if result.error is not None:
            raise GlpiError(result.error)
    scores = dict(zip(pictures, results, strict=True))
    lines = []
    for tile in tiles.values():
        lines += ["", str(pictures[tile, "", 0])]
        lines += ["distortion       untouched   level 1   level 2   level 3   level 4   level 5"]
        for name in LADDERS:
            if (tile, name, 1) in scores:
                levels = [scores[tile, "", 0], *(scores[tile, name, n] for n in LEVELS)]
                lines.append(f"{name:16}" + "".join(f"{s.score:>10.3f}" for s in levels))
    return "\n".join(lines[1:])


def _tile_of(image: str) -> str:
    """Name of the tile that a rendered image shows: images/<tile>_<type>_<level>.png."""
    return Path(image).stem.rsplit("_", 2)[0]


def _stage(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)
