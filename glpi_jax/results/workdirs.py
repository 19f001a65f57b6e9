"""What the reports read: the workdirs of `glpi train` and `glpi benchmark`, checked key by key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from glpi_jax.core.config import with_later_keys
from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation.metrics import median_and_spread
from glpi_jax.evaluation.protocols import PROTOCOLS
from glpi_jax.results.metrics_file import METRICS_FILE, MetricRow, read_metrics

RESULTS_FILE, BENCHMARK_FILE, RUN_FILE = "results.json", "benchmark.json", "run.json"
FORMAT = 1
EVALUATE_AGAIN = "evaluate again to rewrite it"

Results = Mapping[str, Any]

# What the reports use, as `_check` takes it: keys with types, `str` for any key, [type of items].
_NUMBER, _MAYBE_NUMBER = (int, float), (int, float, NoneType)
_IMAGES = {"root": str, "apply_orientation": bool}
_PART = {
    "database": str,
    "images": int,
    "crops": int,
    "metrics": {
        **dict.fromkeys(("srocc", "plcc", "krcc", "rmse"), _MAYBE_NUMBER),
        **dict.fromkeys(("plcc_logistic4", "rmse_logistic4"), _MAYBE_NUMBER),
        **dict.fromkeys(("plcc_logistic5", "rmse_logistic5"), _MAYBE_NUMBER),
        **dict.fromkeys(("logistic4_converged", "logistic5_converged"), (bool, NoneType)),
    },
    "intervals": {str: {"low": _MAYBE_NUMBER, "high": _MAYBE_NUMBER}},
    "by_distortion": {str: {"images": int, "srocc": _MAYBE_NUMBER}},
    "predictions": [
        {
            "image": str,
            "distortion": (str, NoneType),
            "level": (int, NoneType),
            "mos": _NUMBER,
            "predicted": _NUMBER,
            "crop_std": _NUMBER,
        }
    ],
}
_RESULTS = {
    "protocol": str,
    "seed": int,
    "config": {
        "data": _IMAGES,
        "targets": {str: _IMAGES},
        "train": dict,
        "evaluation": {"confidence": _NUMBER},
    },
    "git_revision": (str, NoneType),
    "versions": dict,
    "device": str,
    "model": {"name": str, "parameters": int},
    "selection": (dict, NoneType),
    "split": {"sha256": str, "references": {str: list}},
    "label_note": str,
    "score_name": str,
    "higher_is_better": bool,
    "parts": {str: _PART},
}
_SELECTION = {"step": int, "epoch": int, "criterion": str, "value": _MAYBE_NUMBER}
_BENCHMARK = {"rounds": [{"folder": str, "metrics": dict}]}
_RUN = {"database": {"name": str}}
_LOSS_WORDS = {"l1": "mean absolute error", "mse": "mean squared error", "plcc": "1 − PLCC"}


@dataclass(frozen=True)
class RunResults:
    """One run: its results.json, and the rows of its metrics.csv, empty where there is none."""

    folder: Path
    results: Results
    rows: Sequence[MetricRow]


@dataclass(frozen=True)
class Workdir:
    """A run, which is one round, or a benchmark of several.

    Attributes:
        name: what the reports call it.
        folder: where it is.
        rounds: at least one, all of one config but for seed and split.
        trained_on: name of the training database of a cross-dataset run, else None.
    """

    name: str
    folder: Path
    rounds: tuple[RunResults, ...]
    trained_on: str | None

    @property
    def first(self) -> Results:
        """The results of the first round, for what all rounds share."""
        return self.rounds[0].results

    @property
    def tests(self) -> dict[str, str]:
        """Names of the test parts by their database; by themselves where two are of one."""
        parts = {name: part for name, part in self.first["parts"].items() if is_test(name)}
        databases = [part["database"] for part in parts.values()]
        return {
            name if databases.count(part["database"]) > 1 else part["database"]: name
            for name, part in parts.items()
        }

    def _values(self, part: str, metric: str) -> list[Any]:
        return [each.results["parts"][part]["metrics"][metric] for each in self.rounds]

    def spread(self, part: str, metric: str) -> dict[str, float | int | None]:
        """`median_and_spread` of a metric over the rounds."""
        return median_and_spread(self._values(part, metric))

    def median_round(self, part: str) -> int:
        """Index of the round whose SROCC is nearest to the median, the first where undefined."""
        median = self.spread(part, "srocc")["median"]
        if median is None:
            return 0
        distances = [abs(value - median) for value in self._values(part, "srocc")]
        return distances.index(min(distances))


def is_test(part: str) -> bool:
    """Whether a part is a test part: "test", or "test <database>" in a cross-dataset run."""
    return part == "test" or part.startswith("test ")


def target_of(part: str) -> str | None:
    """Name of the target whose images a part holds; None for a part of the source."""
    return part.removeprefix("test ") if part.startswith("test ") else None


def label_name(part: str, results: Results) -> str:
    """What a part's labels are called: MOS or DMOS; of targets the results do not tell it."""
    return str(results["score_name"]) if target_of(part) is None else "subjective score"


def loss_words(runs: Sequence[Results]) -> str:
    """Return what runs minimised, in words; of a loss without words its name."""
    names = [results["config"]["train"]["loss"] for results in runs]
    return ", ".join(dict.fromkeys(_LOSS_WORDS.get(name, name) for name in names))


def parts_in_order(results: Results) -> list[tuple[str, Any]]:
    """Give the parts, the test parts first and the validation part last."""
    return sorted(
        results["parts"].items(), key=lambda item: (not is_test(item[0]), item[0] == "validation")
    )


