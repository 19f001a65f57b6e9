"""What the commands share: exit codes, parsers, messages on stderr."""

import argparse
import re
import sys
from collections.abc import Callable
from typing import TypeAlias

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 0, 1, 2, 130, 141
EXIT_AGAIN = 75  # sysexits' EX_TEMPFAIL: stopped from outside, to be started again

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OVERRIDE_HELP = "a config file; --config.section.key=value changes a value in it"


def add_command(
    commands: Commands,
    name: str,
    help_text: str,
    run: Callable[[argparse.Namespace], int | None] | None = None,
    **defaults: bool,
) -> argparse.ArgumentParser:
    """Add a command's parser, with the same text in the list of commands and in its own help.

    `run` does it and returns the exit code, None for success; without it there are subcommands.
    `defaults` are `resumes` and `clears_away`, see `main`.
    """
    parser = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
    parser.set_defaults(usage_error=parser.error, run=run, **defaults)
    return parser


def say(message: str) -> None:
    """Tell the user in a line; stdout is kept for results."""
    print(f"glpi: {one_line(message)}", file=sys.stderr)


def one_line(text: str) -> str:
    r"""A text, for instance a file name, in which control characters and line ends read `\n`."""
    controls = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"
    return re.sub(controls, lambda char: char[0].encode("unicode_escape").decode("ascii"), text)


def fail(message: str) -> int:
    """Say what went wrong in one line; returns the exit code for bad input."""
    say(f"error: {' '.join(message.split())}")
    return EXIT_BAD_INPUT
