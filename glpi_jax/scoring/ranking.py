"""The order of scored photographs, and its two ends."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from glpi_jax.scoring.results import ImageScore, Problem


def without_file(inputs: Iterable[str | Problem], path: Path | None) -> Iterator[str | Problem]:
    """Yield inputs but a file: the contact sheet that the same command has made before."""
    left_out = None if path is None else os.path.realpath(path)
    for source in inputs:
        if not isinstance(source, str) or os.path.realpath(source) != left_out:
            yield source


def best_first(scored: Iterable[ImageScore], *, lower_better: bool) -> list[ImageScore]:
    """Sort results that have scores; equal ones stay in their order, whatever the direction."""
    sign = 1 if lower_better else -1
    return sorted(scored, key=lambda result: sign * (result.score or 0.0))


def both_ends(
    ranked: Sequence[ImageScore], top: int, *, known: bool
) -> list[tuple[str, Sequence[ImageScore]]]:
    """Return the first and the last `top` of a ranking under headings, none of them twice.

    Args:
        ranked: from `best_first`.
        top: length of an end, at least 1.
        known: whether the model says which score is better.
    """
    first, last = ("Best", "Worst") if known else ("Highest scores", "Lowest scores")
    if len(ranked) <= 2 * top:
        return [(f"All {len(ranked)}, {first.lower()} first", ranked)]
    return [(first, ranked[:top]), (f"{last} of {len(ranked)}", ranked[-top:])]
