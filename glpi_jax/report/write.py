"""The files that a report is written to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_text
from glpi_jax.report.comparison import group_workdirs
from glpi_jax.report.pages import comparison_page, run_page
from glpi_jax.report.tables import comparison_latex, comparison_markdown
from glpi_jax.results.workdirs import read_round, read_workdir, read_workdirs

REPORT_FILE, MARKDOWN_FILE, TEX_FILE = "report.html", "table.md", "table.tex"


def write_report(workdir: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run's workdir, which holds results.json; return its path.

    The training curves are drawn from metrics.csv where the folder has one; weights that were
    evaluated without training have none. Thumbnails need the database's folder.

    Raises:
        GlpiError: results.json is missing, does not parse, has another format or lacks a key, or
            metrics.csv does not parse.
    """
    path = Path(workdir, REPORT_FILE)
    write_text(path, run_page(read_round(path.parent)))
    return path


def write_benchmark_report(workdir: Path) -> Path:
    """Write `report.html` into a benchmark's workdir; return its path.

    Raises:
        GlpiError: see `read_workdir`.
    """
    benchmark = read_workdir(workdir)
    path = workdir / REPORT_FILE
    write_text(path, comparison_page([benchmark], group_workdirs([benchmark])))
    return path


def write_comparison(workdirs: Sequence[Path], folder: Path) -> list[Path]:
    """Write `report.html`, `table.md` and `table.tex` about runs and benchmarks into a folder.

    Args:
        workdirs: at least one.
        folder: made if it is missing.

    Returns:
        The paths of the files, the page first.

    Raises:
        GlpiError: a workdir is missing, unfinished, given twice or cannot be read; none has a test
            part; or the folder is one of them, whose own report would be lost.
    """
    if folder.resolve() in [workdir.resolve() for workdir in workdirs]:
        raise GlpiError(f"{folder} is one of the workdirs, which has a report of its own")
    read = read_workdirs(workdirs)
    for workdir in read:
        if not workdir.tests:
            raise GlpiError(f"{workdir.folder}: has no test part to compare")
    groups = group_workdirs(read)
    texts = {
        REPORT_FILE: comparison_page(read, groups),
        MARKDOWN_FILE: comparison_markdown(groups),
        TEX_FILE: comparison_latex(groups),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlpiError(f"{folder}: cannot be made ({error.strerror})") from error
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
