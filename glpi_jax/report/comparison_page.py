"""The page that sets runs and benchmarks side by side, or tells of one benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from glpi_jax.report import curve_plots, plots
from glpi_jax.report.comparison import (
    HEADINGS,
    WorkdirGroup,
    columns_of,
    protocol_text,
    table_notes,
)
from glpi_jax.report.markup import TEMPLATES, Plot, embed_plot
from glpi_jax.report.parts import WorstImages, fit_of, scatter_panel, worst_images
from glpi_jax.report.plots import ScatterPanel
from glpi_jax.results.workdirs import Workdir, loss_words, title_of

_WORST_IMAGES = 8


def comparison_page(workdirs: Sequence[Workdir], groups: Sequence[WorkdirGroup]) -> str:
    """Lay out the page.

    Args:
        workdirs: from `read_workdirs`, in the order given.
        groups: of these, from `group_workdirs`.
    """
    return TEMPLATES.get_template("comparison.html").render(
        title=title_of(workdirs[0].first),
        workdirs=workdirs,
        groups=[_group(group) for group in groups],
        # By workdir.
        srocc_columns={each.name: [f"SROCC, {name}" for name in each.tests] for each in workdirs},
    )


class _Database(NamedTuple):
    """What the page shows of the workdirs of a group that were tested on a database.

    Attributes:
        runs: the titles and largest errors of the runs that stand for the workdirs.
        scatter: None if no run has predictions.
        several_rounds: whether a run was chosen among several.
        bars: the SROCC by distortion; None where no distortion is known.
        barred: the workdirs that have bars.
    """

    name: str
    runs: list[tuple[str, WorstImages | None]]
    scatter: Plot | None
    several_rounds: bool
    bars: Plot | None
    barred: list[str]


class _Group(NamedTuple):
    """A group with what its table says around its cells, and its plots.

    Attributes:
        group: from `group_workdirs`.
        protocol: from `protocol_text`.
        spans: what is above the header: text, and how many columns it spans.
        header: of the table.
        columns: those of metrics, (database, metric).
        notes: below the table.
        databases: of the tests.
        curves: of the training.
    """

    group: WorkdirGroup
    protocol: tuple[str, str]
    spans: list[tuple[str, int]]
    header: list[str]
    columns: list[tuple[str, str]]
    notes: list[str]
    databases: list[_Database]
    curves: Plot


def _group(group: WorkdirGroup) -> _Group:
    columns = columns_of(group)
    databases = [_database(group, database) for database in group.databases]
    rows = {each.name: [run.rows for run in each.rounds] for each in group.workdirs}
    loss = loss_words([each.first for each in group.workdirs])
    return _Group(
        group,
        protocol_text(group.protocol, crossed=group.trained_on is not None),
        [("", 3), *((database, len(group.metrics)) for database in group.databases)],
        ["Workdir", "Model", "Rounds", *(HEADINGS[metric] for _, metric in columns)],
        columns,
        table_notes(group)[1:],
        databases,
        embed_plot(lambda theme: curve_plots.compared_curves(rows, theme, loss)),
    )


def _database(group: WorkdirGroup, database: str) -> _Database:
    workdirs = [each for each in group.workdirs if database in each.tests]
    runs, panels = [], []
    for each in workdirs:
        # The run that stands for the workdir.
        part, index = each.tests[database], each.median_round(each.tests[database])
        title = f"{each.name}, round {index + 1}" if len(each.rounds) > 1 else each.name
        results = each.rounds[index].results
        fit = fit_of(results["parts"][part])
        runs.append((title, worst_images(part, results, fit, _WORST_IMAGES)))
        if results["parts"][part]["predictions"]:
            panels.append(scatter_panel(part, results, fit, title))
    bars = {
        each.name: medians
        for each in workdirs
        if (medians := _median_by_distortion(each, each.tests[database]))
    }
    return _Database(
        database,
        runs,
        _scatter(panels) if panels else None,
        any(len(each.rounds) > 1 for each in workdirs),
        _bars(database, workdirs, bars) if bars else None,
        [*bars],
    )


def _scatter(panels: Sequence[ScatterPanel]) -> Plot:
    if len(panels) == 1:
        return embed_plot(lambda theme: plots.scatter(panels[0], theme))
    return embed_plot(lambda theme: plots.scatter_panels(panels, theme))


def _bars(
    database: str,
    workdirs: Sequence[Workdir],
    medians: Mapping[str, Mapping[str, float | None]],
) -> Plot:
    images: dict[str, int] = {}
    for each in workdirs:
        for run in each.rounds:  # a random test part may lack a distortion
            table = run.results["parts"][each.tests[database]]["by_distortion"]
            for name, metrics in table.items():
                images.setdefault(name, metrics["images"])
    return embed_plot(lambda theme: plots.distortion_bars(medians, images, theme))


def _median_by_distortion(workdir: Workdir, part: str) -> dict[str, float | None]:
    """Medians over the rounds, None for a distortion that is undefined or missing in one."""
    tables = [run.results["parts"][part]["by_distortion"] for run in workdir.rounds]
    medians: dict[str, float | None] = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table[name]["srocc"] if name in table else None for table in tables]
        known = [value for value in values if value is not None]
        medians[name] = median(known) if len(known) == len(values) else None
    return medians
