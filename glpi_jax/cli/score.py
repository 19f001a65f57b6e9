"""`glpi score`."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    given_name,
    naming_options,
    scorer_of,
    table_row,
)
from glpi_jax.core.errors import GlpiError

if TYPE_CHECKING:
    from glpi_jax.scoring.records import Form

STDOUT = "-"

_IMAGES = (
    "files, folders (searched for images), quoted patterns, URLs, videos; - reads a list of these"
    " from stdin"
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    help_text = (
        "Score photographs, and frames of videos. The model is a workdir, a hub folder, a"
        " checkpoint or hf://owner/name; without one, the weights of the package score: MOS, 0 to"
        " 100, higher is better."
    )
    score = add_command(commands, "score", help_text, _score, clears_away=True)
    score.usage = "%(prog)s [-h] [--model MODEL] [OPTION ...] [MODEL] IMAGE|FOLDER|URL|- ..."
    score.add_argument(
        "first",
        type=given_name,
        metavar="[MODEL] IMAGE|FOLDER|URL|-",
        help=f"model (optional), then the images to score: {_IMAGES}",
    )
    more = score.add_argument(
        "more",
        nargs="+",
        default=[],
        type=given_name,
        metavar="IMAGE|FOLDER|URL|-",
        help="more images",
    )
    # Not nargs="*", whose none would be found before an option: glpi score MODEL --json IMAGE.
    more.required = False
    score.add_argument(
        "--model",
        type=given_name,
        metavar="MODEL",
        help="model to score with; all arguments are images or folders then",
    )
    score.add_argument(
        "--null", action="store_true", help="the list on stdin is divided by zero bytes, not lines"
    )
    form = score.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument(
        "--jsonl",
        type=given_name,
        metavar="FILE",
        help="write a line of JSON as soon as an image is scored; - is stdout, instead of a table",
    )
    form.add_argument(
        "--csv",
        type=given_name,
        metavar="FILE",
        help="write a CSV file as well, row by row; - is stdout, instead of a table",
    )
    score.add_argument(
        "--resume",
        action="store_true",
        help="go on where an interrupted run stopped that wrote the same --csv or --jsonl file",
    )
    score.add_argument(
        "--every-seconds",
        type=float,
        default=1.0,
        metavar="S",
        help="of a video score the first frame and then one every S seconds; 0 is all of them"
        " (default: 1)",
    )
    add_crop_options(score)


def _score(args: argparse.Namespace) -> int:
    from glpi_jax.core.progress import progress_bar
    from glpi_jax.scoring.inputs import count_images, list_inputs
    from glpi_jax.scoring.records import filled_fields, header, partial_file, record
    from glpi_jax.scoring.score_file import check_complete, check_score_file, open_scores, unscored
    from glpi_jax.scoring.video import check_interval

    with naming_options("every_seconds"):
        check_interval(args.every_seconds)
    form: Form = "csv" if args.jsonl is None else "jsonl"
    target = getattr(args, form)
    prints_records = target == STDOUT
    file = None
    if target is not None and not prints_records:
        file = check_score_file(Path(target), form)
    elif args.resume:
        raise GlpiError("--resume: needs the --csv FILE or --jsonl FILE of the earlier run")
    model, arguments = _model_and_images(args)
    stdin = None if sys.stdin is None else sys.stdin.buffer
    inputs = list_inputs(arguments, stdin=stdin, null=args.null)
    if file and args.resume and file.exists() and not partial_file(file).exists():
        images, errors = check_complete(file, form, inputs)
        say(f"{file} is complete; without --resume it would be made anew")
        if errors:
            say(f"{errors} of its {images} images had errors")
        return EXIT_BAD_INPUT if errors else EXIT_OK
    count = count_images(arguments)
    scorer = scorer_of(args, model)
    args.resumes = args.resume
    results = []
    errors = 0
    with ExitStack() as stack:
        records = None
        if file is not None:
            opened = open_scores(file, form, scorer, args.every_seconds, resume=args.resume)
            records = stack.enter_context(opened)
            if not args.resume:
                remark = f"{partial_file(file)} holds the scores so far; --resume starts from there"
                stack.push(lambda kind, error, traceback: say(remark) if kind else None)
        known = records.names if records else set()
        bar = stack.enter_context(
            progress_bar(count, unit="image", description="score", initial=len(known), leave=False)
        )
        if prints_records:
            _print_record(header(form))
        for result in scorer.score_iter(unscored(inputs, args.every_seconds, known)):
            if records:
                records.write(result)
            if args.json:
                results.append(filled_fields(result))
            elif prints_records:
                _print_record(record(result, form))
            elif result.score is not None:
                print(table_row(result), flush=sys.stdout.isatty())
            if result.note:
                say(f"{result.image}: {result.note}")
            if result.error:
                say(f"error: {result.error}")
                errors += 1
            bar.advance()
        if records and records.errors:
            say(f"{records.errors} of the {len(known)} images that were scored before had errors")
            errors += records.errors
    if args.json:
        print(json.dumps(results, indent=1))
    return EXIT_BAD_INPUT if errors else EXIT_OK


def _print_record(text: str) -> None:
    """In UTF-8 whatever the terminal's encoding, as it would be in a file."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _model_and_images(args: argparse.Namespace) -> tuple[str | None, Sequence[str]]:
    """The model, None for the shipped one, and what to score with it."""
    from glpi_jax.scoring.inputs import STDIN, model_and_images, refuse_models

    model: str | None = args.model
    images: Sequence[str] = [args.first, *args.more]
    if model is not None:
        refuse_models(images)
    else:
        model, images = model_and_images(images, say)
        if not images:
            args.usage_error(f"{model} is a model: name an image or a folder to score with it")
    if STDIN not in images:
        if args.null:
            raise GlpiError("--null: is for a list on stdin; name - as well")
    elif sys.stdin is None:
        raise GlpiError("-: stdin is closed; pipe a list of images into it, or name them")
    return model, images
