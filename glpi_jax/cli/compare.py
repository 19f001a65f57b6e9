"""`glpi compare`."""

import argparse

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, one_line
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    add_model_option,
    given_name,
    scorer_of,
    table_row,
)
from glpi_jax.core.errors import GlpiError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "compare",
        "Which of two photographs is better, and whether the difference is larger than what other"
        " crops of the same photographs would make.",
    )
    command.add_argument("first", type=given_name, metavar="A", help="an image file or URL")
    command.add_argument("second", type=given_name, metavar="B", help="an image file or URL")
    add_model_option(command)
    add_crop_options(command)
    command.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from glpi_jax.scoring.arguments import refuse_models
    from glpi_jax.scoring.verdict import verdict

    if args.crops == 1:
        raise GlpiError("--crops 1: one crop has no spread; take 2 or more")
    refuse_models([args.first, args.second])
    scorer = scorer_of(args, args.model)
    results = scorer.score([args.first, args.second])
    for result in results:
        if result.error is not None:
            raise GlpiError(result.error)
    for result in results:
        print(table_row(result))
    print(one_line(verdict(results[0], results[1], scorer.higher_is_better)))
    return EXIT_OK
