"""Agreement between predicted and subjective quality: SROCC, PLCC, KRCC and RMSE.

The four criteria are those of the GLPI paper (arXiv 2408.03885, section 4.1) and of most of the
literature. PLCC is plain Pearson correlation, without a logistic fit, as the official code has it;
`glpi_jax.evaluation.logistic.full_metrics` adds PLCC and RMSE after the fit.

Signs: the official protocol leaves DMOS (lower is better) as it is, so that a good model trained on
MOS has negative correlations with it. The strict protocol turns the labels first, see `oriented`.
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from glpi_jax.core.errors import GlpiError

Group = TypeVar("Group", bound=Hashable)


def srocc(predicted: ArrayLike, mos: ArrayLike) -> float | None:
    """Spearman rank-order correlation, with average ranks for ties.

    Args:
        predicted: scores of the model, (n,) real.
        mos: subjective scores of the same images in the same order, (n,) real.

    Returns:
        A value in [-1, 1], or None where it is undefined: fewer than two images, or all values of
        one side equal.

    Raises:
        GlpiError: the two are not vectors of one length, or hold NaN or an infinity.
    """
    return _correlation(stats.spearmanr, predicted, mos)


def plcc(predicted: ArrayLike, mos: ArrayLike) -> float | None:
    """Pearson linear correlation, no logistic fit.

    Arguments, result and errors are those of `srocc`.
    """
    return _correlation(stats.pearsonr, predicted, mos)


def krcc(predicted: ArrayLike, mos: ArrayLike) -> float | None:
    """Kendall rank correlation, tau-b (ties on either side are allowed for).

    Arguments, result and errors are those of `srocc`.
    """
    return _correlation(stats.kendalltau, predicted, mos)


def rmse(predicted: ArrayLike, mos: ArrayLike) -> float | None:
    """Root mean squared error in the unit of the labels, without any mapping of the predictions.

    Constant input is fine here, but a single image is not a sample: like the correlations, fewer
    than two images give None. Arguments and errors are those of `srocc`.
    """
    x, y = paired_scores(predicted, mos)
    if x.size < 2:
        return None
    with np.errstate(over="ignore"):
        value = float(np.sqrt(np.mean((x - y) ** 2)))
    return value if np.isfinite(value) else None


def quality_metrics(predicted: ArrayLike, mos: ArrayLike) -> dict[str, float | None]:
    """Give all four criteria under the keys `srocc`, `plcc`, `krcc` and `rmse`.

    They are raw, so that a validation in a training is quick; `full_metrics` adds the fits.
    Arguments and errors are those of `srocc`; None stands for an undefined value.
    """
    criteria = {"srocc": srocc, "plcc": plcc, "krcc": krcc, "rmse": rmse}
    return {name: criterion(predicted, mos) for name, criterion in criteria.items()}


def metrics_by_group(
    predicted: ArrayLike, mos: ArrayLike, groups: Iterable[Group]
) -> dict[Group, dict[str, float | int | None]]:
    """Compute `quality_metrics` within each group of images, such as one distortion.

    Arguments and errors are those of `srocc` and `rows_by_group`.

    Returns:
        a dictionary in the order in which the groups first appear:
        `{group: {"images": count, "srocc": …, "plcc": …, "krcc": …, "rmse": …}}`.
    """
    x, y = paired_scores(predicted, mos)
    return {
        label: {"images": len(rows), **quality_metrics(x[rows], y[rows])}
        for label, rows in rows_by_group(groups, x.size).items()
    }


def rows_by_group(groups: Iterable[Group], images: int) -> dict[Group, list[int]]:
    """Give the rows of each group, in the order in which the groups first appear.

    Raises a GlpiError unless there is one entry in `groups` for each of `images`.
    """
    labels = list(groups)
    if len(labels) != images:
        raise GlpiError(f"groups has {len(labels)} entries for {images} images: give one an image.")
    rows: dict[Group, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def oriented(scores: ArrayLike, higher_is_better: bool) -> NDArray[np.float64]:
    """Turn labels so that higher is better, for the strict protocol.

    DMOS is negated: that keeps its unit and its spread, needs no range, which only all labels would
    tell, and done twice gives the labels back. The official protocol does not do this.

    Args:
        scores: labels, (n,) real.
        higher_is_better: False for a DMOS whose lower values are the better ones; the name DMOS
            does not tell it, as KADID-10k's DMOS is higher for better images.

    Returns:
        A new vector, (n,) float64.

    Raises:
        GlpiError: not a vector, or NaN or an infinity in it.
    """
    vector = _vector("scores", scores)
    # 0 - x, not -x: no -0.0 in a results file.
    return vector.copy() if higher_is_better else 0.0 - vector


def median_and_spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Summarise one criterion over the rounds of an experiment.

    A round where the criterion is undefined (None) is not left out, as that would flatter a model
    that collapses in some rounds: with one or more of them every statistic is undefined, and
    `undefined` says how many there are.

    Args:
        values: the criterion in each round, at least one.

    Returns:
        `rounds` and `undefined`, counts; `median`, `mean`, `std` (n - 1 in the denominator; None
        for one round), `q1` and `q3` (quartiles, interpolated linearly), `min` and `max`. None
        stands for an undefined value.

    Raises:
        GlpiError: no rounds, or a value that is NaN, infinite or no number.
    """
    if len(values) == 0:
        raise GlpiError("values is empty: a summary needs at least one round.")
    defined = _vector("values", [value for value in values if value is not None])
    undefined = len(values) - defined.size
    names = ("median", "mean", "std", "q1", "q3", "min", "max")
    statistics: list[Any] = [np.nan] * len(names)
    if not undefined:
        with np.errstate(over="ignore", invalid="ignore"):
            statistics = [
                np.median(defined),
                np.mean(defined),
                np.std(defined, ddof=1) if defined.size > 1 else np.nan,
                *np.quantile(defined, (0.25, 0.75)),
                np.min(defined),
                np.max(defined),
            ]
    finite = [float(value) if np.isfinite(value) else None for value in statistics]
    return {"rounds": len(values), "undefined": undefined, **dict(zip(names, finite, strict=True))}


def paired_scores(
    predicted: ArrayLike, mos: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check arguments as those of `srocc`, and give them as float64 vectors of one length."""
    x, y = _vector("predicted", predicted), _vector("mos", mos)
    if x.shape != y.shape:
        raise GlpiError(
            f"predicted has {x.size} values and mos has {y.size}: give one of each an image."
        )
    return x, y


def _vector(name: str, values: ArrayLike) -> NDArray[np.float64]:
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GlpiError(f"{name} is not a vector of numbers: {error}.") from error
    if vector.ndim != 1:
        raise GlpiError(f"{name} has shape {vector.shape}: give a vector, one value an image.")
    unusable = np.flatnonzero(~np.isfinite(vector))
    if unusable.size:
        raise GlpiError(
            f"{name} holds {unusable.size} value(s) that are NaN or infinite, the first at index"
            f" {unusable[0]}: drop or repair these images before computing metrics."
        )
    return vector


def _correlation(
    function: Callable[..., Any], predicted: ArrayLike, mos: ArrayLike
) -> float | None:
    x, y = paired_scores(predicted, mos)
    if x.size < 2:
        return None
    # SciPy gives NaN and a warning for constant input; a warning alone, where the spread is at the
    # limit of float64, is about a value like any other here.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        value = float(function(x, y).statistic)
    return value if np.isfinite(value) else None