def title_of(results: Results) -> str:
    """The model and the databases that it was scored on."""
    names = [name for name in results["parts"] if is_test(name)] or [*results["parts"]]
    databases = dict.fromkeys(results["parts"][name]["database"] for name in names)
    return f"{results['model']['name']} on {', '.join(databases)}"


def read_results(folder: Path) -> Results:
    """Read and check a run's results.json.

    Raises:
        GlpiError: it is missing, does not parse, has another format, or a key that the reports
            need is missing or of another type.
    """
    path = folder / RESULTS_FILE
    results = _read_json(path, _RESULTS, missing="run 'glpi evaluate' on this folder first")
    if results["selection"] is not None:
        _check(path, results["selection"], _SELECTION, EVALUATE_AGAIN, "selection")
    if results["protocol"] not in PROTOCOLS:
        raise GlpiError(f"{path} has protocol {results['protocol']!r}: {EVALUATE_AGAIN}")
    if not results["parts"]:
        raise GlpiError(f"{path} has no parts: {EVALUATE_AGAIN}")
    for target in filter(None, map(target_of, results["parts"])):
        if target not in results["config"]["targets"]:
            raise GlpiError(f"{path} lacks config.targets.{target}: {EVALUATE_AGAIN}")
    return results | {"config": with_later_keys(results["config"])}


def read_round(folder: Path) -> RunResults:
    """Read a run. Raises a GlpiError as `read_results`, or if metrics.csv does not parse."""
    metrics = folder / METRICS_FILE
    return RunResults(
        folder, read_results(folder), read_metrics(metrics) if metrics.exists() else []
    )


def read_workdirs(folders: Sequence[Path]) -> list[Workdir]:
    """Read several workdirs; their names are those of the folders, or the paths if these repeat.

    Raises a GlpiError if a folder is given twice, and what `read_workdir` raises.
    """
    for index, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:index]]:
            raise GlpiError(f"{folder} is given twice: name every workdir once")
    names = [folder.resolve().name for folder in folders]
    return [
        read_workdir(folder, str(folder) if names.count(name) > 1 else name)
        for folder, name in zip(folders, names, strict=True)
    ]


def read_workdir(folder: Path, name: str | None = None) -> Workdir:
    """Read a run or a benchmark, which is called by the folder's name if `name` is None.

    Raises:
        GlpiError: not a workdir, one that is not finished, a benchmark.json older than its rounds,
            or what `read_round` raises.
    """
    if not folder.is_dir():
        raise GlpiError(f"{folder}: no such workdir; `glpi train` or `glpi benchmark` makes one")
    if (folder / BENCHMARK_FILE).is_file():
        rounds = _rounds_of(folder)
    elif (folder / RESULTS_FILE).is_file():
        rounds = (read_round(folder),)
    elif (folder / RUN_FILE).is_file():
        raise GlpiError(
            f"{folder}: this run is not finished (no {RESULTS_FILE}): give its 'glpi train' again"
        )
    elif any(folder.glob("round_*/")):
        raise GlpiError(
            f"{folder}: this benchmark is not finished (no {BENCHMARK_FILE}): give its"
            " 'glpi benchmark' again"
        )
    else:
        raise GlpiError(f"{folder}: not a workdir (no {RESULTS_FILE} and no {BENCHMARK_FILE})")
    return Workdir(name or folder.resolve().name, folder, rounds, trained_on(rounds[0]))


def trained_on(run: RunResults) -> str | None:
    """Name of the training database of a cross-dataset run, from its run.json; else None."""
    if not run.results["config"]["targets"]:
        return None
    why = "a cross-dataset report takes the source's name from it"
    return str(_read_json(run.folder / RUN_FILE, _RUN, missing=why)["database"]["name"])


def _rounds_of(folder: Path) -> tuple[RunResults, ...]:
    path = folder / BENCHMARK_FILE
    again = "give the 'glpi benchmark' again to rewrite it"
    benchmark = _read_json(path, _BENCHMARK, missing=again, remedy=again)
    if not benchmark["rounds"]:
        raise GlpiError(f"{path} has no rounds: {again}")
    rounds = []
    for entry in benchmark["rounds"]:
        run = read_round(folder / entry["folder"])
        metrics = {name: part["metrics"] for name, part in run.results["parts"].items()}
        if metrics != entry["metrics"]:
            raise GlpiError(
                f"{path} differs from {run.folder / RESULTS_FILE}, which was evaluated again:"
                f" {again}"
            )
        rounds.append(run)
    return tuple(rounds)


def _read_json(
    path: Path, shape: Mapping[Any, Any], *, missing: str, remedy: str = EVALUATE_AGAIN
) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GlpiError(f"{path} is missing: {missing}") from error
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path} cannot be read ({error}): {remedy}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise GlpiError(f"{path} has format {found!r}, not {FORMAT}: {remedy}")
    _check(path, content, shape, remedy)
    return dict(content)


def _check(path: Path, value: Any, shape: Any, remedy: str, where: str = "") -> None:
    """Raise a GlpiError that names the first key of a value that is missing or of another type."""
    if not isinstance(value, type(shape) if isinstance(shape, (dict, list)) else shape):
        raise GlpiError(f"{path}: {where} is {str(value)[:40]!r}: {remedy}")
    if isinstance(shape, list):
        for index, item in enumerate(value):
            _check(path, item, shape[0], remedy, f"{where}[{index}]")
    elif isinstance(shape, dict):
        for key, part in (dict.fromkeys(value, shape[str]) if str in shape else shape).items():
            below = f"{where}.{key}" if where else key
            if key not in value:
                raise GlpiError(f"{path} lacks {below}: {remedy}")
            _check(path, value[key], part, remedy, below)
