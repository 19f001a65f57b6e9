"""Results of runs that were never made, and a reader for the pages about them."""

import copy
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from glpi_jax.evaluation.bootstrap import bootstrap_intervals
from glpi_jax.evaluation.logistic import full_metrics
from glpi_jax.evaluation.metrics import metrics_by_group
from glpi_jax.report import curve_plots, plots

METRICS_CSV = """step,epoch,name,value
5,0,train/loss,1.25
5,0,train/learning_rate,0.0001
10,1,train/loss,nan
10,1,validation/srocc,0.5
"""


def measure(predictions: list[dict]) -> dict:
    """The numbers of a part that follow from its predictions."""
    predicted = [entry["predicted"] for entry in predictions]
    mos = [entry["mos"] for entry in predictions]
    intervals = bootstrap_intervals(
        predicted,
        mos,
        seed=0,
        resamples=50,
        confidence=0.9,
        groups=[entry["reference"] for entry in predictions],
    )
    return {
        "images": len(predictions),
        "metrics": full_metrics(predicted, mos),
        "intervals": intervals,
        "by_distortion": metrics_by_group(predicted, mos, [e["distortion"] for e in predictions]),
    }


def part(database: str, seed: int, references: list[str]) -> dict:
    rng = np.random.default_rng(seed)
    predictions = [
        {
            "image": f"images/{reference}_{distortion}_{level}.png",
            "reference": reference,
            "distortion": distortion,
            "level": level,
            "mos": 5.0 - 0.7 * level,
            "predicted": float(4.8 - 0.6 * level + rng.normal(0, 0.3)),
            "crop_std": 0.125,
        }
        for reference in references
        for distortion in ("gaussian_blur", "jpeg")
        for level in (1, 3, 5)
    ]
    return {"database": database, "crops": 5, "predictions": predictions, **measure(predictions)}


RESULTS = {
    "format": 1,
    "protocol": "strict",
    "seed": 3,
    "config": {
        "seed": 3,
        "data": {"root": "/no/such/database", "apply_orientation": False},
        "targets": {},
        "train": {"epochs": 2},  # as old runs have it: without a loss
        "evaluation": {"confidence": 0.9},
    },
    "git_revision": "3f2b9c1",
    "versions": {"jax": "0.10.2"},
    "device": "cpu × 1",
    "model": {"name": "glpi_demo", "parameters": 1_834_561},
    "selection": {
        "step": 10,
        "epoch": 1,
        "criterion": "SROCC on the validation part",
        "value": 0.5,
    },
    "split": {
        "sha256": "ab" * 32,
        "references": {"train": ["chelsea"], "validation": ["coffee"], "test": ["rocket"]},
    },
    "label_note": "Labels are means by type & level, <not> opinions.",
    "score_name": "MOS",
    "higher_is_better": True,
    "parts": {
        "validation": part("demo", 1, ["coffee"]),
        "test": part("demo", 2, ["rocket", "hubble"]),
    },
}


@pytest.fixture
def results() -> dict:
    """A strict run's results on one database."""
    return copy.deepcopy(RESULTS)


@pytest.fixture
def crossed(results) -> dict:
    """An official run's results: trained on one database, tested on LIVE and CSIQ."""
    section = {"root": "/no/such/target", "apply_orientation": False}
    results["protocol"] = "official"
    results["config"]["targets"] = {"live": dict(section), "csiq": dict(section)}
    results["parts"] = {
        "test live": part("LIVE", 3, ["bikes", "sailing"]),
        "test csiq": part("CSIQ", 4, ["snow"]),
    }
    results["selection"]["criterion"] = "mean SROCC on the test databases (official protocol)"
    return results


@pytest.fixture
def remeasure():
    """Bring a part's numbers up to date with its changed predictions."""

    def change(content: dict) -> None:
        content.update(measure(content["predictions"]))

    return change


@pytest.fixture
def write_run():
    """Write a run's workdir from its results; `metrics_csv=None` leaves that file out."""

    def write(workdir: Path, results: dict, metrics_csv: str | None = METRICS_CSV) -> Path:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "results.json").write_text(json.dumps(results), encoding="utf-8")
        run = {"format": 1, "database": {"name": "KADID-10k"}}
        (workdir / "run.json").write_text(json.dumps(run))
        if metrics_csv is not None:
            (workdir / "metrics.csv").write_text(metrics_csv)
        return workdir

    return write


@pytest.fixture
def write_benchmark(write_run):
    """Write a benchmark's workdir from its rounds' results."""

    def write(workdir: Path, rounds: list[dict]) -> Path:
        entries = []
        for number, results in enumerate(rounds, start=1):
            folder = f"round_{number:02d}"
            write_run(workdir / folder, results)
            metrics = {name: content["metrics"] for name, content in results["parts"].items()}
            entries.append({"round": number, "folder": folder, "metrics": metrics})
        (workdir / "benchmark.json").write_text(json.dumps({"format": 1, "rounds": entries}))
        return workdir

    return write


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, instead of their PNG files."""
    drawn = []

    def keep(figure):
        drawn.append(figure)
        return b""

    for module in (plots, curve_plots):
        monkeypatch.setattr(module, "png", keep)
    return drawn


class Page(HTMLParser):
    """Checks nesting and collects attributes and visible text."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def addresses(self) -> list[str]:
        names = ("src", "srcset", "href")
        return [attributes[n] for _, attributes in self.tags for n in names if n in attributes]


@pytest.fixture
def parse_page():
    return Page
