"""`glpi train`, `evaluate`, `benchmark` and `demo`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import (
    EXIT_OK,
    OVERRIDE_HELP,
    Commands,
    add_command,
    add_process_options,
    add_run_options,
    config_of,
    join_processes,
    say,
)

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    train = add_command(
        commands, "train", "Train a config in a workdir, or go on where that stopped; evaluate it."
    )
    add_run_options(train)
    add_process_options(train)
    train.add_argument(
        "--profile",
        action="store_true",
        help="trace five steps into WORKDIR/profile, for XProf or TensorBoard",
    )
    train.set_defaults(run=_train, resumes=True)

    evaluate = add_command(
        commands, "evaluate", "Score a trained workdir's test parts and write the report."
    )
    add_run_options(evaluate)
    add_process_options(evaluate)
    evaluate.set_defaults(run=_evaluate)

    benchmark = add_command(
        commands, "benchmark", "Train and evaluate rounds of a config; the median over them."
    )
    add_run_options(benchmark)
    add_process_options(benchmark)
    benchmark.add_argument("--rounds", type=int, required=True, help="number of rounds; 10 usually")
    benchmark.set_defaults(run=_benchmark, resumes=True)

    demo = add_command(
        commands, "demo", "Render, train, evaluate, report and score, in minutes on a CPU."
    )
    demo.add_argument("--workdir", type=Path, default=Path("runs/demo"), help="folder of the run")
    add_demo_options(demo)
    demo.set_defaults(run=_demo, resumes=True)


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


def _train(args: argparse.Namespace) -> int:
    from glpi_jax.core.compilation import COMPILATIONS, kept_compilations
    from glpi_jax.distributed.ranks import is_first
    from glpi_jax.workflow.runs import train_run

    join_processes(args)
    profile = args.workdir / "profile" if args.profile else None
    with kept_compilations(args.workdir / COMPILATIONS):
        trained = train_run(config_of(args), args.workdir, profile=profile)
    if is_first():
        say("done" if trained else "this run is finished: nothing to do")
        say(f"report: {args.workdir / 'report.html'}")
    return EXIT_OK


def _evaluate(args: argparse.Namespace) -> int:
    from glpi_jax.core.compilation import COMPILATIONS, kept_compilations
    from glpi_jax.distributed.ranks import is_first
    from glpi_jax.report import results_markdown
    from glpi_jax.workflow.runs import evaluate_run

    join_processes(args)
    with kept_compilations(args.workdir / COMPILATIONS):
        results = evaluate_run(config_of(args), args.workdir)
    if is_first():
        print(results_markdown(results))
        say(f"report: {args.workdir / 'report.html'}")
    return EXIT_OK


def _benchmark(args: argparse.Namespace) -> int:
    from glpi_jax.core.compilation import COMPILATIONS, kept_compilations
    from glpi_jax.distributed.ranks import is_first
    from glpi_jax.report import benchmark_markdown
    from glpi_jax.workflow.benchmark import run_benchmark

    join_processes(args)
    with kept_compilations(args.workdir / COMPILATIONS):
        rounds = run_benchmark(config_of(args), args.workdir, rounds=args.rounds)
    if is_first():
        print(benchmark_markdown(rounds))
        say(f"report: {args.workdir / 'report.html'}")
    return EXIT_OK


def _demo(args: argparse.Namespace) -> int:
    from glpi_jax.core.compilation import COMPILATIONS, kept_compilations
    from glpi_jax.demo import run_demo

    with kept_compilations(args.workdir / COMPILATIONS):
        run_demo(demo_config(args), args.workdir)
    return EXIT_OK
