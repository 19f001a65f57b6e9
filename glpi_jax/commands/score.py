"""`glpi score`."""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.commands.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say

if TYPE_CHECKING:
    from glpi_jax.scoring import ImageScore


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    score = add_command(commands, "score", "Score photographs with a trained workdir.")
    score.add_argument("workdir", type=Path, help="folder of a trained run")
    score.add_argument("paths", nargs="+", metavar="IMAGE|FOLDER", help="folders are searched")
    form = score.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV file as well")
    score.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> int:
    from glpi_jax.scoring import load

    scorer = load(args.workdir)
    results = scorer.score_files_and_folders(args.paths)
    if args.json:
        print(json.dumps([_plain(result) for result in results], indent=1))
    else:
        better = "higher" if scorer.higher_is_better else "lower"
        say(f"{scorer.score_name}, {better} is better; {scorer.label_note}")
        for result in results:
            if result.score is not None:
                print(f"{result.score:8.3f}  {result.image}")
    if args.csv:
        _write_csv(args.csv, results)
    for result in results:
        if result.note:
            say(f"{result.image}: {result.note}")
        if result.error:
            say(f"error: {result.error}")
    return EXIT_BAD_INPUT if any(result.error for result in results) else EXIT_OK


def _plain(result: "ImageScore") -> dict[str, str | float]:
    """A result without its empty fields."""
    return {key: value for key, value in vars(result).items() if value is not None}


def _write_csv(path: Path, results: Sequence["ImageScore"]) -> None:
    from glpi_jax.files import write_text

    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "score", "crop_std", "note", "error"])
    rows.writerows([r.image, r.score, r.crop_std, r.note, r.error] for r in results)
    write_text(path, text.getvalue())
