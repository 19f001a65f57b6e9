"""One self-contained HTML page about a run, from its results.json and metrics.csv.

The page needs no network and no script: plots are embedded, in a light and a dark version between
which the reader's system chooses.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

from glpi_jax.errors import GlpiError
from glpi_jax.evaluation import plots
from glpi_jax.files import write_text
from glpi_jax.training.metric_writer import METRICS_FILE, MetricRow, read_metrics

__all__ = ["REPORT_FILE", "RESULTS_FILE", "results_markdown", "write_report"]

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"
RESULTS_FORMAT = 1
WORST_IMAGES = 12
# More names than this make the page slow; results.json has them all.
NAMES_SHOWN = 300
METRIC_NAMES = {"srocc": "SROCC", "plcc": "PLCC", "krcc": "KRCC", "rmse": "RMSE"}
CITATION = (
    "No-Reference Image Quality Assessment with Global-Local Progressive Integration and"
    " Semantic-Aligned Quality Transfer. ACM Transactions on Multimedia Computing,"
    " Communications, and Applications, 2026. doi:10.1145/3815779, arXiv:2408.03885"
)

Results = Mapping[str, Any]


def write_report(workdir: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a workdir that holds results.json.

    The training curves are drawn from metrics.csv where the folder has one; weights that were
    evaluated without training have none.

    Returns:
        The path of the page.

    Raises:
        GlpiError: results.json is missing, does not parse, has another format or lacks a key, or
            metrics.csv does not parse.
    """
    folder = Path(workdir)
    results = _read_results(folder / RESULTS_FILE)
    metrics = folder / METRICS_FILE
    rows = read_metrics(metrics) if metrics.exists() else []
    try:
        page = _page(results, rows)
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the key {error}" if isinstance(error, KeyError) else f"a value ({error})"
        raise GlpiError(
            f"{folder / RESULTS_FILE} lacks {what}: evaluate again to rewrite it."
        ) from error
    path = folder / REPORT_FILE
    write_text(path, page)
    return path


def results_markdown(results: Results) -> str:
    """Give the metrics of every part as a short table for the terminal, with what made them.

    Args:
        results: the content of results.json.
    """
    header = ["part", "database", "images", *METRIC_NAMES.values()]
    rows = [
        [name, part["database"], str(part["images"]), *_metric_texts(part)]
        for name, part in _parts(results)
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        _markdown_row(header, widths),
        _markdown_row(["-" * width for width in widths], widths),
    ]
    lines += [_markdown_row(row, widths) for row in rows]
    return "\n".join([f"{_title(results)}, protocol {results['protocol']}", "", *lines]) + "\n"


def _markdown_row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"


def _read_results(path: Path) -> Results:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GlpiError(f"{path} is missing: run 'glpi evaluate' on this folder first.") from error
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path} cannot be read: {error}. Evaluate again to rewrite it.") from error
    found = results.get("format") if isinstance(results, dict) else None
    if found != RESULTS_FORMAT:
        raise GlpiError(
            f"{path} has format {found!r}, not {RESULTS_FORMAT}: evaluate again to rewrite it."
        )
    return results


def _parts(results: Results) -> list[tuple[str, Results]]:
    """Give the parts, the test part first and the validation part last."""
    order = {"test": 0, "validation": 2}
    return sorted(results["parts"].items(), key=lambda item: order.get(item[0], 1))


def _title(results: Results) -> str:
    databases = dict.fromkeys(part["database"] for _, part in _parts(results))
    return f"{results['model']['name']} on {', '.join(databases)}"


def _number(value: float | None, digits: int = 4) -> str:
    """Write a metric; what is undefined gets a dash, never a number."""
    return "–" if value is None else f"{value:.{digits}f}"


def _metric_texts(part: Results) -> list[str]:
    return [_number(part["metrics"][name]) for name in METRIC_NAMES]


