"""The plots of a training over its steps, each a PNG in a light or a dark version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from glpi_jax.report.plot_style import DASHED, Theme, legend_name, png, themed_figure
from glpi_jax.results.metrics_file import MetricRow


def selection_curves(rows: Sequence[MetricRow]) -> dict[str, np.ndarray]:
    """Give the SROCC of every selection part over the steps.

    Args:
        rows: the content of metrics.csv.

    Returns:
        `{part: (n, 2)}`, step and SROCC, by the parts of metrics named "<part>/srocc".
    """
    parts = dict.fromkeys(
        row.name.removesuffix("/srocc") for row in rows if row.name.endswith("/srocc")
    )
    return {part: _series(rows, f"{part}/srocc") for part in parts}


def training_curves(
    rows: Sequence[MetricRow], selected_step: int | None, theme: Theme, loss: str = ""
) -> bytes:
    """Plot loss, learning rate and the selection parts' SROCC over the steps, where recorded.

    Args:
        rows: the content of metrics.csv.
        selected_step: the step of the evaluated checkpoint, marked by a line; None marks none.
        theme: `LIGHT` or `DARK`.
        loss: from `loss_words`, for the heading; "" if not known.

    Returns:
        A PNG file.
    """
    parts = selection_curves(rows)
    title = f"{next(iter(parts))} SROCC" if len(parts) == 1 else "SROCC of the selection parts"
    colors = (theme.second, *theme.series)
    panels = [
        (
            f"training loss ({loss})" if loss else "training loss",
            [("", _series(rows, "train/loss"), theme.accent)],
        ),
        ("learning rate", [("", _series(rows, "train/learning_rate"), theme.muted)]),
        (
            title if parts else "validation SROCC",
            [
                (part, points, colors[index % len(colors)])
                for index, (part, points) in enumerate(parts.items())
            ],
        ),
    ]
    with themed_figure(2.9, theme) as figure:
        grid = figure.subplots(1, len(panels), sharex=True)
        for axes, (heading, lines) in zip(grid, panels, strict=True):
            axes.set_title(heading)
            axes.set_xlabel("step")
            if not any(len(points) for _, points, _ in lines):
                _not_recorded(axes, theme)
                continue
            for part, points, color in lines:
                _line(axes, points, color, part)
            if len(lines) > 1:
                axes.legend(fontsize=8)
            if selected_step is not None:
                axes.axvline(selected_step, color=theme.muted, linewidth=1, linestyle=DASHED)
        return png(figure)


def compared_curves(
    runs: Mapping[str, Sequence[Sequence[MetricRow]]], theme: Theme, loss: str = ""
) -> bytes:
    """Plot training loss and the SROCC that selects the epoch, a colour a workdir, a line a round.

    Args:
        runs: by workdir, the content of each round's metrics.csv; of several selection parts the
            mean is shown.
        theme: `LIGHT` or `DARK`.
        loss: from `loss_words`, for the heading; "" if not known.

    Returns:
        A PNG file.
    """
    with themed_figure(3.5, theme) as figure:
        grid = figure.subplots(1, 2, sharex=True)
        grid[0].set_title(f"training loss ({loss})" if loss else "training loss")
        grid[1].set_title("SROCC that selects the epoch")
        for index, (name, rounds) in enumerate(runs.items()):
            color = theme.series[index % len(theme.series)]
            for number, rows in enumerate(rounds):
                label = legend_name(name) if number == 0 else ""
                _line(grid[0], _series(rows, "train/loss"), color, label)
                _line(grid[1], _mean_curve([*selection_curves(rows).values()]), color, label)
        for axes in grid:
            axes.set_xlabel("step")
            if not any(len(line.get_xdata()) for line in axes.lines):
                _not_recorded(axes, theme)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4)
        return png(figure)


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


def _line(axes: Axes, points: np.ndarray, color: str, label: str) -> None:
    marker = "o" if len(points) < 60 else ""
    axes.plot(*points.T, color=color, linewidth=1.4, marker=marker, markersize=3, label=label)
    axes.yaxis.set_major_formatter("{x:g}")


def _not_recorded(axes: Axes, theme: Theme) -> None:
    axes.text(0.5, 0.5, "not recorded", color=theme.muted, ha="center", transform=axes.transAxes)
    axes.set_yticks([])
