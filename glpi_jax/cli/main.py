"""The `glpi` command: parses arguments, dispatches, turns errors into one line and exit code 2."""

import argparse
import codecs
import io
import os
import sys
import traceback
from collections.abc import Sequence

from glpi_jax import __version__
from glpi_jax.cli import data, port, publish, rank, run, saqt, score, serve
from glpi_jax.cli.common import (
    EXIT_AGAIN,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_PIPE_CLOSED,
    fail,
    say,
)
from glpi_jax.core.errors import GlpiError, Terminated, speaks_of_others
from glpi_jax.core.signals import sigterm_raises


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 when another process is gone, 2 for bad input, 75 when SIGTERM ended a
        command that goes on or clears away what it has begun, so that it can be given again, 130
        when interrupted, 141 when nobody reads the output.
    """
    _open_closed_streams()
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    # What argparse does not know must override the config: --config.key=value.
    takes_overrides = hasattr(args, "config")
    if rest and not (takes_overrides and rest[0].startswith("--config.")):
        hint = ""
        if hasattr(args, "model") and not rest[0].startswith("-"):
            several = hasattr(args, "more") or hasattr(args, "images")
            together = "name all images together, " if several else ""
            hint = f"; {together}a model goes after --model"
        args.usage_error(f"unknown arguments: {' '.join(rest)}{hint}")
    args.overrides = rest
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_BYTES_OR_ESCAPES)
    code = _outcome(args)
    if args.joined and code not in (EXIT_OK, EXIT_AGAIN):
        # At once: at exit JAX would wait for the other processes, as they do for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _open_closed_streams() -> None:
    """Python has None for an output that the shell has closed, as by `>&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Print bytes of a file name as they are, and what else cannot be encoded as `\xb1`."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


_BYTES_OR_ESCAPES = "glpi_jax.bytes_or_escapes"
codecs.register_error(_BYTES_OR_ESCAPES, _bytes_or_escapes)


def _outcome(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code, after telling what it stands for."""
    try:
        with sigterm_raises(enabled=args.resumes or args.clears_away):
            code: int = args.run(args) or EXIT_OK
        sys.stdout.flush()  # not at exit, where a closed pipe would be too late to handle
        return code
    except GlpiError as error:
        return fail(str(error))
    except BrokenPipeError:  # the reader, `head` for one, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE_CLOSED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        say(f"interrupted{_again(args)}")
        return EXIT_INTERRUPTED
    except Terminated:
        say(f"terminated{_again(args)}")
        return EXIT_AGAIN
    except Exception as error:
        if not args.joined:
            raise
        if not speaks_of_others(error):
            traceback.print_exc()
            return EXIT_FAILED
        cause = " ".join(str(error).split())
        say(f"error: another process is gone or cannot be reached{_again(args)} ({cause})")
        return EXIT_FAILED


def _again(args: argparse.Namespace) -> str:
    """What the same command would do; `glpi score` knows it only when it has begun."""
    return "; the same command resumes where it stopped" if args.resumes else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glpi",
        description="No-reference image quality assessment with GLPI in JAX.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"glpi_jax {__version__}")
    # Whether the same command goes on after an interrupt, whether one that begins anew has files to
    # clear away when it is interrupted, and whether other processes are joined.
    parser.set_defaults(resumes=False, clears_away=False, joined=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for family in (run, score, rank, serve, data, saqt, port, publish):
        family.add(commands)
    return parser
