"""What both pages show of one part of one run: the fitted curve and the worst predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glpi_jax.evaluation.logistic import LogisticFit, fit_logistic
from glpi_jax.report.markup import Thumbnail, embed_thumbnail
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


class WrongImage(NamedTuple):
    """An image with its entry of results.json and what the entry's `predicted` is after the fit.

    Attributes:
        entry: of the part's predictions.
        fitted: in units of the label.
        error: `fitted` minus the label.
        thumbnail: None if the image cannot be read any more.
    """

    entry: dict[str, Any]
    fitted: float
    error: float
    thumbnail: Thumbnail | None


class WorstImages(NamedTuple):
    """The images that a model is most wrong about, the worst first.

    Attributes:
        label: what the labels are called.
        root: the folder of the images.
        images: at least one.
    """

    label: str
    root: str
    images: list[WrongImage]


def worst_images(
    name: str, results: Results, fit: LogisticFit | None, count: int
) -> WorstImages | None:
    """The images that the model is most wrong about; None for a part without images.

    The error is that after the fitted curve, so that it means something where model and labels
    have different scales or directions, as in a cross-dataset test.

    Args:
        name: of the part in results.json.
        results: of the run.
        fit: from `fit_of`; without one the error is that of the raw prediction.
        count: how many images.
    """
    entries = results["parts"][name]["predictions"]
    if not entries:
        return None
    predicted = np.array([entry["predicted"] for entry in entries])
    fitted = predicted if fit is None else fit(predicted)
    errors = fitted - np.array([entry["mos"] for entry in entries])
    section = _images_section(name, results)
    root, turned = section["root"], section["apply_orientation"]
    images = [
        WrongImage(
            entries[index],
            fitted[index],
            errors[index],
            embed_thumbnail(Path(root, entries[index]["image"]), apply_orientation=turned),
        )
        for index in np.argsort(-np.abs(errors), kind="stable")[:count]
    ]
    return WorstImages(label_name(name, results), root, images)


def _images_section(name: str, results: Results) -> dict[str, Any]:
    """The section of the config that says where a part's images are."""
    config = results["config"]
    target = target_of(name)
    return dict(config["data"] if target is None else config["targets"][target])
