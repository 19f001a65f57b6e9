"""`glpi train`, `evaluate`, `benchmark`, `demo` and `report`."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import OVERRIDE_HELP, Commands, add_command, say

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    help_text = "Train a config in a workdir, or resume where that stopped; evaluate it."
    train = add_command(commands, "train", help_text, _train, resumes=True)
    help_text = "Score a trained workdir's test parts and write the report."
    evaluate = add_command(commands, "evaluate", help_text, _evaluate)
    help_text = "Train and evaluate rounds of a config; the median over them."
    benchmark = add_command(commands, "benchmark", help_text, _benchmark, resumes=True)
    for command in (train, evaluate, benchmark):
        add_run_options(command)
        add_process_options(command)
    train.add_argument(
        "--profile",
        action="store_true",
        help="trace five steps into WORKDIR/profile, for XProf or TensorBoard",
    )
    benchmark.add_argument("--rounds", type=int, required=True, help="number of rounds; 10 usually")

    help_text = "Render, train, evaluate, report and score, in minutes on a CPU."
    demo = add_command(commands, "demo", help_text, _demo, resumes=True)
    demo.add_argument("--workdir", type=Path, default=Path("runs/demo"), help="folder of the run")
    add_demo_options(demo)

    help_text = "Set runs and benchmarks side by side: a page, Markdown, LaTeX."
    report = add_command(commands, "report", help_text, _report)
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
    """`--distributed`, `--coordinator`, `--processes` and `--process`."""
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


def config_of(args: argparse.Namespace) -> "ConfigDict":
    """The config that the options of a run name, with its overrides."""
    from glpi_jax.core.config import load_config

    config = load_config(args.config, args.overrides)
    if args.skip_bad:
        for section in (config.data, *config.targets.values()):
            section.skip_bad = True
    return config


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    """`--config` and `--short`; the config is configs/demo.py unless given."""
    parser.add_argument("--config", metavar="FILE.py[:ARG]", help=f"{OVERRIDE_HELP}; the demo's")
    parser.add_argument(
        "--short", action="store_true", help="a minute's version that checks the installation"
    )


def demo_config(args: argparse.Namespace) -> "ConfigDict":
    """The config of a command with the demo's options."""
    from glpi_jax.core.config import load_config, shipped_config

    spec = args.config or shipped_config("demo")
    return load_config(f"{spec}:short" if args.short else spec, args.overrides)


@contextmanager
def _joined(args: argparse.Namespace) -> "Iterator[ConfigDict]":
    """Join the other processes and give the config; at the end say where the report is."""
    from glpi_jax.core.compilation import COMPILATIONS, kept_compilations
    from glpi_jax.distributed.ranks import is_first, start

    # Only then may JAX be used.
    args.joined = start(args.distributed, args.coordinator, args.processes, args.process)
    with kept_compilations(args.workdir / COMPILATIONS):
        yield config_of(args)
    if is_first():
        say(f"report: {args.workdir / 'report.html'}")


def _train(args: argparse.Namespace) -> None:
    from glpi_jax.distributed.ranks import is_first
    from glpi_jax.workflow.runs import train_run

    profile = args.workdir / "profile" if args.profile else None
    with _joined(args) as config:
        trained = train_run(config, args.workdir, profile=profile)
        if is_first():
            say("done" if trained else "this run is finished: nothing to do")


def _evaluate(args: argparse.Namespace) -> None:
    from glpi_jax.distributed.ranks import is_first
    from glpi_jax.report import results_markdown
    from glpi_jax.workflow.runs import evaluate_run

    with _joined(args) as config:
        results = evaluate_run(config, args.workdir)
        if is_first():
            print(results_markdown(results))


def _benchmark(args: argparse.Namespace) -> None:
    from glpi_jax.distributed.ranks import is_first
    from glpi_jax.report import benchmark_markdown
    from glpi_jax.workflow.benchmark import run_benchmark

    with _joined(args) as config:
        rounds = run_benchmark(config, args.workdir, rounds=args.rounds)
        if is_first():
            print(benchmark_markdown(rounds))


def _demo(args: argparse.Namespace) -> None:
    from glpi_jax.core.compilation import COMPILATIONS, kept_compilations
    from glpi_jax.demo import run_demo

    with kept_compilations(args.workdir / COMPILATIONS):
        run_demo(demo_config(args), args.workdir)


def _report(args: argparse.Namespace) -> None:
    from glpi_jax.report import write_comparison

    page, markdown, tex = write_comparison(args.workdirs, args.out)
    # As it was written: a folder's name need not be valid UTF-8.
    print(markdown.read_text(encoding="utf-8", errors="surrogateescape"), end="")
    say(f"report: {page}")
    say(f"tables: {markdown}, {tex}")
