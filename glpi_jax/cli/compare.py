"""`glpi compare`."""

import argparse
import math
from typing import TYPE_CHECKING

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, one_line
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    add_model_option,
    given_name,
    refuse_models,
    scorer_of,
    table_row,
)
from glpi_jax.core.errors import GlpiError

if TYPE_CHECKING:
    from glpi_jax.scoring import ImageScore

_CLEAR = 2.0  # standard errors: with independent crops, chance exceeds it in 5 % of cases
# A score's last digits depend on where in a batch its crops lie: float32, summed in blocks.
_ROUNDING = 1e-6


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


def verdict(a: "ImageScore", b: "ImageScore", higher_is_better: bool | None) -> str:
    """Which of two scored images is better, in a sentence.

    Args:
        a, b: with scores and standard errors.
        higher_is_better: None leaves open which score is better.
    """
    assert a.score is not None
    assert b.score is not None
    difference = a.score - b.score
    error = math.hypot(a.standard_error or 0.0, b.standard_error or 0.0)
    if abs(difference) <= _ROUNDING * max(abs(a.score), abs(b.score)):
        return "the scores are equal"
    if higher_is_better is None:
        word, winner = "higher", a if difference > 0 else b
    else:
        word, winner = "better", a if (difference > 0) == higher_is_better else b
    ratio = abs(difference) / error if error else math.inf
    times = f"{abs(difference):.3f} apart, {ratio:.1f} × the standard error of {error:.3f}"
    if ratio > _CLEAR:
        return f"{winner.image} is {word}: {times}"
    return f"{winner.image} may be {word}, other crops could say otherwise: {times}"
