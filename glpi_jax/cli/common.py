"""What the commands share: exit codes, messages on stderr, the options of a run."""

import argparse
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from ml_collections import ConfigDict

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 0, 1, 2, 130, 141
EXIT_AGAIN = 75  # sysexits' EX_TEMPFAIL: stopped from outside, to be started again

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OVERRIDE_HELP = "a config file; --config.section.key=value changes a value in it"


def add_command(commands: Commands, name: str, help_text: str) -> argparse.ArgumentParser:
    """A command's parser, with the same text in the list of commands and in its own help."""
    parser = commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
    parser.set_defaults(usage_error=parser.error)
    return parser


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--workdir`, both required; unknown options are overrides of the config."""
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help=OVERRIDE_HELP)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out rows that cannot be used, and list them: skip_bad of every database",
    )


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """`--distributed`, `--coordinator`, `--processes` and `--process`; see `join_processes`."""
    group = parser.add_argument_group("several processes that train together")
    group.add_argument(
        "--distributed",
        choices=("off", "auto"),
        default="off",
        help="auto: find the others, in a TPU pod, Slurm or Open MPI job (default: off)",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="number of this one, from 0")


def join_processes(args: argparse.Namespace) -> None:
    """Do what the options of `add_process_options` say; only then may JAX be used."""
    from glpi_jax.distributed.ranks import start

    args.joined = start(args.distributed, args.coordinator, args.processes, args.process)


def config_of(args: argparse.Namespace) -> "ConfigDict":
    """The config that the options of a run name, with its overrides."""
    from glpi_jax.core.config import load_config

    config = load_config(args.config, args.overrides)
    if args.skip_bad:
        for section in (config.data, *config.targets.values()):
            section.skip_bad = True
    return config


def say(message: str) -> None:
    """Tell the user in a line; stdout is kept for results."""
    print(f"glpi: {one_line(message)}", file=sys.stderr)


def one_line(text: str) -> str:
    r"""A text, for instance a file name, in which control characters and line ends read `\n`."""
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in ("Cc", "Zl", "Zp")
        else char
        for char in text
    )


def fail(message: str) -> int:
    """Say what went wrong in one line; returns the exit code for bad input."""
    say(f"error: {' '.join(message.split())}")
    return EXIT_BAD_INPUT
