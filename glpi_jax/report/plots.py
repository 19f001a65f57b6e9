"""The plots of scores in the report, each a PNG file in a theme, `LIGHT` or `DARK`.

Figures are made without pyplot, so that nothing depends on a display or on global state. Colours
are those of Okabe and Ito, which stay apart for colour-blind readers; markers tell more than eight
distortions apart, hatches more than eight runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from glpi_jax.evaluation.logistic import LogisticFit
from glpi_jax.report.plot_style import (
    DASHED,
    HATCHES,
    MARKERS,
    Theme,
    legend_name,
    plain,
    png,
    shortened,
    themed_figure,
)

_POINTS: dict[str, Any] = {"alpha": 0.75, "linewidths": 0, "zorder": 2}


class ScatterPanel(NamedTuple):
    """What one scatter plot shows.

    `facts` follow the title; `predictions` are entries of results.json with `mos`, `predicted` and
    `distortion` (or None); `fit` is the curve through them, None for too few images; `score_name`
    is what the label is called, `MOS` or `DMOS`.
    """

    title: str
    facts: str
    predictions: Sequence[Mapping[str, Any]]
    fit: LogisticFit | None
    score_name: str


def scatter(panel: ScatterPanel, theme: Theme) -> bytes:
    """Plot at least one image: label against prediction, coloured by distortion, fitted curve."""
    names = list(dict.fromkeys(entry["distortion"] for entry in panel.predictions))
    count = len(names)
    with themed_figure(4.9, theme) as figure:
        axes = figure.subplots()
        for index, name in enumerate(names):
            own = [entry for entry in panel.predictions if entry["distortion"] == name]
            predicted, mos = _scores(own)
            axes.scatter(
                predicted,
                mos,
                s=20 if len(panel.predictions) < 2000 else 6,
                color=theme.series[index % len(theme.series)],
                marker=MARKERS[index // len(theme.series) % len(MARKERS)],
                label=plain(name) if name is not None else "image",
                **_POINTS,
            )
        _curves_and_labels(axes, panel, theme)
        axes.set_title(f"{panel.title}: {panel.facts}")
        axes.set(box_aspect=1, anchor="W")
        # Outside, so that it hides no point.
        handles, labels = axes.get_legend_handles_labels()
        above = axes.legend(
            handles[count:], labels[count:], loc="upper left", bbox_to_anchor=(1.03, 1)
        )
        axes.add_artist(above)
        if count > 1:
            axes.legend(
                handles[:count],
                labels[:count],
                loc="upper left",
                bbox_to_anchor=(1.03, 0.86),
                title="distortion",
                alignment="left",
                ncols=1 if count <= 12 else 2,
            )
        return png(figure)


def scatter_panels(panels: Sequence[ScatterPanel], theme: Theme) -> bytes:
    """Draw scatter plots with fitted curves side by side, three in a row, in one colour.

    At least one, each with at least one image.
    """
    with themed_figure(0.45 + 3.75 * -(-len(panels) // 3), theme) as figure:
        entries: dict[str, Artist] = {}  # one of each kind: the panels may differ in what they show
        for axes, panel in zip(_grid(figure, len(panels), 3), panels, strict=True):
            size = 14 if len(panel.predictions) < 500 else 4
            predicted, mos = _scores(panel.predictions)
            axes.scatter(predicted, mos, s=size, color=theme.accent, **_POINTS)
            _curves_and_labels(axes, panel, theme)
            axes.set_title(f"{shortened(panel.title)}\n{panel.facts}")
            axes.set_box_aspect(1)
            handles, labels = axes.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        figure.legend([*entries.values()], [*entries], loc="outside upper left", ncols=4)
        return png(figure)


def _grid(figure: Figure, count: int, columns: int, *, shared: bool = False) -> list[Axes]:
    """Give axes row by row; those that the last row has besides are hidden."""
    rows = -(-count // columns)
    grid = figure.subplots(rows, columns, sharex=shared, sharey=shared, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return list(grid[:count])


def _scores(entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Predictions and labels, (2, n)."""
    return np.array([(entry["predicted"], entry["mos"]) for entry in entries]).T


def _curves_and_labels(axes: Axes, panel: ScatterPanel, theme: Theme) -> None:
    """Add the fitted curve, and the line of equal scores where both sides share a scale."""
    (left, right), (low, high) = map(_limits, _scores(panel.predictions))
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


def distortion_bars(
    runs: Mapping[str, Mapping[str, float | None]], images: Mapping[str, int], theme: Theme
) -> bytes:
    """Draw the SROCC within each distortion as bars, one a run; the best distortion on top.

    Distortions are sorted by their mean over the runs; undefined values are text, and distortions
    without any value come last.

    Args:
        runs: `{name of the run: {distortion: SROCC or None}}`, with at least one distortion in all.
        images: how many images the part has of each distortion.
        theme: of the page.
    """
    values: dict[str, list[float]] = {name: [] for run in runs.values() for name in run}
    for run in runs.values():
        for name, srocc in run.items():
            values[name] += [] if srocc is None else [srocc]
    ordered = sorted(values, key=lambda name: np.mean(values[name]) if values[name] else -np.inf)
    lowest = min([value for known in values.values() for value in known], default=1)
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
            xlim=(min(0, lowest - 0.12), 1.1),
            ylim=(-0.6, len(ordered) - 0.4),
            xlabel="SROCC within the distortion (number of images)",
        )
        if len(runs) > 1:
            figure.legend(handles=keys, loc="outside upper left", ncols=4)
        return png(figure)


def level_means(predictions: Sequence[Mapping[str, Any]], score_name: str, theme: Theme) -> bytes:
    """Plot the mean label and the mean prediction against the level, one panel a distortion.

    Predictions without a distortion or level are left out; `score_name` is that of the label.
    """
    known = [e for e in predictions if e["distortion"] is not None and e["level"] is not None]
    names = list(dict.fromkeys(entry["distortion"] for entry in known))
    columns = min(5, len(names))
    with themed_figure(0.7 + 1.65 * -(-len(names) // columns), theme) as figure:
        grid = _grid(figure, len(names), columns, shared=True)
        for axes, name in zip(grid, names, strict=True):
            levels = sorted({e["level"] for e in known if e["distortion"] == name})
            groups = (
                [e for e in known if (e["distortion"], e["level"]) == (name, level)]
                for level in levels
            )
            predicted, mos = np.array([_scores(group).mean(1) for group in groups]).T
            axes.plot(levels, mos, "o-", color=theme.muted, label=score_name)
            axes.plot(levels, predicted, "s-", color=theme.accent, label="predicted")
            axes.set_title(plain(name), fontsize=9, fontweight="normal")
            axes.set_xticks(sorted({e["level"] for e in known}))
        # A panel above a hidden one keeps its own numbers.
        for axes in grid[-columns:]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("level")
        handles, captions = grid[0].get_legend_handles_labels()
        figure.legend(handles, captions, loc="outside upper left", ncols=2)
        return png(figure)
