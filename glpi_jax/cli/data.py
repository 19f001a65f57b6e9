"""`glpi data …`: databases on disk."""

import argparse
from pathlib import Path

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.cli.run import add_demo_options, demo_config


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    what = add_command(commands, "data", "Databases on disk.")
    data = what.add_subparsers(required=True, metavar="WHAT")

    demo = add_command(data, "demo", "Render the demonstration database.", _demo, clears_away=True)
    add_demo_options(demo)

    help_text = "Verify a copy of a database: labels, counts, every image."
    check = add_command(data, "check", help_text, _check)
    help_text = "Copy a database into a few files, for slow file systems; kind: prepared."
    prepare = add_command(data, "prepare", help_text, _prepare, clears_away=True)
    for command in (check, prepare):
        command.add_argument("name", help="the kind of source, such as kadid10k, koniq10k or csv")
        command.add_argument("root", type=Path, help="folder of the database")
        command.add_argument("--labels", type=Path, help="label file, for the kinds pyiqa and liqe")
    check.add_argument("--threads", type=int, default=4, help="images decoded at a time")
    prepare.add_argument("out", type=Path, help="folder to make")
    prepare.add_argument(
        "--skip-bad", action="store_true", help="leave out rows that cannot be used, and list them"
    )


def _demo(args: argparse.Namespace) -> None:
    from glpi_jax.demo import render

    print(render(demo_config(args)))


def _check(args: argparse.Namespace) -> int:
    from glpi_jax.data.sources import check_database

    report = check_database(args.name, args.root, args.labels, threads=args.threads, progress=True)
    for what, value in report.facts:
        print(f"{what:20} {value}")
    for problem in report.problems:
        say(f"problem: {problem}")
    if report.problems:
        say(f"{args.root}: {len(report.problems)} problems")
        return EXIT_BAD_INPUT
    say(f"{args.root}: a whole copy of {report.name}")
    return EXIT_OK


def _prepare(args: argparse.Namespace) -> None:
    from glpi_jax.data.prepare import prepare_database
    from glpi_jax.data.sources import load_database

    database = load_database(args.name, args.root, args.labels, skip_bad=args.skip_bad)
    for reason in database.left_out:
        say(f"left out: {reason}")
    folder = prepare_database(database, args.out, progress=True)
    left_out = f", {len(database.left_out)} left out" if database.left_out else ""
    say(f"{folder}: {len(database)} images of {database.name}{left_out}; its kind is prepared")
    print(folder)
