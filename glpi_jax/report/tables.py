"""Tables as text: of one run or benchmark for the terminal, of several in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glpi_jax.report.comparison import HEADINGS, RAW, Spread, WorkdirGroup, table_notes
from glpi_jax.results.workdirs import Results, Workdir, parts_in_order, title_of

UNDEFINED = "undefined"


def number(value: float | None, digits: int = 4) -> str:
    """Write a metric, "undefined" where it has no value."""
    return UNDEFINED if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def spread_text(spread: Spread) -> str:
    """Write median ± standard deviation; the median alone for one round."""
    median, deviation = spread["median"], spread["std"]
    if median is None:
        of_rounds = f" in {spread['undefined']} of {spread['rounds']}"
        return UNDEFINED + (of_rounds if spread["rounds"] != 1 else "")
    return number(median) + ("" if deviation is None else f" ± {number(deviation)}")


def results_markdown(results: Results) -> str:
    """Give the metrics of every part in results.json as a short table, with what made them."""
    rows = [
        [
            name,
            part["database"],
            str(part["images"]),
            *(number(part["metrics"][metric]) for metric in RAW),
        ]
        for name, part in parts_in_order(results)
    ]
    header = ["part", "database", "images", *(HEADINGS[metric] for metric in RAW)]
    table = _markdown_table(header, rows)
    title = f"{title_of(results)}, protocol {results['protocol']}"
    return f"{title}\n\n{table}{_note_below(results)}"


def _note_below(results: Mapping[str, Any]) -> str:
    note = results.get("metrics_note")  # older files have none
    return "" if note is None else f"\n{note}.\n"


def benchmark_markdown(benchmark: Mapping[str, Any]) -> str:
    """Give the median and deviation of every part in benchmark.json as a short table."""
    rows = [
        [name, part["database"], *(spread_text(part["metrics"][metric]) for metric in HEADINGS)]
        for name, part in benchmark["summary"].items()
    ]
    table = _markdown_table(["part", "database", *HEADINGS.values()], rows)
    count = len(benchmark["rounds"])
    rounds = f"{count} rounds" if count > 1 else "1 round"
    return (
        f"{benchmark['model']['name']}, protocol {benchmark['protocol']}: median ± standard"
        f" deviation of {rounds}\n\n{table}{_note_below(benchmark)}"
    )


def rounds_markdown(benchmark: Mapping[str, Any]) -> str:
    """Give a row to each part and metric in benchmark.json, a column a round, the median last."""
    rounds = benchmark["rounds"]
    header = ["part", "metric", *(f"round {one['round']}" for one in rounds), "median ± std"]
    rows = [
        [
            name,
            heading,
            *(number(one["metrics"][name][metric]) for one in rounds),
            spread_text(part["metrics"][metric]),
        ]
        for name, part in benchmark["summary"].items()
        for metric, heading in HEADINGS.items()
    ]
    return _markdown_table(header, rows)


def comparison_markdown(groups: Sequence[WorkdirGroup]) -> str:
    """Give a table for each group, with its notes below."""
    texts = []
    for group in groups:
        header = ["workdir", "protocol", "model", "rounds"]
        header += [f"{database}: {HEADINGS[metric]}" for database, metric in group.columns]
        rows = [
            [
                each.name,
                group.protocol,
                each.first["model"]["name"],
                str(len(each.rounds)),
                *(_markdown_cell(group, each, *column) for column in group.columns),
            ]
            for each in group.workdirs
        ]
        notes = _markdown("\n".join(table_notes(group)))
        texts.append(f"## {_markdown(group.title)}\n\n{_markdown_table(header, rows)}\n{notes}\n")
    return "\n".join(texts)


def _markdown_cell(group: WorkdirGroup, workdir: Workdir, database: str, metric: str) -> str:
    cell = group.cells.get((workdir.name, database, metric))
    if cell is None:
        return "–"
    text = spread_text(cell.spread)
    return f"**{text}**" if cell.best else text


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[_markdown(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "".join(f"| {line} |\n" for line in padded)


def _markdown(text: str) -> str:
    """Keep a name from ending a cell."""
    return text.replace("|", "\\|")


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "·": r"$\cdot$",
    "−": r"$-$",
}
_LATEX_HEAD = r"""% Needs \usepackage{booktabs} and, for wide tables, \usepackage{graphicx}.
% In each cell: the median and, smaller, the standard deviation over the rounds.
"""
# More columns of numbers than this are shrunk to the width of the text.
_LATEX_COLUMNS = 4


def comparison_latex(groups: Sequence[WorkdirGroup]) -> str:
    """Give a LaTeX table for each group, with its notes as the caption."""
    return "\n".join([_LATEX_HEAD, *map(_group_latex, groups)])


def _group_latex(group: WorkdirGroup) -> str:
    columns, width = group.columns, len(group.metrics)
    # The first three columns are the workdir, the model and the rounds.
    spans = " & ".join(
        rf"\multicolumn{{{width}}}{{c}}{{{_latex(database)}}}" for database in group.databases
    )
    rules = " ".join(
        rf"\cmidrule(lr){{{start}-{start + width - 1}}}"
        for start in range(4, 4 + len(columns), width)
    )
    header = ["Run", "Model", "Rounds", *(HEADINGS[metric] for _, metric in columns)]
    tabular = [
        rf"\begin{{tabular}}{{llr{'c' * len(columns)}}}",
        r"\toprule",
        rf"& & & {spans} \\",
        rules,
        rf"{' & '.join(header)} \\",
        r"\midrule",
    ]
    for each in group.workdirs:
        cells = [_latex(each.name), _latex(each.first["model"]["name"]), str(len(each.rounds))]
        cells += [_latex_cell(group, each, *column) for column in columns]
        tabular.append(rf"{' & '.join(cells)} \\")
    tabular += [r"\bottomrule", r"\end{tabular}"]
    if len(columns) > _LATEX_COLUMNS:
        tabular[0] = rf"\resizebox{{\textwidth}}{{!}}{{{tabular[0]}"
        tabular[-1] += "}"
    caption = _latex(" ".join([f"{group.setting}.", *table_notes(group)]))
    head = [r"\begin{table*}", r"\centering", rf"\caption{{{caption}}}"]
    return "\n".join([*head, *tabular, r"\end{table*}", ""])


def _latex_cell(group: WorkdirGroup, workdir: Workdir, database: str, metric: str) -> str:
    cell = group.cells.get((workdir.name, database, metric))
    if cell is None:
        return "--"
    median, deviation = cell.spread["median"], cell.spread["std"]
    if median is None:
        return spread_text(cell.spread)
    # In math mode, so that a minus is one.
    value = f"${number(median)}$"
    if cell.best:
        value = rf"$\mathbf{{{number(median)}}}$"
    if deviation is not None:
        value += rf" {{\scriptsize $\pm$ {number(deviation)}}}"
    return value


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
