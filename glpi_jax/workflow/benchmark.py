"""Rounds of one experiment: each with its own split and seed, then the median over them.

The workdir holds a run in `round_01/`, `round_02/`, … (see `runs`), `benchmark.json` and
`report.html`.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from glpi_jax.core import config as config_files
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json
from glpi_jax.distributed.ranks import is_first, wait_for_all
from glpi_jax.evaluation.metrics import median_and_spread
from glpi_jax.report import write_benchmark_report
from glpi_jax.report.comparison import HEADINGS
from glpi_jax.results.workdirs import BENCHMARK_FILE, RESULTS_FILE
from glpi_jax.workflow.runs import train_rounds, train_run

FORMAT = 1


def run_benchmark(config: ConfigDict, workdir: Path, *, rounds: int) -> dict[str, Any]:
    """Train and evaluate every round, or resume where an earlier call stopped.

    Round r = 1 … rounds is the run of the config with `split.round` r and `seed` config.seed + r −
    1, so that round 1 is what `glpi train` gives. With a "published" or "file" split, or in a
    cross-dataset run under the official protocol, rounds differ in the seed alone. They are trained
    one by one on all devices or, with `config.mesh.round` above 1, side by side on that many groups
    of devices, which changes speed, not results.

    Args:
        config: the whole tree; its `split.round` must be 1.
        workdir: of the benchmark; made if it is missing.
        rounds: how many, at least 1. More can be added later; their number is no part of a run.

    Returns:
        The content of `benchmark.json`: the config, each round's seed, split and metrics, and for
        every part and metric `median_and_spread` over the rounds.

    Raises:
        GlpiError: a number out of range, or what a run raises.
    """
    if rounds < 1:
        raise GlpiError(f"{rounds} rounds: must be at least 1")
    if config.split.round != 1:
        raise GlpiError(
            f"config.split.round = {config.split.round}: a benchmark counts rounds from 1 itself"
        )
    configs = [round_of(config, number) for number in range(1, rounds + 1)]
    folders = [workdir / round_folder(number) for number in range(1, rounds + 1)]
    if config.mesh.round == 1:
        for own, folder in zip(configs, folders, strict=True):
            train_run(own, folder)
    else:
        train_rounds(configs, folders)
    results = [json.loads((f / RESULTS_FILE).read_text(encoding="utf-8")) for f in folders]
    benchmark = _summary(config, results)
    if is_first():
        write_json(workdir / BENCHMARK_FILE, benchmark)
        write_benchmark_report(workdir)
    wait_for_all("benchmark")
    return benchmark


def round_folder(number: int) -> str:
    """Name of the folder of a round, counted from 1."""
    return f"round_{number:02d}"


def round_of(config: ConfigDict, number: int) -> ConfigDict:
    """The config of one round, counted from 1."""
    own = ConfigDict(config).copy_and_resolve_references()
    own.split.round = number
    own.seed = config.seed + number - 1
    return own


def _summary(config: ConfigDict, results: list[dict[str, Any]]) -> dict[str, Any]:
    first = results[0]
    shared = ("protocol", "versions", "git_revision", "device", "model", "score_name")
    return {
        "format": FORMAT,
        "config": config_files.to_plain(config),
        **{key: first[key] for key in shared},
        "metrics_note": first.get("metrics_note"),
        "rounds": [
            {
                "round": number,
                "folder": round_folder(number),
                "seed": result["seed"],
                "split_sha256": result["split"]["sha256"],
                "selection": result["selection"],
                "metrics": {name: part["metrics"] for name, part in result["parts"].items()},
            }
            for number, result in enumerate(results, start=1)
        ],
        "summary": {
            name: {
                "database": part["database"],
                "images": part["images"],
                "metrics": {
                    metric: median_and_spread(
                        [result["parts"][name]["metrics"][metric] for result in results]
                    )
                    for metric in HEADINGS
                },
            }
            for name, part in first["parts"].items()
        },
    }
