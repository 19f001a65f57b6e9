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

DEMONSTRATION = "demonstration weights, trained on a handful of photographs"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    score = add_command(
        commands,
        "score",
        "Score photographs with a trained model. The model is a workdir, a hub folder, a"
        " checkpoint or hf://owner/name; without one, weights that come with the package are used.",
    )
    score.usage = "%(prog)s [-h] [--model MODEL] [--json | --csv FILE] [MODEL] IMAGE|FOLDER ..."
    score.add_argument("first", metavar="MODEL", help="what scores, if the first argument is one")
    more = score.add_argument(
        "more", nargs="+", default=[], metavar="IMAGE|FOLDER", help="folders are searched"
    )
    # Not nargs="*", whose none would be found before an option: glpi score MODEL --json IMAGE.
    more.required = False
    score.add_argument(
        "--model", metavar="MODEL", help="what scores; all arguments are images or folders then"
    )
    form = score.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV file as well")
    score.set_defaults(run=_score, usage_error=score.error)


def _score(args: argparse.Namespace) -> int:
    from glpi_jax.scoring import load

    model, paths = _model_and_paths(args)
    scorer = load(model)
    if model is None:
        say(f"{DEMONSTRATION}: {scorer.meaning}")
    results = scorer.score_files_and_folders(paths)
    if args.json:
        print(json.dumps([_plain(result) for result in results], indent=1))
    else:
        if model is not None:
            say(scorer.meaning)
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


def _model_and_paths(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The model, None for the shipped one, and what to score with it."""
    from glpi_jax.data.images import IMAGE_SUFFIXES, list_images
    from glpi_jax.errors import GlpiError
    from glpi_jax.hub.sources import SOURCES, looks_like_a_model

    first, paths = args.first, [args.first, *args.more]
    if args.model is not None:
        return args.model, paths
    if looks_like_a_model(first):
        if not args.more:
            args.usage_error(f"{first} is a model: name an image or a folder to score with it")
        return first, args.more
    path = Path(first)
    if path.is_dir():
        try:
            list_images([path])
        except GlpiError as error:
            raise GlpiError(f"{error}, and it is not a model, which is {SOURCES}") from error
    elif not path.exists() and path.suffix.lower() not in IMAGE_SUFFIXES:
        raise GlpiError(f"{first}: no such image, folder or model; a model is {SOURCES}")
    return None, paths


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
