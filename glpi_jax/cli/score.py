"""`glpi score`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    given_name,
    naming_options,
    refuse_models,
    scorer_of,
    table_row,
)
from glpi_jax.core.errors import GlpiError

STDOUT = "-"

if TYPE_CHECKING:
    from glpi_jax.scoring import Frame, ImageScore, Problem, Scorer
    from glpi_jax.scoring.record_forms import Form
    from glpi_jax.scoring.records import Records

_IMAGES = (
    "files, folders (searched for images), quoted patterns, URLs, videos; - reads a list of these"
    " from stdin"
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    score = add_command(
        commands,
        "score",
        "Score photographs, and frames of videos. The model is a workdir, a hub folder, a"
        " checkpoint or hf://owner/name; without one, the weights of the package score: MOS, 0 to"
        " 100, higher is better.",
    )
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
    score.set_defaults(run=_score, clears_away=True)


def _score(args: argparse.Namespace) -> int:
    from glpi_jax.core.progress import progress_bar
    from glpi_jax.scoring.record_forms import filled_fields
    from glpi_jax.scoring.records import partial_file
    from glpi_jax.scoring.video import check_interval

    with naming_options("every_seconds"):
        check_interval(args.every_seconds)
    form: Form = "jsonl" if args.jsonl is not None else "csv"
    file = _file(args, form)
    model, arguments = _model_and_inputs(args)
    _check_stdin(args, arguments)
    if file is not None and args.resume and file.exists() and not partial_file(file).exists():
        return _look_at_complete(file, form, arguments, args)
    count = _count(arguments)
    scorer = scorer_of(args, model)
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
        show = _shower(args)
        for result in scorer.score_iter(_unknown(arguments, args, known)):
            if records:
                records.write(result)
            if args.json:
                results.append(filled_fields(result))
            else:
                show(result)
            _remark(result)
            errors += result.error is not None
            bar.advance()
        if records and records.errors:
            say(f"{records.errors} of the {len(known)} images that were scored before had errors")
            errors += records.errors
    if args.json:
        print(json.dumps(results, indent=1))
    return EXIT_BAD_INPUT if errors else EXIT_OK


def _shower(args: argparse.Namespace) -> "Callable[[ImageScore], None]":
    """What prints a result: as a record if --csv - or --jsonl - is given, else in a table."""
    from glpi_jax.scoring.record_forms import header, record

    form: Form | None = "csv" if args.csv == STDOUT else "jsonl" if args.jsonl == STDOUT else None

    def show(result: "ImageScore") -> None:
        if form is not None:
            _print_record(record(result, form))
        elif result.score is not None:
            print(table_row(result), flush=sys.stdout.isatty())

    if form is not None:
        _print_record(header(form))
    return show


def _print_record(text: str) -> None:
    """In UTF-8 whatever the terminal's encoding, as it would be in a file."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _file(args: argparse.Namespace, form: "Form") -> Path | None:
    """The file that results go to, if any.

    Raises:
        GlpiError: there is something that is not to be replaced.
    """
    from glpi_jax.data.images import IMAGE_SUFFIXES
    from glpi_jax.scoring.record_forms import check_replaceable
    from glpi_jax.scoring.video import VIDEO_SUFFIXES

    option, name = f"--{form}", args.csv if form == "csv" else args.jsonl
    if name is None or name == STDOUT:
        if args.resume:
            raise GlpiError("--resume: needs the --csv FILE or --jsonl FILE of the earlier run")
        return None
    path = Path(name)
    # As in `--jsonl photo.jpg`, whose file name was forgotten.
    for suffixes, kind in ((IMAGE_SUFFIXES, "an image"), (VIDEO_SUFFIXES, "a video")):
        if path.suffix.lower() in suffixes:
            raise GlpiError(
                f"{option} {path}: this would replace {kind}; name a file for the scores"
            )
    if path.is_dir():
        raise GlpiError(f"{option} {path}: this is a folder; name a file for the scores")
    if path.exists() and (not path.is_file() or _is_stdout(path)):
        raise GlpiError(
            f"{option} {path}: a pipe, a device or what stdout goes to; {option} - writes to stdout"
        )
    if path.is_symlink():  # to be kept; what it leads to is replaced
        path = path.resolve()
    check_replaceable(path, form)
    return path


