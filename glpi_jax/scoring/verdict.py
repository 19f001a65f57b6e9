"""Which of two scored photographs is better."""

import math

from glpi_jax.scoring.results import ImageScore

_CLEAR = 2.0  # standard errors: with independent crops, chance exceeds it in 5 % of cases
# A score's last digits depend on where in a batch its crops lie: float32, summed in blocks.
_ROUNDING = 1e-6


def verdict(a: ImageScore, b: ImageScore, higher_is_better: bool | None) -> str:
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
