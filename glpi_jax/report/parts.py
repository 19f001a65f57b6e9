"""What both pages show of one part of one run: the fitted curve and the worst predictions."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from glpi_jax.evaluation.logistic import LogisticFit, fit_logistic
from glpi_jax.report.markup import muted, thumbnail
from glpi_jax.report.plots import ScatterPanel
from glpi_jax.report.tables import number
from glpi_jax.results.workdirs import PartResults, Results, label_name, target_of


def fit_of(part: PartResults) -> LogisticFit | None:
    """The logistic function of 4 parameters through a part; None for fewer than two images."""
    entries = part["predictions"]
    if len(entries) < 2:
        return None
    return fit_logistic([e["predicted"] for e in entries], [e["mos"] for e in entries], 4)


def scatter_panel(
    part_name: str, results: Results, fit: LogisticFit | None, title: str
) -> ScatterPanel:
    """A part's scatter plot, with the SROCC and the number of images below its title.

    Args:
        part_name: of the part in results.json; it has at least one image.
        results: of the run.
        fit: from `fit_of`.
        title: what the plot is of.
    """
    part = results["parts"][part_name]
    srocc = number(part["metrics"]["srocc"])
    facts = f"SROCC {srocc}, {len(part['predictions'])} images"
    label = label_name(part_name, results)
    return ScatterPanel(title, facts, part["predictions"], fit, label)


def worst_images(name: str, results: Results, fit: LogisticFit | None, count: int) -> str:
    """The images that the model is most wrong about, with thumbnails where they are still there.

    The error is that after the fitted curve, so that it means something where model and labels
    have different scales or directions, as in a cross-dataset test.

    Args:
        name: of the part in results.json.
        results: of the run.
        fit: from `fit_of`; without one the error is that of the raw prediction.
        count: how many images.

    Returns:
        HTML, empty for a part without images.
    """
    entries = results["parts"][name]["predictions"]
    if not entries:
        return ""
    label = label_name(name, results)
    predicted = np.array([entry["predicted"] for entry in entries])
    fitted = predicted if fit is None else fit(predicted)
    errors = fitted - np.array([entry["mos"] for entry in entries])
    worst = np.argsort(-np.abs(errors), kind="stable")[:count]
    section = _images_section(name, results)
    cards = []
    missing = 0
    for index in worst:
        entry = entries[index]
        picture = thumbnail(
            Path(section["root"], entry["image"]), apply_orientation=section["apply_orientation"]
        )
        missing += picture is None
        cards.append(_card(entry, fitted[index], errors[index], picture or "", label))
    about = (
        f"Error is the fitted prediction minus the {label}; ± is the spread of the raw"
        " prediction over the crops of the image."
    )
    if missing:
        about += (
            f" {missing} of the {len(worst)} images cannot be read any more in"
            f" {section['root'] or 'the database folder'} and are shown by name."
        )
    return f'{muted(about)}<div class="gallery">{"".join(cards)}</div>'


def _images_section(name: str, results: Results) -> dict[str, Any]:
    """The section of the config that says where a part's images are."""
    config = results["config"]
    target = target_of(name)
    return dict(config["data"] if target is None else config["targets"][target])


def _card(entry: dict[str, Any], fitted: float, error: float, picture: str, label: str) -> str:
    facts = {
        label: number(entry["mos"], 2),
        "predicted": f"{number(entry['predicted'], 2)} ± {number(entry['crop_std'], 2)}",
        "fitted": number(fitted, 2),
        "error": f"{error:+.2f}",
    }
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts.items()
    )
    kind = [] if entry["distortion"] is None else [entry["distortion"].replace("_", " ")]
    kind += [] if entry["level"] is None else [f"level {entry['level']}"]
    shown = f"<p>{escape(', '.join(kind))}</p>" if kind else ""
    return (
        f'<article><div class="thumbnail">{picture}</div><dl>{rows}</dl>{shown}'
        f"<code>{escape(entry['image'])}</code></article>"
    )