def _page(results: Results, rows: Sequence[MetricRow]) -> str:
    style = (resources.files("glpi_jax.evaluation") / "report.css").read_text(encoding="utf-8")
    title = _title(results)
    sections = [
        _results_section(results),
        *(_part_section(name, part, results) for name, part in _parts(results)),
        _training_section(results, rows),
        _worst_section(results),
        _setting_section(results),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: image quality report</title>
<style>
{style}</style>
</head>
<body>
<main>
{_header(results, title)}
{"".join(sections)}
<footer>
<p><strong>How to cite.</strong> The model is GLPI (GlintIQA): {escape(CITATION)}.</p>
</footer>
</main>
</body>
</html>
"""


def _header(results: Results, title: str) -> str:
    facts = {
        "Model": f"{results['model']['name']}, {_millions(results['model']['parameters'])}",
        "Protocol": results["protocol"],
        "Seed": results["seed"],
        "Device": results["device"],
        "Revision": results["git_revision"] or "not known",
    }
    return (
        f'<header><p class="kind">No-reference image quality assessment</p>'
        f'<h1>{escape(title)}</h1><dl class="facts">'
        + "".join(
            f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"
            for name, value in facts.items()
        )
        + "</dl></header>"
    )


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M parameters"


def _results_section(results: Results) -> str:
    parts = _parts(results)
    name, first = parts[0]
    tiles = "".join(
        f"<div><dt>{escape(name.capitalize())} {METRIC_NAMES[metric]}</dt><dd>{text}</dd></div>"
        for metric, text in zip(METRIC_NAMES, _metric_texts(first), strict=True)
    )
    table = _table(
        ["Part", "Database", "Images", "Crops an image", *METRIC_NAMES.values()],
        [
            [
                f"<strong>{escape(name)}</strong><small>{_role(name, results)}</small>",
                escape(part["database"]),
                str(part["images"]),
                str(part["crops"]),
                *_metric_texts(part),
            ]
            for name, part in parts
        ],
        numbers_from=2,
    )
    better = "higher is better" if results["higher_is_better"] else "lower is better"
    return f"""
<section>
<h2>Results</h2>
<dl class="tiles">{tiles}</dl>
{table}
<p class="note"><strong>The label is {escape(results["score_name"])} ({better}).</strong>
{escape(results["label_note"])}</p>
<p class="muted">SROCC and KRCC are rank correlations, PLCC is Pearson's without a logistic fit,
RMSE is in units of the label. A dash stands for a value that is undefined, as for equal scores.
{_selection_text(results)}</p>
</section>"""


def _role(part: str, results: Results) -> str:
    """Say what a part was used for, so that no number is taken for more than it is."""
    if part == "test":
        if results["protocol"] == "official":
            return "not trained on, but it selected the checkpoint: optimistic"
        return "held out; used once, after the selection"
    if part == "validation":
        return "not trained on; it selected the checkpoint"
    if part == "train":
        return "the model was trained on these images"
    return "not trained on"


def _selection_text(results: Results) -> str:
    selection = results["selection"]
    if selection is None:
        return "The weights were given, not selected in a training."
    return escape(
        f"The checkpoint is that of step {selection['step']} (epoch {selection['epoch']}), selected"
        f" by {selection['criterion']}: {_number(selection['value'])}."
    )


def _part_section(name: str, part: Results, results: Results) -> str:
    predictions, score_name = part["predictions"], results["score_name"]
    if not predictions:
        return ""
    srocc = part["metrics"]["srocc"]
    figures = [
        _figure(
            lambda theme: plots.scatter(predictions, srocc, name, score_name, theme),
            f"Predicted score against {score_name}, {name} part",
            f"Every point is an image; its prediction is the mean over {part['crops']} crop(s)."
            f" On the dashed line the prediction equals the {score_name}.",
        )
    ]
    if name == "test" and part["by_distortion"]:
        figures.append(
            _figure(
                lambda theme: plots.distortion_bars(part["by_distortion"], theme),
                "SROCC by distortion, test part",
                "SROCC among the images of one distortion, their number in brackets. With few"
                " images it says little.",
            )
        )
    if name == "test" and any(e["distortion"] and e["level"] is not None for e in predictions):
        figures.append(
            _figure(
                lambda theme: plots.level_means(predictions, score_name, theme),
                f"Mean predicted score and mean {score_name} by distortion level, test part",
                "Means over the test images of each distortion and level.",
            )
        )
    return f"<section><h2>{escape(name.capitalize())} part</h2>{''.join(figures)}</section>"


def _training_section(results: Results, rows: Sequence[MetricRow]) -> str:
    if not rows:
        return (
            f'<section><h2>Training</h2><p class="muted">There is no {METRICS_FILE} in this folder,'
            " so there are no training curves.</p></section>"
        )
    step = results["selection"]["step"] if results["selection"] else None
    mark = "" if step is None else f" The dashed line marks the evaluated checkpoint, step {step}."
    figure = _figure(
        lambda theme: plots.training_curves(rows, step, theme),
        "Training loss, learning rate and validation SROCC over the steps",
        f"From {METRICS_FILE}.{mark}",
    )
    return f"<section><h2>Training</h2>{figure}</section>"


def _worst_section(results: Results) -> str:
    name, part = _parts(results)[0]
    worst = sorted(part["predictions"], key=lambda e: -abs(e["predicted"] - e["mos"]))
    if not worst:
        return ""
    table = _table(
        ["Distortion", "Level", results["score_name"], "Predicted", "Error", "Crop std", "Image"],
        [
            [
                "–" if e["distortion"] is None else escape(e["distortion"].replace("_", " ")),
                "–" if e["level"] is None else str(e["level"]),
                _number(e["mos"], 2),
                _number(e["predicted"], 2),
                f"{e['predicted'] - e['mos']:+.2f}",
                _number(e["crop_std"], 2),
                escape(e["image"]),
            ]
            for e in worst[:WORST_IMAGES]
        ],
        numbers_from=1,
        path_column=6,
    )
    return f"""
<section>
<h2>Largest errors, {escape(name)} part</h2>
<p class="muted">Error is predicted minus {escape(results["score_name"])}; crop std is the spread of
the predictions over the crops of the image.</p>
{table}
</section>"""


def _setting_section(results: Results) -> str:
    split = results["split"]
    names = "".join(
        _name_list(part, references) for part, references in split["references"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    config = json.dumps(results["config"], indent=2, ensure_ascii=False)
    return f"""
<section>
<h2>Split and setting</h2>
<p>{_overlap_text(split["references"])} SHA-256 of the split:
<code>{escape(split["sha256"])}</code></p>
{names}
<details><summary>Config</summary><pre>{escape(config)}</pre></details>
<details><summary>Versions</summary><p>{escape(versions)}</p></details>
</section>"""


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


def _name_list(part: str, references: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(name)}</li>" for name in references[:NAMES_SHOWN])
    more = len(references) - NAMES_SHOWN
    rest = f'<p class="muted">and {more} more, in {RESULTS_FILE}</p>' if more > 0 else ""
    opened = " open" if len(references) <= 30 else ""
    count = f"{len(references)} reference{'' if len(references) == 1 else 's'}"
    return (
        f"<details{opened}><summary>{escape(part)}: {count}</summary>"
        f'<ul class="names">{items}</ul>{rest}</details>'
    )


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers_from: int,
    path_column: int | None = None,
) -> str:
    """Lay out cells that are HTML already; columns from `numbers_from` on hold numbers."""

    def attribute(column: int) -> str:
        if column == path_column:
            return ' class="path"'
        return ' class="number"' if column >= numbers_from else ""

    head = "".join(
        f'<th scope="col"{attribute(i) if i != path_column else ""}>{escape(cell)}</th>'
        for i, cell in enumerate(header)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{attribute(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _figure(draw: Callable[[plots.Theme], bytes], alternative: str, caption: str) -> str:
    light, dark = (
        "data:image/png;base64," + base64.b64encode(draw(theme)).decode("ascii")
        for theme in (plots.LIGHT, plots.DARK)
    )
    return (
        f'<figure><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escape(alternative)}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
