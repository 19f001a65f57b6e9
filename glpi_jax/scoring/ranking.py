"""The order of scored photographs, its two ends, and which of two is better."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from glpi_jax.scoring.results import ImageScore, Problem

_CLEAR = 2.0  # standard errors: with independent crops, chance exceeds it in 5 % of cases
# A score's last digits depend on where in a batch its crops lie: float32, summed in blocks.
_ROUNDING = 1e-6


def without_file(inputs: Iterable[str | Problem], path: Path | None) -> Iterator[str | Problem]:
    """Yield inputs but a file: the contact sheet that the same command has made before."""
    left_out = None if path is None else os.path.realpath(path)
    for source in inputs:
        if not isinstance(source, str) or os.path.realpath(source) != left_out:
            yield source


def best_first(scored: Iterable[ImageScore], higher_is_better: bool | None) -> list[ImageScore]:
    """Sort results that have scores; equal ones stay in their order, whatever the direction."""
    reverse = higher_is_better is not False
    return sorted(scored, key=lambda result: result.score or 0.0, reverse=reverse)


def both_ends(
    ranked: Sequence[ImageScore], top: int, *, known: bool
) -> list[tuple[str, Sequence[ImageScore]]]:
    """Return the first and the last `top` of a ranking under headings, none of them twice.

    `known` says whether the model knows which score is better.
    """
    first, last = ("Best", "Worst") if known else ("Highest scores", "Lowest scores")
    if len(ranked) <= 2 * top:
        return [(f"All {len(ranked)}, {first.lower()} first", ranked)]
    return [(first, ranked[:top]), (f"{last} of {len(ranked)}", ranked[-top:])]


def verdict(a: ImageScore, b: ImageScore, higher_is_better: bool | None) -> str:
    """Say which of two images, both with a score, is better; None leaves open which score is."""
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
