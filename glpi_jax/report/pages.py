"""The two HTML pages: about one run, and about runs and benchmarks side by side.

What a function named `_…_view` returns is read by the templates, by its keys.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from glpi_jax.core.templates import template_environment
from glpi_jax.data.images import ImageError, read_image
from glpi_jax.evaluation.logistic import fit_logistic
from glpi_jax.evaluation.protocols import LAST_EPOCH
from glpi_jax.report import curve_plots, plots
from glpi_jax.report.comparison import HEADINGS, RAW, WorkdirGroup, protocol_text, table_notes
from glpi_jax.report.plot_style import DARK, LIGHT, Theme
from glpi_jax.report.tables import number, spread_text
from glpi_jax.results.workdirs import (
    Results,
    RunResults,
    Workdir,
    is_test,
    label_name,
    loss_words,
    parts_in_order,
    target_of,
    title_of,
    trained_on,
)

_TEMPLATES = template_environment("glpi_jax.report", number=number, spread_text=spread_text)
_THUMBNAIL_PIXELS = 280
_JPEG_QUALITY = 82
# Of the images that a model is most wrong about.
_WORST_OF_RUN, _WORST_OF_WORKDIR = 12, 8


def run_page(run: RunResults) -> str:
    """Lay out the page about a run, which is from `read_round`."""
    results = run.results
    names = [name for name, _ in parts_in_order(results)]
    # Only the first letter: the rest may be the name of a database.
    panels = {name: _panel(name, results, name[:1].upper() + name[1:]) for name in names}
    parts = [_part_view(name, results, panels[name]) for name in names]
    # Of the first part where there is no test part.
    judged = [name for name in names if is_test(name)] or names[:1]
    intervals = [each for part in parts for each in part["results"]["intervals"].values()]
    curves = None
    if run.rows:
        step = results["selection"]["step"] if results["selection"] else None
        loss = loss_words([results])
        curves = _embed(lambda theme: curve_plots.training_curves(run.rows, step, theme, loss))
    return _TEMPLATES.get_template("run.html").render(
        results=results,
        title=title_of(results),
        trained_on=trained_on(run),
        headings={metric: HEADINGS[metric] for metric in RAW},
        parts=parts,
        protocol=protocol_text(results["protocol"], crossed=bool(results["config"]["targets"])),
        metrics_note=results.get("metrics_note"),
        interval_lows=[each["low"] for each in intervals],
        curves=curves,
        worst={name: _worst_view(name, results, panels[name], _WORST_OF_RUN) for name in judged},
        shared=_shared_references(results),
        config=json.dumps(results["config"], indent=2, ensure_ascii=False),
    )


def comparison_page(workdirs: Sequence[Workdir], groups: Sequence[WorkdirGroup]) -> str:
    """Lay out the page about workdirs, in the order given, and their groups."""
    return _TEMPLATES.get_template("comparison.html").render(
        title=title_of(workdirs[0].first),
        workdirs=workdirs,
        groups=[_group_view(group) for group in groups],
        srocc_columns={each.name: [f"SROCC, {name}" for name in each.tests] for each in workdirs},
    )


def _part_view(name: str, results: Results, panel: plots.ScatterPanel) -> dict[str, Any]:
    part = results["parts"][name]
    predictions, kinds = part["predictions"], part["by_distortion"]
    scatter = bars = levels = None
    if predictions:
        scatter = _embed(lambda theme: plots.scatter(panel, theme))
    if predictions and is_test(name) and kinds:
        srocc = {kind: metrics["srocc"] for kind, metrics in kinds.items()}
        images = {kind: metrics["images"] for kind, metrics in kinds.items()}
        bars = _embed(lambda theme: plots.distortion_bars({panel.title: srocc}, images, theme))
    # Target labels and predictions have no common scale to be drawn on.
    if name == "test" and any(e["distortion"] and e["level"] is not None for e in predictions):
        levels = _embed(lambda theme: plots.level_means(predictions, panel.score_name, theme))
    fits = ("logistic4", "logistic5")
    return {
        "name": name,
        "title": panel.title,
        "role": _role(name, results),
        "results": part,
        "label": panel.score_name,
        # The fits whose place a line took.
        "lines": [fit for fit in fits if part["metrics"][f"{fit}_converged"] is False],
        "scatter": scatter,
        "bars": bars,
        "levels": levels,
    }


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


def _shared_references(results: Results) -> list[str]:
    """Say which parts share references, by looking rather than by the protocol's name."""
    references = {part: set(names) for part, names in results["split"]["references"].items()}
    return [
        f"{first} and {second} share {len(common)}"
        for first, second in combinations(references, 2)
        if (common := references[first] & references[second])
    ]


