"""`glpi score`."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.commands.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.commands.scoring_options import add_crop_options, scorer_of
from glpi_jax.errors import GlpiError

if TYPE_CHECKING:
    from glpi_jax.scoring import Frame, ImageScore, Problem, Scorer
    from glpi_jax.scoring.records import Form, Records

_IMAGES = (
    "files, folders (searched for images), quoted patterns, URLs, videos; - reads a list of these"
    " from stdin"
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    score = add_command(
        commands,
        "score",
        "Score photographs, and frames of videos, with a trained model. The model is a workdir, a"
        " hub folder, a checkpoint or hf://owner/name; without one, weights that come with the"
        " package are used.",
    )
    score.usage = "%(prog)s [-h] [--model MODEL] [OPTION ...] [MODEL] IMAGE|FOLDER|URL|- ..."
    score.add_argument("first", metavar="MODEL", help="what scores, if the first argument is one")
    more = score.add_argument(
        "more", nargs="+", default=[], metavar="IMAGE|FOLDER|URL|-", help=_IMAGES
    )
    # Not nargs="*", whose none would be found before an option: glpi score MODEL --json IMAGE.
    more.required = False
    score.add_argument(
        "--model", metavar="MODEL", help="what scores; all arguments are images or folders then"
    )
    score.add_argument(
        "--null", action="store_true", help="the list on stdin is divided by zero bytes, not lines"
    )
    form = score.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument(
        "--jsonl",
        metavar="FILE",
        help="write a line of JSON as soon as an image is scored; - is stdout, instead of a table",
    )
    form.add_argument("--csv", metavar="FILE", help="write a CSV file as well, row by row")
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
    score.set_defaults(run=_score, usage_error=score.error)


def _score(args: argparse.Namespace) -> int:
    from glpi_jax.progress import progress_bar
    from glpi_jax.scoring.records import filled_fields, partial_file
    from glpi_jax.scoring.video import check_interval

    check_interval(args.every_seconds)
    file, form = _file_and_form(args)
    model, arguments = _model_and_inputs(args)
    if file is not None and args.resume and file.exists() and not partial_file(file).exists():
        say(f"{file} is complete; without --resume it would be made anew")
        return EXIT_OK
    count = _count(arguments)
    scorer = scorer_of(args, model, quiet=args.json or args.jsonl == "-")
    args.resumes = args.resume
    results = []
    errors = 0
    with ExitStack() as stack:
        records = _open(stack, scorer, file, form, args)
        known = records.names if records else set()
        bar = stack.enter_context(
            progress_bar(
                count,
                unit="image",
                description="score",
                initial=len(known),
                leave=False,
            )
        )
        for result in scorer.score_iter(_unknown(arguments, args, known)):
            if records:
                records.write(result)
            if args.json:
                results.append(filled_fields(result))
            elif args.jsonl == "-":
                print(json.dumps(filled_fields(result)), flush=True)
            elif result.score is not None:
                print(f"{result.score:8.3f}  {result.image}", flush=sys.stdout.isatty())
            _remark(result)
            errors += result.error is not None
            bar.advance()
        if records and records.errors:
            say(f"{records.errors} of the {len(known)} images that were scored before had errors")
            errors += records.errors
    if args.json:
        print(json.dumps(results, indent=1))
    return EXIT_BAD_INPUT if errors else EXIT_OK


def _file_and_form(args: argparse.Namespace) -> tuple[Path | None, "Form"]:
    """The file that results go to, if any."""
    from glpi_jax.data.images import IMAGE_SUFFIXES
    from glpi_jax.scoring.video import VIDEO_SUFFIXES

    option, form = ("--csv", "csv") if args.csv is not None else ("--jsonl", "jsonl")
    name = args.csv if args.csv is not None else args.jsonl
    if name is None or (args.csv is None and name == "-"):
        if args.resume:
            raise GlpiError("--resume: needs the --csv FILE or --jsonl FILE of the earlier run")
        return None, "csv"
    path = Path(name)
    # As in `--jsonl photo.jpg`, whose file name was forgotten.
    for suffixes, kind in ((IMAGE_SUFFIXES, "an image"), (VIDEO_SUFFIXES, "a video")):
        if path.suffix.lower() in suffixes:
            raise GlpiError(
                f"{option} {path}: this would replace {kind}; name a file for the scores"
            )
    if path.is_dir():
        raise GlpiError(f"{option} {path}: this is a folder; name a file for the scores")
    return path, "csv" if form == "csv" else "jsonl"


def _open(
    stack: ExitStack, scorer: "Scorer", file: Path | None, form: "Form", args: argparse.Namespace
) -> "Records | None":
    from glpi_jax.scoring.records import open_records, partial_file

    if file is None:
        return None
    settings = {
        "model": scorer.fingerprint(),
        "crops": scorer.crops.count,
        "placement": scorer.crops.placement,
        "seed": scorer.crops.seed,
        "every_seconds": args.every_seconds,
    }

    def tell(kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is not None and not args.resume:
            say(f"{partial_file(file)} holds the scores so far; --resume goes on from there")

    records = stack.enter_context(open_records(file, form, settings, resume=args.resume))
    stack.push(tell)
    return records


def _count(arguments: list[str]) -> int | None:
    """How many images there are, None if only stdin or a video knows.

    Raises:
        GlpiError: there are videos, and nothing is installed that reads them.
    """
    from glpi_jax.scoring.inputs import STDIN, list_inputs, names_video
    from glpi_jax.scoring.video import check_package

    if STDIN in arguments:
        return None
    count = 0
    for source in list_inputs(arguments):
        count += 1
        if isinstance(source, str) and names_video(source):
            check_package(source)
            return None
    return count


def _unknown(
    arguments: list[str], args: argparse.Namespace, known: set[str]
) -> "Iterator[str | Frame | Problem]":
    from glpi_jax.scoring.inputs import list_inputs, videos_as_frames

    inputs = list_inputs(arguments, stdin=sys.stdin.buffer, null=args.null)
    for source in videos_as_frames(inputs, args.every_seconds):
        if (source if isinstance(source, str) else source.name) not in known:
            yield source


def _remark(result: "ImageScore") -> None:
    if result.note:
        say(f"{result.image}: {result.note}")
    if result.error:
        say(f"error: {result.error}")


def _model_and_inputs(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The model, None for the shipped one, and what to score with it."""
    from glob import has_magic

    from glpi_jax.data.images import IMAGE_SUFFIXES, walk_images
    from glpi_jax.hub.sources import SOURCES, looks_like_a_model
    from glpi_jax.scoring.fetch import is_url
    from glpi_jax.scoring.inputs import STDIN
    from glpi_jax.scoring.video import VIDEO_SUFFIXES

    first, inputs = args.first, [args.first, *args.more]
    if args.model is not None:
        return args.model, inputs
    if first == STDIN or is_url(first):
        return None, inputs
    if looks_like_a_model(first):
        if not args.more:
            args.usage_error(f"{first} is a model: name an image or a folder to score with it")
        return first, args.more
    path = Path(first)
    if path.is_dir():
        try:
            next(walk_images(path))
        except GlpiError as error:
            raise GlpiError(f"{error}, and it is not a model, which is {SOURCES}") from error
    elif not (
        path.exists() or has_magic(first) or path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    ):
        raise GlpiError(f"{first}: no such image, folder or model; a model is {SOURCES}")
    return None, inputs
