"""The plots of the report, each a PNG in a light or a dark version.

Figures are made without pyplot, so that nothing depends on a display or on global state. Colours
are those of Okabe and Ito, which stay apart for colour-blind readers; markers tell more than eight
distortions apart.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from glpi_jax.training.metric_writer import MetricRow

__all__ = ["DARK", "LIGHT", "Theme", "distortion_bars", "level_means", "scatter", "training_curves"]


class Theme(NamedTuple):
    """Colours of the page around a plot, and those of its data."""

    background: str
    text: str
    muted: str
    grid: str
    accent: str
    second: str
    series: tuple[str, ...]


LIGHT = Theme(
    background="#ffffff", text="#1c2430", muted="#5b6675", grid="#e3e7ec",
    accent="#0072b2", second="#d55e00",
    series=(
        "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a7f00", "#3a3f47",
    ),
)  # fmt: skip
DARK = Theme(
    background="#171c24", text="#e6eaf0", muted="#9aa6b5", grid="#2b333f",
    accent="#56b4e9", second="#ff9d4d",
    series=(
        "#56b4e9", "#e69f00", "#2fc79a", "#ff7a3d", "#e39ac4", "#8fb8ff", "#f0e442", "#c9d1db",
    ),
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D")
_DASHED = (0, (4, 3))
_WIDTH_INCHES = 10.2
_DOTS_PER_INCH = 160


def scatter(
    predictions: Sequence[Mapping[str, Any]],
    srocc: float | None,
    part: str,
    score_name: str,
    theme: Theme,
) -> bytes:
    """Plot predicted against subjective scores, coloured by distortion, with the identity line.

    Args:
        predictions: entries of results.json with `mos`, `predicted` and `distortion` (or None).
        srocc: the part's SROCC, for the title; None where it is undefined.
        part: name of the part, for the title.
        score_name: what the label is called, `MOS` or `DMOS`.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """
    names = list(dict.fromkeys(entry["distortion"] for entry in predictions))
    scores = np.array([(entry["mos"], entry["predicted"]) for entry in predictions])
    low, high = scores.min(), scores.max()
    margin = 0.04 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    with _figure(4.9, theme) as figure:
        axes = figure.subplots()
        axes.plot(limits, limits, color=theme.muted, linewidth=1, linestyle=_DASHED, zorder=1)
        for index, name in enumerate(names):
            rows = [entry for entry in predictions if entry["distortion"] == name]
            axes.scatter(
                [entry["mos"] for entry in rows],
                [entry["predicted"] for entry in rows],
                s=20 if len(scores) < 2000 else 6,
                color=theme.series[index % len(theme.series)],
                marker=_MARKERS[index // len(theme.series) % len(_MARKERS)],
                alpha=0.8,
                linewidths=0,
                label=_plain(name) if name is not None else "image",
                zorder=2,
            )
        axes.set(xlim=limits, ylim=limits, xlabel=score_name, ylabel="predicted")
        axes.set(aspect="equal", anchor="W")
        value = "undefined" if srocc is None else f"{srocc:.4f}"
        axes.set_title(f"{part.capitalize()}: SROCC {value}, {len(scores)} images")
        if len(names) > 1:
            # Outside, so that it hides no point.
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(1.03, 1.02),
                title="distortion",
                alignment="left",
                ncols=1 if len(names) <= 14 else 2,
            )
        return _png(figure)


def training_curves(rows: Sequence[MetricRow], selected_step: int | None, theme: Theme) -> bytes:
    """Plot loss, learning rate and validation SROCC over the steps, those that were recorded.

    Args:
        rows: the content of metrics.csv.
        selected_step: the step of the evaluated checkpoint, marked by a line; None marks none.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """
    panels = [
        ("train/loss", "training loss (mean absolute error)", theme.accent),
        ("train/learning_rate", "learning rate", theme.muted),
        ("validation/srocc", "validation SROCC", theme.second),
    ]
    with _figure(2.9, theme) as figure:
        grid = figure.subplots(1, len(panels), sharex=True)
        for axes, (name, title, color) in zip(grid, panels, strict=True):
            axes.set_title(title)
            axes.set_xlabel("step")
            points = np.array([(row.step, row.value) for row in rows if row.name == name])
            if not len(points):
                middle = {"x": 0.5, "y": 0.5, "transform": axes.transAxes, "ha": "center"}
                axes.text(s="not recorded", color=theme.muted, **middle)
                axes.set_yticks([])
                continue
            marker = "o" if len(points) < 60 else ""
            axes.plot(*points.T, color=color, linewidth=1.4, marker=marker, markersize=3)
            axes.yaxis.set_major_formatter("{x:g}")
            if selected_step is not None:
                axes.axvline(selected_step, color=theme.muted, linewidth=1, linestyle=_DASHED)
        return _png(figure)


def distortion_bars(by_distortion: Mapping[str, Mapping[str, Any]], theme: Theme) -> bytes:
    """Draw the SROCC within each distortion as a bar, best first; undefined ones are last, in text.

    Args:
        by_distortion: `{name: {"images": int, "srocc": float or None, …}}`, at least one.
        theme: `LIGHT` or `DARK`.

    Returns:
        A PNG file.
    """
    ordered = sorted(
        by_distortion.items(),
        key=lambda item: -np.inf if item[1]["srocc"] is None else item[1]["srocc"],
    )
    defined = [metrics["srocc"] for _, metrics in ordered if metrics["srocc"] is not None]
    with _figure(0.75 + 0.25 * len(ordered), theme) as figure:
        axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=theme.muted, linewidth=0.8, zorder=3)
        for position, (_, metrics) in enumerate(ordered):
            value = metrics["srocc"]
            if value is None:
                axes.text(0.012, position, "undefined", va="center", color=theme.muted)
                continue
            color, side, gap = (
                (theme.accent, "left", 0.012) if value >= 0 else (theme.second, "right", -0.012)
            )
            axes.barh(position, value, height=0.66, color=color, zorder=2)
            axes.text(value + gap, position, f"{value:.3f}", va="center", ha=side, fontsize=8)
        axes.set_yticks(
            range(len(ordered)),
            [f"{_plain(name)}  ({metrics['images']})" for name, metrics in ordered],
        )
        axes.set(
            xlim=(min([0, *(value - 0.12 for value in defined)]), 1.1),
            ylim=(-0.6, len(ordered) - 0.4),
            xlabel="SROCC within the distortion (number of images)",
        )
        return _png(figure)


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
    with _figure(0.7 + 1.65 * count, theme) as figure:
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
            axes.set_title(_plain(name), fontsize=9, fontweight="normal")
            axes.set_xticks(sorted({e["level"] for e in known}))
        for axes in grid[len(names) :]:
            axes.set_visible(False)
        # A panel above a hidden one keeps its own numbers.
        for axes in grid[max(0, len(names) - columns) : len(names)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("level")
        handles, captions = grid[0].get_legend_handles_labels()
        figure.legend(handles, captions, loc="outside upper left", ncols=2)
        return _png(figure)


@contextmanager
def _figure(height: float, theme: Theme) -> Iterator[Figure]:
    """Give an empty figure of this height in inches; what is drawn inside follows the theme."""
    style: dict[Any, Any] = {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.background,
        "axes.grid": True,
        "axes.labelcolor": theme.muted,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "figure.facecolor": theme.background,
        "font.size": 9,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "text.color": theme.text,
        "xtick.color": theme.muted,
        "xtick.major.size": 0,
        "ytick.color": theme.muted,
        "ytick.major.size": 0,
    }
    with mpl.rc_context(style):
        yield Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