def _group_view(group: WorkdirGroup) -> dict[str, Any]:
    """A group with what its table says around its cells, and its plots."""
    rows = {each.name: [run.rows for run in each.rounds] for each in group.workdirs}
    loss = loss_words([each.first for each in group.workdirs])
    headings = [HEADINGS[metric] for _, metric in group.columns]
    return {
        "group": group,
        "protocol": protocol_text(group.protocol, crossed=group.trained_on is not None),
        # Above the header: text, and how many columns it spans.
        "spans": [("", 3), *((database, len(group.metrics)) for database in group.databases)],
        "header": ["Workdir", "Model", "Rounds", *headings],
        "notes": table_notes(group)[1:],
        "databases": [_database_view(group, database) for database in group.databases],
        "curves": _embed(lambda theme: curve_plots.compared_curves(rows, theme, loss)),
    }


def _database_view(group: WorkdirGroup, database: str) -> dict[str, Any]:
    """What the page shows of the workdirs of a group that were tested on a database."""
    workdirs = [each for each in group.workdirs if database in each.tests]
    runs, panels = [], []
    medians, images = {}, {}
    for each in workdirs:
        # The run that stands for the workdir.
        part = each.tests[database]
        index = each.median_round(part)
        title = f"{each.name}, round {index + 1}" if len(each.rounds) > 1 else each.name
        panel = _panel(part, each.rounds[index].results, title)
        runs.append(
            (title, _worst_view(part, each.rounds[index].results, panel, _WORST_OF_WORKDIR))
        )
        if panel.predictions:
            panels.append(panel)
        tables = [run.results["parts"][part]["by_distortion"] for run in each.rounds]
        for table in tables:  # a random test part may lack a distortion
            images.update({k: v["images"] for k, v in table.items() if k not in images})
        if any(tables):
            medians[each.name] = _median_srocc(tables)
    scatter = bars = None
    if len(panels) == 1:
        scatter = _embed(lambda theme: plots.scatter(panels[0], theme))
    elif panels:
        scatter = _embed(lambda theme: plots.scatter_panels(panels, theme))
    if medians:
        bars = _embed(lambda theme: plots.distortion_bars(medians, images, theme))
    return {
        "name": database,
        "runs": runs,
        "scatter": scatter,
        "several_rounds": any(len(each.rounds) > 1 for each in workdirs),
        "bars": bars,
        "barred": [*medians],
    }


def _median_srocc(tables: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Medians by distortion over the rounds, None for one that is undefined or missing in one."""
    medians: dict[str, float | None] = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        values: list[Any] = [table[name]["srocc"] if name in table else None for table in tables]
        medians[name] = None if None in values else median(values)
    return medians


def _panel(name: str, results: Results, title: str) -> plots.ScatterPanel:
    """A part's scatter plot, with the SROCC and the number of images below its title."""
    part = results["parts"][name]
    entries = part["predictions"]
    fit = None
    if len(entries) >= 2:
        fit = fit_logistic([e["predicted"] for e in entries], [e["mos"] for e in entries], 4)
    facts = f"SROCC {number(part['metrics']['srocc'])}, {len(entries)} images"
    return plots.ScatterPanel(title, facts, entries, fit, label_name(name, results))


def _worst_view(
    name: str, results: Results, panel: plots.ScatterPanel, count: int
) -> dict[str, Any] | None:
    """The images that the model is most wrong about, the worst first; None without images.

    The error is that after the fitted curve, so that it means something where model and labels
    have different scales or directions, as in a cross-dataset test; without a curve that of the
    raw prediction.
    """
    entries, config, target = panel.predictions, results["config"], target_of(name)
    if not entries:
        return None
    predicted = np.array([entry["predicted"] for entry in entries])
    fitted = predicted if panel.fit is None else panel.fit(predicted)
    errors = fitted - np.array([entry["mos"] for entry in entries])
    section = config["data"] if target is None else config["targets"][target]
    images = [
        {
            "entry": entries[index],
            "fitted": fitted[index],
            "error": errors[index],
            "thumbnail": _thumbnail(section, entries[index]["image"]),
        }
        for index in np.argsort(-np.abs(errors), kind="stable")[:count]
    ]
    return {"label": panel.score_name, "root": section["root"], "images": images}


def _thumbnail(section: Results, image: str) -> dict[str, Any] | None:
    """A small JPEG of an image of the config's section; None if the image cannot be read."""
    path = Path(section["root"], image)
    try:
        picture = Image.fromarray(read_image(path, apply_orientation=section["apply_orientation"]))
    except ImageError:
        return None
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    source = _data_uri("jpeg", buffer.getvalue())
    return {"source": source, "width": picture.width, "height": picture.height, "name": path.name}


def _embed(draw: Callable[[Theme], bytes]) -> dict[str, str]:
    """Return a plot in its light and its dark version, data URIs."""
    return {"light": _data_uri("png", draw(LIGHT)), "dark": _data_uri("png", draw(DARK))}


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
