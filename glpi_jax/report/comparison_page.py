"""The page that sets runs and benchmarks side by side, or tells of one benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import NamedTuple

from glpi_jax.evaluation.logistic import LogisticFit
from glpi_jax.report import curve_plots, markup, plots
from glpi_jax.report.comparison import (
    HEADINGS,
    WorkdirGroup,
    columns_of,
    protocol_text,
    table_notes,
)
from glpi_jax.report.parts import fit_of, scatter_panel, worst_images
from glpi_jax.report.run_page import millions
from glpi_jax.report.tables import number, spread_text
from glpi_jax.results.workdirs import Results, Workdir, loss_words, title_of

_WORST_IMAGES = 8


def comparison_page(workdirs: Sequence[Workdir], groups: Sequence[WorkdirGroup]) -> str:
    """Lay out the page.

    Args:
        workdirs: from `read_workdirs`, in the order given.
        groups: of these, from `group_workdirs`.
    """
    if len(workdirs) == 1:
        (only,) = workdirs
        rounds = len(only.rounds)
        title = f"{title_of(only.first)}: {rounds} round{'' if rounds == 1 else 's'}"
        kind = "Benchmark of no-reference image quality assessment"
    else:
        title = f"{len(workdirs)} workdirs side by side"
        kind = "No-reference image quality assessment"
    facts = {
        "Models": ", ".join(dict.fromkeys(each.first["model"]["name"] for each in workdirs)),
        "Protocols": ", ".join(dict.fromkeys(group.protocol for group in groups)),
        "Test databases": ", ".join(
            dict.fromkeys(database for group in groups for database in group.databases)
        ),
    }
    sections = [_table_section(group) for group in groups]
    for group in groups:
        # One group needs no name on each of its cards.
        where = f" ({group.title})" if len(groups) > 1 else ""
        sections += [_database_section(group, database, where) for database in group.databases]
        sections.append(_training_section(group, where))
    sections.append(_workdirs_section(workdirs))
    return markup.page(title, kind, facts, sections)


def _table_section(group: WorkdirGroup) -> str:
    columns = columns_of(group)
    rows = []
    for each in group.workdirs:
        cells = [
            f"<strong>{escape(each.name)}</strong><small>{escape(each.first['protocol'])}</small>",
            escape(each.first["model"]["name"]),
            str(len(each.rounds)),
        ]
        rows.append(cells + [_cell(group, each, *column) for column in columns])
    table = markup.table(
        ["Workdir", "Model", "Rounds", *(HEADINGS[metric] for _, metric in columns)],
        rows,
        numbers_from=2,
        spans=[("", 3), *((database, len(group.metrics)) for database in group.databases)],
    )
    protocol = protocol_text(group.protocol, crossed=group.trained_on is not None)
    notes = markup.muted(" ".join(table_notes(group)[1:]))
    return markup.section(group.title, markup.note(*protocol), table, notes)


def _cell(group: WorkdirGroup, workdir: Workdir, database: str, metric: str) -> str:
    cell = group.cells.get((workdir.name, database, metric))
    if cell is None:
        return "–"
    if cell.spread["median"] is None or cell.spread["std"] is None:
        text = spread_text(cell.spread)
    else:
        deviation = number(cell.spread["std"])
        text = f"{number(cell.spread['median'])}<small>± {deviation}</small>"
    return f'<strong class="best">{text}</strong>' if cell.best else text


class _Shown(NamedTuple):
    """The run that stands for a workdir on a database, and the curve through its predictions."""

    title: str
    part: str
    results: Results
    fit: LogisticFit | None


def _shown(workdir: Workdir, database: str) -> _Shown:
    part = workdir.tests[database]
    index = workdir.median_round(part)
    title = f"{workdir.name}, round {index + 1}" if len(workdir.rounds) > 1 else workdir.name
    results = workdir.rounds[index].results
    return _Shown(title, part, results, fit_of(results["parts"][part]))


def _database_section(group: WorkdirGroup, database: str, where: str) -> str:
    workdirs = [each for each in group.workdirs if database in each.tests]
    shown = [_shown(each, database) for each in workdirs]
    several_rounds = any(len(each.rounds) > 1 for each in workdirs)
    content = [_scatter_figure(database, shown, several_rounds=several_rounds)]
    if bars := _bars_figure(database, workdirs):
        content.append(bars)
    content += [
        markup.details(
            f"Largest errors: {run.title}",
            worst_images(run.part, run.results, run.fit, _WORST_IMAGES),
            opened=len(shown) <= 2,
        )
        for run in shown
    ]
    return markup.section(f"{database}{where}", *content)


def _scatter_figure(database: str, shown: Sequence[_Shown], *, several_rounds: bool) -> str:
    panels = [
        scatter_panel(run.part, run.results, run.fit, run.title)
        for run in shown
        if run.results["parts"][run.part]["predictions"]
    ]
    if not panels:
        return markup.muted("There are no predictions to plot.")
    which = (
        " Of several rounds it is the one whose SROCC is nearest to the median."
        if several_rounds
        else ""
    )
    return markup.figure(
        lambda theme: (
            plots.scatter(panels[0], theme)
            if len(panels) == 1
            else plots.scatter_panels(panels, theme)
        ),
        f"Labels of {database} against predictions: {', '.join(run.title for run in shown)}",
        "Every point is a test image; the curve is the logistic function of 4 parameters, fitted"
        f" to the points.{which}",
    )


def _bars_figure(database: str, workdirs: Sequence[Workdir]) -> str:
    """The SROCC by distortion, medians over the rounds; empty where no distortion is known."""
    runs = {each.name: _median_by_distortion(each, each.tests[database]) for each in workdirs}
    runs = {name: bars for name, bars in runs.items() if bars}
    if not runs:
        return ""
    images: dict[str, int] = {}
    for each in workdirs:
        for run in each.rounds:  # a random test part may lack a distortion
            table = run.results["parts"][each.tests[database]]["by_distortion"]
            for name, metrics in table.items():
                images.setdefault(name, metrics["images"])
    return markup.figure(
        lambda theme: plots.distortion_bars(runs, images, theme),
        f"SROCC by distortion on {database}: {', '.join(runs)}",
        "SROCC among the test images of one distortion, the median over the rounds; undefined where"
        " a round has none. In brackets the images of the first round that has the distortion.",
    )


def _median_by_distortion(workdir: Workdir, part: str) -> dict[str, float | None]:
    """Medians over the rounds, None for a distortion that is undefined or missing in one."""
    tables = [run.results["parts"][part]["by_distortion"] for run in workdir.rounds]
    medians: dict[str, float | None] = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table[name]["srocc"] if name in table else None for table in tables]
        known = [value for value in values if value is not None]
        medians[name] = median(known) if len(known) == len(values) else None
    return medians


def _training_section(group: WorkdirGroup, where: str) -> str:
    runs = {each.name: [run.rows for run in each.rounds] for each in group.workdirs}
    loss = loss_words([each.first for each in group.workdirs])
    figure = markup.figure(
        lambda theme: curve_plots.compared_curves(runs, theme, loss),
        f"Training loss and SROCC of the selection parts: {', '.join(runs)}",
        "A line for every round, from its metrics.csv; of several selection parts the mean.",
    )
    return markup.section(f"Training{where}", figure)


def _workdirs_section(workdirs: Sequence[Workdir]) -> str:
    content = []
    for each in workdirs:
        first = each.first
        rounds = len(each.rounds)
        facts = {
            "Folder": each.folder,
            "Model": f"{first['model']['name']}, {millions(first['model']['parameters'])}",
            "Protocol": first["protocol"],
            "Selected by": _criterion(first),
            "Device": first["device"],
            "Revision": first["git_revision"] or "not known",
        }
        shown = "".join(
            f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"
            for name, value in facts.items()
        )
        summary = f"{each.name}: {rounds} round{'' if rounds == 1 else 's'}"
        content.append(
            markup.details(
                summary,
                f'<dl class="facts">{shown}</dl>{_rounds_table(each)}',
                opened=len(workdirs) == 1,
            )
        )
    return markup.section("Rounds and settings", *content)


def _criterion(results: Results) -> str:
    selection = results["selection"]
    return "given weights, not selected" if selection is None else str(selection["criterion"])


def _rounds_table(workdir: Workdir) -> str:
    rows = []
    for index, run in enumerate(workdir.rounds, start=1):
        results = run.results
        selection = results["selection"]
        rows.append(
            [
                str(index),
                str(results["seed"]),
                f"<code>{escape(results['split']['sha256'][:12])}</code>",
                "–" if selection is None else str(selection["epoch"]),
                *(
                    number(results["parts"][part]["metrics"]["srocc"])
                    for part in workdir.tests.values()
                ),
            ]
        )
    header = ["Round", "Seed", "Split (SHA-256)", "Epoch selected"]
    header += [f"SROCC, {database}" for database in workdir.tests]
    return markup.table(header, rows, numbers_from=3)
