"""The page about one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

from glpi_jax.evaluation.logistic import LogisticFit
from glpi_jax.evaluation.protocols import LAST_EPOCH
from glpi_jax.report import curve_plots, markup, plots
from glpi_jax.report.comparison import HEADINGS, RAW, protocol_text
from glpi_jax.report.parts import fit_of, scatter_panel, worst_images
from glpi_jax.report.tables import number
from glpi_jax.results.metrics_file import METRICS_FILE, MetricRow
from glpi_jax.results.workdirs import (
    RESULTS_FILE,
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
# More names than this make the page slow; results.json has them all.
NAMES_SHOWN = 300


def run_page(run: RunResults, trained_on: str | None) -> str:
    """Lay out the page.

    Args:
        run: from `read_round`.
        trained_on: the training database of a cross-dataset run, else None.
    """
    results = run.results
    fits = {name: fit_of(part) for name, part in results["parts"].items()}
    facts = {
        "Model": f"{results['model']['name']}, {millions(results['model']['parameters'])}",
        "Protocol": results["protocol"],
        **({"Trained on": trained_on} if trained_on else {}),
        "Seed": results["seed"],
        "Device": results["device"],
        "Revision": results["git_revision"] or "not known",
    }
    sections = [
        _results_section(results),
        *(_part_section(name, results, fits[name]) for name, _ in parts_in_order(results)),
        _training_section(results, run.rows),
        *_worst_sections(results, fits),
        _setting_section(results),
    ]
    return markup.page(title_of(results), "No-reference image quality assessment", facts, sections)


def millions(parameters: int) -> str:
    """The size of a model in words."""
    return f"{parameters / 1e6:.2f} M parameters"


def _results_section(results: Results) -> str:
    parts = parts_in_order(results)
    name, first = parts[0]
    tiles = "".join(
        f"<div><dt>{escape(_capitalized(name))} {HEADINGS[metric]}</dt>"
        f"<dd>{number(first['metrics'][metric])}</dd></div>"
        for metric in RAW
    )
    raw = markup.table(
        ["Part", "Database", "Images", "Crops an image", *(HEADINGS[metric] for metric in RAW)],
        [
            [
                f"<strong>{escape(name)}</strong><small>{_role(name, results)}</small>",
                escape(part["database"]),
                str(part["images"]),
                str(part["crops"]),
                *(_with_interval(part, metric) for metric in RAW),
            ]
            for name, part in parts
        ],
        numbers_from=2,
    )
    fitted = markup.table(
        ["Part", "PLCC", "RMSE", "PLCC", "RMSE"],
        [
            [f"<strong>{escape(name)}</strong>", *_after(part, 4), *_after(part, 5)]
            for name, part in parts
        ],
        numbers_from=1,
        spans=[("", 1), ("4 parameters", 2), ("5 parameters", 2)],
    )
    better = "higher is better" if results["higher_is_better"] else "lower is better"
    of_source = " of the training database" if results["config"]["targets"] else ""
    return markup.section(
        "Results",
        f'<dl class="tiles">{tiles}</dl>',
        markup.note(
            *protocol_text(results["protocol"], crossed=bool(results["config"]["targets"]))
        ),
        raw,
        markup.muted(
            "SROCC and KRCC are rank correlations, PLCC is Pearson's; PLCC and RMSE here are of the"
            f" raw predictions. {_rmse_text(results)} {_interval_text(results)}"
            f" {_selection_text(results)}"
        ),
        "<h3>After a logistic fit</h3>",
        fitted,
        markup.muted(
            "A logistic function of 4 or 5 parameters, fitted to these images, takes the"
            " predictions to the scale of the labels first. It may fall as well as rise, so that"
            f" PLCC after it has no sign. {_fallback_text(results)}"
        ),
        markup.note(
            f"The label{of_source} is {results['score_name']} ({better}).", results["label_note"]
        ),
    )


def _rmse_text(results: Results) -> str:
    note = read_metrics_note(results)
    if note is None:
        return "RMSE is in units of the label."
    return f"{note}; the predictions in the plots are in units of the label."


def _with_interval(part: PartResults, metric: str) -> str:
    value = number(part["metrics"][metric])
    interval = part["intervals"].get(metric)
    if interval is None or interval["low"] is None:
        return value
    return f"{value}<small>{number(interval['low'])} … {number(interval['high'])}</small>"


def _interval_text(results: Results) -> str:
    parts = results["parts"].values()
    if not any(part["intervals"] for part in parts):
        return "Confidence intervals were not computed."
    confidence = results["config"]["evaluation"]["confidence"]
    text = (
        f"Below each value is its {100 * confidence:g} % interval from a bootstrap over the"
        " references (images where these stand alone)."
    )
    if any(interval["low"] is None for part in parts for interval in part["intervals"].values()):
        text += " It is undefined, and left out, with fewer than two of them."
    return text


def _after(part: PartResults, parameters: int) -> list[str]:
    """PLCC and RMSE after the fit, with a mark where it is a line."""
    metrics = part["metrics"]
    mark = "*" if metrics[f"logistic{parameters}_converged"] is False else ""
    return [number(metrics[f"{name}_logistic{parameters}"]) + mark for name in ("plcc", "rmse")]


def _fallback_text(results: Results) -> str:
    converged = [
        part["metrics"][f"logistic{parameters}_converged"]
        for part in results["parts"].values()
        for parameters in (4, 5)
    ]
    if False not in converged:
        return ""
    return "Where a star is, no logistic function fits, and the least-squares line took its place."


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


def _selection_text(results: Results) -> str:
    selection = results["selection"]
    if selection is None:
        return "The weights were given, not selected in a training."
    return (
        f"The checkpoint is that of step {selection['step']} (epoch {selection['epoch']}), selected"
        f" by {selection['criterion']}; its SROCC was {number(selection['value'])}."
    )


def _part_section(name: str, results: Results, fit: LogisticFit | None) -> str:
    part = results["parts"][name]
    predictions, label = part["predictions"], label_name(name, results)
    if not predictions:
        return ""
    title = _capitalized(name)
    panel = scatter_panel(name, results, fit, title)
    figures = [
        markup.figure(
            lambda theme: plots.scatter(panel, theme),
            f"{label} against predicted score, {name} part",
            f"Every point is an image; its prediction is the mean over {part['crops']} crop(s). The"
            " curve is the logistic function of 4 parameters, fitted to these points.",
        )
    ]
    if is_test(name) and part["by_distortion"]:
        bars = {name: metrics["srocc"] for name, metrics in part["by_distortion"].items()}
        images = {name: metrics["images"] for name, metrics in part["by_distortion"].items()}
        figures.append(
            markup.figure(
                lambda theme: plots.distortion_bars({title: bars}, images, theme),
                f"SROCC by distortion, {name} part",
                "SROCC among the images of one distortion, their number in brackets. With few"
                " images it says little.",
            )
        )
    # Target labels and predictions have no common scale to be drawn on.
    if name == "test" and any(e["distortion"] and e["level"] is not None for e in predictions):
        figures.append(
            markup.figure(
                lambda theme: plots.level_means(predictions, label, theme),
                f"Mean predicted score and mean {label} by distortion level, test part",
                "Means over the test images of each distortion and level.",
            )
        )
    return markup.section(f"{title} part", *figures)


def _capitalized(part: str) -> str:
    """The first letter alone, as the rest may be the name of a database."""
    return part[:1].upper() + part[1:]


def _training_section(results: Results, rows: Sequence[MetricRow]) -> str:
    if not rows:
        return markup.section(
            "Training",
            markup.muted(
                f"There is no {METRICS_FILE} in this folder, so there are no training curves."
            ),
        )
    step = results["selection"]["step"] if results["selection"] else None
    mark = "" if step is None else f" The dashed line marks the evaluated checkpoint, step {step}."
    figure = markup.figure(
        lambda theme: curve_plots.training_curves(rows, step, theme, loss_words([results])),
        "Training loss, learning rate and SROCC of the selection parts over the steps",
        f"From {METRICS_FILE}.{mark}",
    )
    return markup.section("Training", figure)


def _worst_sections(results: Results, fits: Mapping[str, LogisticFit | None]) -> list[str]:
    """One for each test part, or for the first part where there is none."""
    names = [name for name, _ in parts_in_order(results)]
    shown = [name for name in names if is_test(name)] or names[:1]
    return [
        markup.section(f"Largest errors, {name} part", content)
        for name in shown
        if (content := worst_images(name, results, fits[name], _WORST_IMAGES))
    ]


def _setting_section(results: Results) -> str:
    split = results["split"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    config = json.dumps(results["config"], indent=2, ensure_ascii=False)
    return markup.section(
        "Split and setting",
        f"<p>{_overlap_text(split['references'])} SHA-256 of the split:"
        f" <code>{escape(split['sha256'])}</code></p>",
        *(_name_list(part, references) for part, references in split["references"].items()),
        markup.details("Config", f"<pre>{escape(config)}</pre>"),
        markup.details("Versions", f"<p>{escape(versions)}</p>"),
    )


def _overlap_text(references: Mapping[str, Sequence[str]]) -> str:
    """Say whether a reference is in two parts, by looking rather than by the protocol's name."""
    shared = [
        f"{first} and {second} share {len(common)}"
        for first, second in combinations(references, 2)
        if (common := set(references[first]) & set(references[second]))
    ]
    if not shared:
        return "The parts share no reference."
    return f"<strong>Parts share references: {escape(', '.join(shared))}.</strong>"


def _name_list(part: str, references: Sequence[Any]) -> str:
    items = "".join(f"<li>{escape(str(name))}</li>" for name in references[:NAMES_SHOWN])
    more = len(references) - NAMES_SHOWN
    rest = markup.muted(f"and {more} more, in {RESULTS_FILE}") if more > 0 else ""
    count = f"{len(references)} reference{'' if len(references) == 1 else 's'}"
    return markup.details(
        f"{part}: {count}",
        f'<ul class="names">{items}</ul>{rest}',
        opened=len(references) <= 30,
    )
