"""The `glpi` command: parses arguments, dispatches, turns errors into one line and exit code 2."""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax import __version__
from glpi_jax.errors import GlpiError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from glpi_jax.scoring import ImageScore

EXIT_OK, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 0, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 2 for bad input, 130 when interrupted, 141 when nobody reads the output.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # What argparse does not know must override the config: --config.key=value.
    takes_overrides = hasattr(args, "config")
    if rest and not (takes_overrides and rest[0].startswith("--config.")):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    args.overrides = rest
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be valid UTF-8: its bytes are printed as they are.
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        code = args.run(args)
        sys.stdout.flush()  # not at exit, where a closed pipe would be too late to handle
        return code
    except GlpiError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader, `head` for one, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        resumes = args.run in (_train, _demo)
        _say("interrupted" + "; the same command goes on where it stopped" * resumes)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glpi",
        description="No-reference image quality assessment with GLPI in JAX.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"glpi_jax {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)

    override_help = "a config file; --config.section.key=value changes a value in it"
    for name, run, text in (
        ("train", _train, "Train a config in a workdir, or go on where that stopped; evaluate it."),
        ("evaluate", _evaluate, "Score a trained workdir on its test part and write the report."),
    ):
        sub = command(name, text)
        sub.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help=override_help)
        sub.add_argument("--workdir", required=True, type=Path, help="folder of the run")
        sub.set_defaults(run=run)

    score = command("score", "Score photographs with a trained workdir.")
    score.add_argument("workdir", type=Path, help="folder of a trained run")
    score.add_argument("paths", nargs="+", metavar="IMAGE|FOLDER", help="folders are searched")
    form = score.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV file as well")
    score.set_defaults(run=_score)

    data = command("data", "Databases on disk.").add_subparsers(required=True, metavar="WHAT")
    demo_data = data.add_parser("demo", help="render the demonstration database")
    demo = command("demo", "Render, train, evaluate, report and score, in minutes on a CPU.")
    demo.add_argument("--workdir", type=Path, default=Path("runs/demo"), help="folder of the run")
    demo.set_defaults(run=_demo)
    demo_data.set_defaults(run=_demo_data)
    for sub in (demo, demo_data):
        sub.add_argument("--config", metavar="FILE.py[:ARG]", help=f"{override_help}; the demo's")
        sub.add_argument(
            "--short", action="store_true", help="a minute's version that checks the installation"
        )
    return parser


def _train(args: argparse.Namespace) -> int:
    from glpi_jax.config import load_config
    from glpi_jax.runs import train_run

    trained = train_run(load_config(args.config, args.overrides), args.workdir)
    _say("done" if trained else "this run is finished: nothing to do")
    _say(f"report: {args.workdir / 'report.html'}")
    return EXIT_OK


def _evaluate(args: argparse.Namespace) -> int:
    from glpi_jax.config import load_config
    from glpi_jax.evaluation.report import results_markdown
    from glpi_jax.runs import evaluate_run

    results = evaluate_run(load_config(args.config, args.overrides), args.workdir)
    print(results_markdown(results))
    _say(f"report: {args.workdir / 'report.html'}")
    return EXIT_OK


def _score(args: argparse.Namespace) -> int:
    from glpi_jax.scoring import load

    scorer = load(args.workdir)
    results = scorer.score_files_and_folders(args.paths)
    if args.json:
        print(json.dumps([_plain(result) for result in results], indent=1))
    else:
        better = "higher" if scorer.higher_is_better else "lower"
        _say(f"{scorer.score_name}, {better} is better; {scorer.label_note}")
        for result in results:
            if result.score is not None:
                print(f"{result.score:8.3f}  {result.image}")
    if args.csv:
        _write_csv(args.csv, results)
    for result in results:
        if result.note:
            _say(f"{result.image}: {result.note}")
        if result.error:
            _say(f"error: {result.error}")
    return EXIT_BAD_INPUT if any(result.error for result in results) else EXIT_OK


def _demo(args: argparse.Namespace) -> int:
    from glpi_jax.demo import run_demo

    run_demo(_demo_config(args), args.workdir)
    return EXIT_OK


def _demo_data(args: argparse.Namespace) -> int:
    from glpi_jax.demo import render

    print(render(_demo_config(args)))
    return EXIT_OK


def _demo_config(args: argparse.Namespace) -> "ConfigDict":
    from glpi_jax.config import load_config, shipped_config

    spec = args.config or shipped_config("demo")
    return load_config(f"{spec}:short" if args.short else spec, args.overrides)


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


def _say(message: str) -> None:
    """Tell the user; stdout is kept for results."""
    print(f"glpi: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    _say(f"error: {' '.join(message.split())}")
    return EXIT_BAD_INPUT