def _is_stdout(path: Path) -> bool:
    """Whether the shell writes what is printed into this file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # stdout is closed
        return False


def _check_stdin(args: argparse.Namespace, arguments: list[str]) -> None:
    if "-" not in arguments:
        if args.null:
            raise GlpiError("--null: is for a list on stdin; name - as well")
    elif sys.stdin is None:
        raise GlpiError("-: stdin is closed; pipe a list of images into it, or name them")


def _look_at_complete(
    file: Path, form: "Form", arguments: list[str], args: argparse.Namespace
) -> int:
    """What --resume says to a file of results that no interrupted run has left.

    Raises:
        GlpiError: it lacks images that are to be scored; it does not say what its scores are made
            with, so that others could not be added.
    """
    from glpi_jax.scoring.inputs import names_video
    from glpi_jax.scoring.record_forms import read_names

    known, errors = read_names(file, form, cut=False)
    known_videos = {name.rpartition("#")[0] for name in known}
    missing, more = None, 0
    for source in _inputs(arguments, args):
        name = source if isinstance(source, str) else source.name
        if name not in known and not (name in known_videos and names_video(name)):
            missing, more = missing or name, more + (missing is not None)
    if missing is not None:
        others = f" and {more} more" if more else ""
        raise GlpiError(
            f"{file}: complete, but without {missing}{others}; give these another file, or leave"
            " out --resume to score all anew"
        )
    say(f"{file} is complete; without --resume it would be made anew")
    if errors:
        say(f"{errors} of its {len(known)} images had errors")
    return EXIT_BAD_INPUT if errors else EXIT_OK


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
    from glpi_jax.scoring.inputs import videos_as_frames

    for source in videos_as_frames(_inputs(arguments, args), args.every_seconds):
        if (source if isinstance(source, str) else source.name) not in known:
            yield source


def _inputs(arguments: list[str], args: argparse.Namespace) -> "Iterator[str | Problem]":
    from glpi_jax.scoring.inputs import list_inputs

    stdin = None if sys.stdin is None else sys.stdin.buffer
    return list_inputs(arguments, stdin=stdin, null=args.null)


def _remark(result: "ImageScore") -> None:
    if result.note:
        say(f"{result.image}: {result.note}")
    if result.error:
        say(f"error: {result.error}")


def _model_and_inputs(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The model, None for the shipped one, and what to score with it."""
    from glob import has_magic

    from glpi_jax.data.images import IMAGE_SUFFIXES, walk_images
    from glpi_jax.hub.remote import SCHEME
    from glpi_jax.hub.sources import SOURCES, looks_like_a_model
    from glpi_jax.scoring.fetch import is_foreign_url, is_url
    from glpi_jax.scoring.inputs import STDIN
    from glpi_jax.scoring.video import VIDEO_SUFFIXES

    first, inputs = args.first, [args.first, *args.more]
    if args.model is not None:
        refuse_models(inputs)
        return args.model, inputs
    refuse_models(args.more)
    if first == STDIN or is_url(first) or (is_foreign_url(first) and not first.startswith(SCHEME)):
        return None, inputs
    if looks_like_a_model(first):
        if not args.more:
            args.usage_error(f"{first} is a model: name an image or a folder to score with it")
        return first, args.more
    path = Path(first)
    if path.is_dir():
        try:
            next(walk_images(path, lambda error: None))
        except GlpiError:  # without an image, told with the others; it may be a model misnamed
            say(f"{first} is no model, which is {SOURCES}; it is taken for a folder of images")
    elif not (
        path.exists() or has_magic(first) or path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    ):
        raise GlpiError(f"{first}: no such image, folder or model; a model is {SOURCES}")
    return None, inputs
