"""The page about one run."""

from __future__ import annotations

import json
from itertools import combinations
from typing import NamedTuple

from glpi_jax.evaluation.logistic import LogisticFit
from glpi_jax.evaluation.protocols import LAST_EPOCH
from glpi_jax.report import curve_plots, plots
from glpi_jax.report.comparison import HEADINGS, RAW, protocol_text
from glpi_jax.report.markup import TEMPLATES, Plot, embed_plot
from glpi_jax.report.parts import fit_of, scatter_panel, worst_images
from glpi_jax.results.workdirs import (
    PartResults,
    Results,
    RunResults,
    is_test,
    label_name,
    loss_words,
    parts_in_order,
    read_metrics_note,
    title_of,
)

_WORST_IMAGES = 12


def run_page(run: RunResults, trained_on: str | None) -> str:
    """Lay out the page.

    Args:
        run: from `read_round`.
        trained_on: the training database of a cross-dataset run, else None.
    """
    results = run.results
    fits = {name: fit_of(part) for name, part in parts_in_order(results)}
    parts = [_part(name, results, fit) for name, fit in fits.items()]
    # Of the first part where there is no test part.
    judged = [name for name in fits if is_test(name)] or [*fits][:1]
    worst = {name: worst_images(name, results, fits[name], _WORST_IMAGES) for name in judged}
    intervals = [each for part in parts for each in part.results["intervals"].values()]
    return TEMPLATES.get_template("run.html").render(
        results=results,
        title=title_of(results),
        trained_on=trained_on,
        headings={metric: HEADINGS[metric] for metric in RAW},
        parts=parts,
        protocol=protocol_text(results["protocol"], crossed=bool(results["config"]["targets"])),
        metrics_note=read_metrics_note(results),
        interval_lows=[each["low"] for each in intervals],
        curves=_curves(run),
        worst=worst,
        shared=_shared_references(results),
        config=json.dumps(results["config"], indent=2, ensure_ascii=False),
    )


class _Part(NamedTuple):
    """What the page shows of a part.

    Attributes:
        name: in results.json.
        title: the same with a capital.
        role: what the part was used for.
        results: of the part.
        label: what its labels are called.
        lines: "logistic4" and "logistic5", where a line took the place of that fit.
        scatter, bars, levels: plots; None where there is nothing to draw.
    """

    name: str
    title: str
    role: str
    results: PartResults
    label: str
    lines: list[str]
    scatter: Plot | None
    bars: Plot | None
    levels: Plot | None


def _part(name: str, results: Results, fit: LogisticFit | None) -> _Part:
    part = results["parts"][name]
    predictions, kinds = part["predictions"], part["by_distortion"]
    label = label_name(name, results)
    title = name[:1].upper() + name[1:]  # the rest may be the name of a database
    scatter = bars = levels = None
    if predictions:
        panel = scatter_panel(name, results, fit, title)
        scatter = embed_plot(lambda theme: plots.scatter(panel, theme))
    if predictions and is_test(name) and kinds:
        srocc = {kind: metrics["srocc"] for kind, metrics in kinds.items()}
        images = {kind: metrics["images"] for kind, metrics in kinds.items()}
        bars = embed_plot(lambda theme: plots.distortion_bars({title: srocc}, images, theme))
    # Target labels and predictions have no common scale to be drawn on.
    if name == "test" and any(e["distortion"] and e["level"] is not None for e in predictions):
        levels = embed_plot(lambda theme: plots.level_means(predictions, label, theme))
    lines = [
        fit_name
        for fit_name in ("logistic4", "logistic5")
        if part["metrics"][f"{fit_name}_converged"] is False
    ]
    return _Part(name, title, _role(name, results), part, label, lines, scatter, bars, levels)


def _role(part: str, results: Results) -> str:
    """Say what a part was used for, so that no number is taken for more than it is."""
    if is_test(part):
        if results["protocol"] == "official":
            return "not trained on, but it selected the checkpoint: optimistic"
        return "held out; used once, after the selection"
    selection = results["selection"]
    if part == "validation" and selection and selection["criterion"] != LAST_EPOCH:
        return "not trained on; it selected the checkpoint"
    if part == "train":
        return "the model was trained on these images"
    return "not trained on"


def _curves(run: RunResults) -> Plot | None:
    if not run.rows:
        return None
    step = run.results["selection"]["step"] if run.results["selection"] else None
    loss = loss_words([run.results])
    return embed_plot(lambda theme: curve_plots.training_curves(run.rows, step, theme, loss))


def _shared_references(results: Results) -> list[str]:
    """Say which parts share references, by looking rather than by the protocol's name."""
    references = {part: set(names) for part, names in results["split"]["references"].items()}
    return [
        f"{first} and {second} share {len(common)}"
        for first, second in combinations(references, 2)
        if (common := references[first] & references[second])
    ]
