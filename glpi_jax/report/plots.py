"""The plots of the report, each a PNG in a light or a dark version.

Figures are made without pyplot, so that nothing depends on a display or on global state. Colours
are those of Okabe and Ito, which stay apart for colour-blind readers; markers tell more than eight
distortions apart, hatches more than eight runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from glpi_jax.evaluation.logistic import LogisticFit
from glpi_jax.report.plot_style import (
    DARK,
    DASHED,
    HATCHES,
    LIGHT,
    MARKERS,
    Theme,
    legend_name,
    plain,
    png,
    shortened,
    themed_figure,
)
from glpi_jax.results.metrics_file import MetricRow

__all__ = [
    "DARK",
    "LIGHT",
    "ScatterPanel",
    "Theme",
    "compared_curves",
    "distortion_bars",
    "level_means",
    "scatter",
    "scatter_panels",
    "selection_curves",
    "training_curves",
]


class ScatterPanel(NamedTuple):
    """What one scatter plot shows.

    Attributes:
        title: what it is of.
        facts: what follows the title.
        predictions: entries of results.json with `mos`, `predicted` and `distortion` (or None).
        fit: the logistic curve through them, None for too few images.
        score_name: what the label is called, `MOS` or `DMOS`.
    """

    title: str
    facts: str
    predictions: Sequence[Mapping[str, Any]]
    fit: LogisticFit | None
    score_name: str


def scatter(panel: ScatterPanel, theme: Theme) -> bytes:
    """Plot subjective against predicted scores, coloured by distortion, with the fitted curve.

    Args:
        panel: at least one image.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """
    names = list(dict.fromkeys(entry["distortion"] for entry in panel.predictions))
    with themed_figure(4.9, theme) as figure:
        axes = figure.subplots()
        for index, name in enumerate(names):
            _points(
                axes,
                [entry for entry in panel.predictions if entry["distortion"] == name],
                size=20 if len(panel.predictions) < 2000 else 6,
                color=theme.series[index % len(theme.series)],
                marker=MARKERS[index // len(theme.series) % len(MARKERS)],
                label=plain(name) if name is not None else "image",
            )
        _curves_and_labels(axes, panel, theme)
        axes.set_title(f"{panel.title}: {panel.facts}")
        axes.set(box_aspect=1, anchor="W")
        # Outside, so that it hides no point.
        handles, labels = axes.get_legend_handles_labels()
        points = len(names) if len(names) > 1 else 0
        above = axes.legend(
            handles[len(names) :], labels[len(names) :], loc="upper left", bbox_to_anchor=(1.03, 1)
        )
        axes.add_artist(above)
        if points:
            axes.legend(
                handles[:points],
                labels[:points],
                loc="upper left",
                bbox_to_anchor=(1.03, 0.86),
                title="distortion",
                alignment="left",
                ncols=1 if points <= 12 else 2,
            )
        return png(figure)


def scatter_panels(panels: Sequence[ScatterPanel], theme: Theme) -> bytes:
    """Draw scatter plots with fitted curves side by side, three in a row, in one colour.

    Args:
        panels: at least one, each with at least one image.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """
    columns = 3
    rows = -(-len(panels) // columns)
    with themed_figure(0.45 + 3.75 * rows, theme) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            size = 14 if len(panel.predictions) < 500 else 4
            _points(axes, panel.predictions, size=size, color=theme.accent, marker="o", label="")
            _curves_and_labels(axes, panel, theme)
            axes.set_title(f"{shortened(panel.title)}\n{panel.facts}")
            axes.set_box_aspect(1)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        # One of each kind: the panels may differ in what they show.
        entries = {
            label: handle
            for axes in grid[: len(panels)]
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend([*entries.values()], [*entries], loc="outside upper left", ncols=4)
        return png(figure)


def _points(
    axes: Axes,
    entries: Sequence[Mapping[str, Any]],
    *,
    size: int,
    color: str,
    marker: str,
    label: str,
) -> None:
    axes.scatter(
        [entry["predicted"] for entry in entries],
        [entry["mos"] for entry in entries],
        s=size,
        color=color,
        marker=marker,
        alpha=0.75,
        linewidths=0,
        label=label,
        zorder=2,
    )


def _curves_and_labels(axes: Axes, panel: ScatterPanel, theme: Theme) -> None:
    """Add the fitted curve, and the line of equal scores where both sides share a scale."""
    predicted = np.array([entry["predicted"] for entry in panel.predictions])
    mos = np.array([entry["mos"] for entry in panel.predictions])
    (left, right), (low, high) = (_limits(values) for values in (predicted, mos))
    if panel.fit is not None:
        x = np.linspace(left, right, 300)
        label = "fitted logistic function"
        if panel.fit.form == "linear":
            better = "is better" if panel.fit.converged else "fits"
            label = f"fitted line, as no logistic function {better}"
        axes.plot(x, panel.fit(x), color=theme.text, linewidth=1.8, label=label, zorder=3)
    if max(left, low) < min(right, high):
        ends = (max(left, low), min(right, high))
        axes.plot(
            ends, ends, color=theme.muted, linewidth=1, linestyle=DASHED, zorder=1,
            label=f"predicted = {panel.score_name}",
        )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(low, high), xlabel="predicted", ylabel=panel.score_name)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


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


def distortion_bars(
    runs: Mapping[str, Mapping[str, float | None]], images: Mapping[str, int], theme: Theme
) -> bytes:
    """Draw the SROCC within each distortion as bars, one a run; the best distortion on top.

    Distortions are sorted by their mean over the runs; undefined values are text, and distortions
    without any value come last.

    Args:
        runs: `{name of the run: {distortion: SROCC or None}}`, with at least one distortion in all.
        images: how many images the part has of each distortion.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """

    def mean(distortion: str) -> float:
        values = [run.get(distortion) for run in runs.values()]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else -np.inf

    ordered = sorted(dict.fromkeys(name for run in runs.values() for name in run), key=mean)
    defined = [value for run in runs.values() for value in run.values() if value is not None]
    thick = 0.66 if len(runs) == 1 else 0.84 / len(runs)
    legend = 0.3 if len(runs) > 1 else 0.0
    row = 0.25 if len(runs) == 1 else 0.1 + 0.15 * len(runs)
    with themed_figure(0.75 + legend + row * len(ordered), theme) as figure:
        axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=theme.muted, linewidth=0.8, zorder=3)
        keys = []
        for index, (name, run) in enumerate(runs.items()):
            color = theme.accent if len(runs) == 1 else theme.series[index % len(theme.series)]
            hatch = HATCHES[index // len(theme.series) % len(HATCHES)]
            keys.append(Patch(color=color, hatch=hatch, label=legend_name(name)))
            offset = thick * ((len(runs) - 1) / 2 - index)  # the first run on top
            for place, distortion in enumerate(ordered):
                if distortion not in run:
                    continue
                value, y = run[distortion], place + offset
                if value is None:
                    axes.text(0.012, y, "undefined", va="center", color=theme.muted, fontsize=8)
                    continue
                turned = len(runs) == 1 and value < 0
                axes.barh(
                    y, value, height=thick, color=theme.second if turned else color,
                    hatch=hatch, edgecolor=theme.background, linewidth=0, zorder=2,
                )  # fmt: skip
                side, gap = ("left", 0.012) if value >= 0 else ("right", -0.012)
                axes.text(value + gap, y, f"{value:.3f}", va="center", ha=side, fontsize=7.5)
        axes.set_yticks(
            range(len(ordered)), [f"{plain(name)}  ({images[name]})" for name in ordered]
        )
        axes.set(
            xlim=(min([0, *(value - 0.12 for value in defined)]), 1.1),
            ylim=(-0.6, len(ordered) - 0.4),
            xlabel="SROCC within the distortion (number of images)",
        )
        if len(runs) > 1:
            figure.legend(handles=keys, loc="outside upper left", ncols=4)
        return png(figure)


def level_means(predictions: Sequence[Mapping[str, Any]], score_name: str, theme: Theme) -> bytes:
    """Plot the mean label and the mean prediction against the level, one panel a distortion.

    Args:
        predictions: entries of results.json; those without a distortion or level are left out.
        score_name: what the label is called, `MOS` or `DMOS`.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """
    known = [e for e in predictions if e["distortion"] is not None and e["level"] is not None]
    names = list(dict.fromkeys(entry["distortion"] for entry in known))
    columns = min(5, len(names))
    count = -(-len(names) // columns)
    with themed_figure(0.7 + 1.65 * count, theme) as figure:
        grid = figure.subplots(count, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, name in zip(grid, names, strict=False):
            rows = sorted((e for e in known if e["distortion"] == name), key=lambda e: e["level"])
            by_level = {
                level: [(e["mos"], e["predicted"]) for e in group]
                for level, group in groupby(rows, key=lambda e: e["level"])
            }
            means = np.array([np.mean(scores, axis=0) for scores in by_level.values()])
            axes.plot([*by_level], means[:, 0], "o-", color=theme.muted, label=score_name)
            axes.plot([*by_level], means[:, 1], "s-", color=theme.accent, label="predicted")
            axes.set_title(plain(name), fontsize=9, fontweight="normal")
            axes.set_xticks(sorted({e["level"] for e in known}))
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        # A panel above a hidden one keeps its own numbers.
        for axes in grid[max(0, len(names) - columns) : len(names)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("level")
        handles, captions = grid[0].get_legend_handles_labels()
        figure.legend(handles, captions, loc="outside upper left", ncols=2)
        return png(figure)
