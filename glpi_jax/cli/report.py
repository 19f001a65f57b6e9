"""`glpi report`."""

import argparse
from pathlib import Path

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    report = add_command(
        commands, "report", "Set runs and benchmarks side by side: a page, Markdown, LaTeX."
    )
    report.add_argument(
        "workdirs", nargs="+", type=Path, metavar="WORKDIR", help="of a run or a benchmark"
    )
    report.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="folder for report.html, table.md and table.tex",
    )
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from glpi_jax.report import write_comparison

    page, markdown, tex = write_comparison(args.workdirs, args.out)
    # As it was written: a folder's name need not be valid UTF-8.
    print(markdown.read_text(encoding="utf-8", errors="surrogateescape"), end="")
    say(f"report: {page}")
    say(f"tables: {markdown}, {tex}")
    return EXIT_OK
