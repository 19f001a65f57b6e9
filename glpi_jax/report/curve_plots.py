"""The plots of a training over its steps, each a PNG file in a theme, `LIGHT` or `DARK`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes

from glpi_jax.report.plot_style import DASHED, Theme, legend_name, png, themed_figure
from glpi_jax.results.metrics_file import MetricRow

_Lines = list[tuple[str, np.ndarray, str]]  # label, (n, 2) steps and values, color


def training_curves(
    rows: Sequence[MetricRow], selected_step: int | None, theme: Theme, loss: str = ""
) -> bytes:
    """Plot loss, learning rate and the selection parts' SROCC over the steps, where recorded.

    A line marks `selected_step`, that of the evaluated checkpoint, unless it is None. `loss`, from
    `loss_words`, is for the heading; "" if not known.
    """
    parts = _selection_curves(rows)
    several = len(parts) > 1
    colors = cycle((theme.second, *theme.series))
    panels: dict[str, _Lines] = {
        _loss_heading(loss): [("", _series(rows, "train/loss"), theme.accent)],
        "learning rate": [("", _series(rows, "train/learning_rate"), theme.muted)],
        "SROCC of the selection parts" if several else f"{next(iter(parts), 'validation')} SROCC": [
            (part, points, next(colors)) for part, points in parts.items()
        ],
    }
    with themed_figure(2.9, theme) as figure:
        grid = figure.subplots(1, len(panels), sharex=True)
        for axes, (heading, lines) in zip(grid, panels.items(), strict=True):
            recorded = _draw(axes, heading, lines, theme)
            if len(lines) > 1:
                axes.legend(fontsize=8)
            if recorded and selected_step is not None:
                axes.axvline(selected_step, color=theme.muted, linewidth=1, linestyle=DASHED)
        return png(figure)


def compared_curves(
    runs: Mapping[str, Sequence[Sequence[MetricRow]]], theme: Theme, loss: str = ""
) -> bytes:
    """Plot training loss and the SROCC that selects the epoch, a colour a workdir, a line a round.

    `runs` has the rows of each round by workdir; of several selection parts the mean is shown.
    """
    losses: _Lines = []
    sroccs: _Lines = []
    for (name, rounds), color in zip(runs.items(), cycle(theme.series), strict=False):
        label = legend_name(name)
        for rows in rounds:
            losses.append((label, _series(rows, "train/loss"), color))
            sroccs.append((label, _mean_curve([*_selection_curves(rows).values()]), color))
            label = ""  # one entry of the legend for all rounds
    with themed_figure(3.5, theme) as figure:
        left, right = figure.subplots(1, 2, sharex=True)
        _draw(left, _loss_heading(loss), losses, theme)
        _draw(right, "SROCC that selects the epoch", sroccs, theme)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4)
        return png(figure)


def _draw(axes: Axes, heading: str, lines: _Lines, theme: Theme) -> bool:
    """Draw lines, and say so if none has a point; return whether one has."""
    axes.set_title(heading)
    axes.set_xlabel("step")
    for label, points, color in lines:
        marker = "o" if len(points) < 60 else ""
        axes.plot(*points.T, color=color, linewidth=1.4, marker=marker, markersize=3, label=label)
        axes.yaxis.set_major_formatter("{x:g}")
    recorded = any(len(points) for _, points, _ in lines)
    if not recorded:
        at = axes.transAxes
        axes.text(0.5, 0.5, "not recorded", color=theme.muted, ha="center", transform=at)
        axes.set_yticks([])
    return recorded


def _loss_heading(loss: str) -> str:
    return f"training loss ({loss})" if loss else "training loss"


def _selection_curves(rows: Sequence[MetricRow]) -> dict[str, np.ndarray]:
    """The SROCC of every selection part, (n, 2), by the metrics named "<part>/srocc"."""
    parts = dict.fromkeys(
        row.name.removesuffix("/srocc") for row in rows if row.name.endswith("/srocc")
    )
    return {part: _series(rows, f"{part}/srocc") for part in parts}


def _mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """The mean at the steps that all curves have, (n, 2)."""
    if not curves:
        return np.empty((0, 2))
    values = [dict(map(tuple, curve)) for curve in curves]
    steps = sorted(set(values[0]).intersection(*values[1:]))
    means = [(step, np.mean([value[step] for value in values])) for step in steps]
    return np.array(means).reshape(-1, 2)


def _series(rows: Sequence[MetricRow], name: str) -> np.ndarray:
    points = [(row.step, row.value) for row in rows if row.name == name]
    return np.array(points, float).reshape(-1, 2)
