"""Bootstrap confidence intervals of SROCC, PLCC, KRCC and RMSE.

The percentile bootstrap of B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 13. A resample is how often it draws each image, so that all resamples share one sorting of
the scores: ranks are cumulative sums of the counts, and so are Kendall's pairs in a merge sort. The
time grows with resamples × n log n, and the memory does not grow with the resamples.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation.metrics import paired_scores, quality_metrics, rows_by_group

Array = NDArray[np.float64]

# Resamples × images at a time: arrays of 1 MiB, which stay in a processor's cache.
_CHUNK = 2**17


class Interval(TypedDict):
    """A criterion's value on all images, with the ends of its confidence interval.

    `undefined` is the number of resamples in which it is undefined and which the interval lacks.
    """

    estimate: float | None
    low: float | None
    high: float | None
    undefined: int


def bootstrap_intervals(
    predicted: ArrayLike,
    mos: ArrayLike,
    *,
    seed: int,
    resamples: int,
    confidence: float,
    groups: Iterable[Hashable] | None = None,
) -> dict[str, Interval]:
    """Give percentile bootstrap intervals of the four criteria.

    Images drawn from few references are not independent: for a synthetic database pass `groups`,
    and whole references are resampled (cluster bootstrap, A. C. Davison and D. V. Hinkley,
    "Bootstrap Methods and Their Application", 1997, section 3.8). The intervals tell how far the
    criterion would move with other images (or references), not with another training.

    Args:
        predicted, mos: as for `srocc`.
        seed: of the resampling, not negative; equal arguments give equal intervals.
        resamples: how many; 1000 or more are usual.
        confidence: of the interval, between 0 and 1, such as 0.95.
        groups: the reference of each image, n values; None resamples images.

    Returns:
        the intervals by the names srocc, plcc, krcc and rmse. The estimates equal
        `quality_metrics`. The ends are None where no resample defines the criterion (as when all
        predictions are equal), or with fewer than two images or references to draw from.

    Raises:
        GlpiError: as `srocc`, `groups` has another length, or `seed`, `resamples` or `confidence`
            is out of its range.
    """
    x, y = paired_scores(predicted, mos)
    if seed < 0:
        raise GlpiError(f"seed is {seed}: give 0 or more.")
    if resamples < 1:
        raise GlpiError(f"resamples is {resamples}: give at least 1, better 1000.")
    if not 0 < confidence < 1:
        raise GlpiError(f"confidence is {confidence}: give a number between 0 and 1, as 0.95.")
    members = rows_by_group(range(x.size) if groups is None else groups, x.size)
    count = len(members)  # what is drawn from: images, or references
    units = np.empty(x.size, np.int64)
    for number, rows in enumerate(members.values()):
        units[rows] = number

    estimates = quality_metrics(x, y)
    values = {name: np.full(resamples, np.nan) for name in estimates}
    if count > 1:
        rng = np.random.default_rng(seed)
        resampling = Resampling(x, y)
        at_a_time = max(1, _CHUNK // x.size)
        for start in range(0, resamples, at_a_time):
            drawn = _draw(rng, count, min(at_a_time, resamples - start))
            for name, part in resampling(drawn.take(units, axis=1)).items():
                values[name][start : start + at_a_time] = part
    return {
        name: _interval(estimate, values[name], confidence) for name, estimate in estimates.items()
    }


class Resampling:
    """The four criteria of many resamples of the same images.

    Args:
        x: predicted scores, (n,) finite, n ≥ 1.
        y: subjective scores, (n,) finite.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self._x, self._y = x, y
        self._x_ties, self._y_ties = _Ties(x), _Ties(y)
        self._both_ties = _Ties(self._x_ties.group * x.size + self._y_ties.group)
        self._merges = list(_merges(self._x_ties.group, self._y_ties.group))

    def __call__(self, counts: NDArray[np.int64]) -> dict[str, Array]:
        """Compute the criteria of b resamples.

        Each equals that of `quality_metrics` on the images repeated as often as they were drawn,
        ties included, up to rounding.

        Args:
            counts: how often each resample draws each image, (b, n), not negative.

        Returns:
            `srocc`, `plcc`, `krcc` and `rmse`, (b,) each; NaN where undefined. One squared error
            beyond float64 leaves every RMSE undefined.
        """
        weights = counts.astype(np.float64)
        sizes = weights.sum(axis=1)
        x_tied, y_tied, both_tied = (
            ties.sizes(weights) for ties in (self._x_ties, self._y_ties, self._both_ties)
        )
        x_pairs, y_pairs = _untied_pairs(x_tied), _untied_pairs(y_tied)
        # Pairs tied on neither side are concordant or discordant.
        strict_pairs = x_pairs + y_pairs - _untied_pairs(both_tied)
        concordance = strict_pairs - 2 * self._discordant_pairs(weights)
        x_ranks = _ranks(x_tied).take(self._x_ties.group, axis=1)
        y_ranks = _ranks(y_tied).take(self._y_ties.group, axis=1)
        # Fewer than two different values on a side: correlations are undefined, but 0 / 0 rounded.
        constant = (x_pairs == 0) | (y_pairs == 0)
        with np.errstate(all="ignore"):
            metrics = {
                "srocc": _pearson(x_ranks, y_ranks, weights, sizes),
                "plcc": _pearson(_scaled(self._x)[None], _scaled(self._y)[None], weights, sizes),
                "krcc": concordance / np.sqrt(x_pairs) / np.sqrt(y_pairs),
            }
            for values in metrics.values():
                values[constant] = np.nan
                np.clip(values, -1, 1, out=values)
            metrics["rmse"] = np.sqrt(weights @ (self._x - self._y) ** 2 / sizes)
        metrics["rmse"][(sizes < 2) | ~np.isfinite(metrics["rmse"])] = np.nan
        return metrics

    def _discordant_pairs(self, weights: Array) -> Array:
        """Pairs in which one side rises and the other falls, (b,): inversions of a merge sort."""
        pairs = np.zeros(len(weights))
        for order, earlier, starts in self._merges:
            later = weights.take(order, axis=1)
            above = later * earlier
            later -= above
            np.cumsum(above, axis=1, out=above)
            # Less what the blocks before had summed up.
            before = above[:, starts[1:] - 1] * np.add.reduceat(later, starts, axis=1)[:, 1:]
            pairs += np.einsum("bn,bn->b", later, above) - before.sum(axis=1)
        return pairs


def _draw(rng: np.random.Generator, count: int, resamples: int) -> NDArray[np.int64]:
    """Draw `count` of `count` units with replacement, as often as asked: (resamples, count)."""
    chosen = rng.integers(count, size=(resamples, count))
    chosen += count * np.arange(resamples)[:, None]
    return np.bincount(chosen.ravel(), minlength=resamples * count).reshape(resamples, count)


def _interval(estimate: float | None, values: Array, confidence: float) -> Interval:
    defined = values[~np.isnan(values)]
    ends: list[float] | list[None] = [None, None]
    if defined.size:
        ends = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    undefined = values.size - defined.size
    return {"estimate": estimate, "low": ends[0], "high": ends[1], "undefined": undefined}


class _Ties:
    """Which images have equal values.

    Attributes:
        group: rank of each image's value among the distinct values, (n,).
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.group: NDArray[np.int64] = np.unique(values, return_inverse=True)[1]
        self._order = np.argsort(self.group, kind="stable")
        self._starts = np.flatnonzero(np.diff(self.group[self._order], prepend=-1))

    def sizes(self, weights: Array) -> Array:
        """How many images with each value, in rising order, the resamples have: (b, distinct)."""
        return np.add.reduceat(weights.take(self._order, axis=1), self._starts, axis=1)


def _merges(
    x_group: NDArray[np.int64], y_group: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Array, NDArray[np.int64]]]:
    """Yield the merges of a merge sort by falling y of images sorted by x (W. R. Knight, 1966).

    Each joins two neighbouring halves of all blocks. In a merged block an image of the later half
    is discordant with those of the earlier half that come before it.

    Yields:
        The images in the merged order, (n,); 1.0 for those of an earlier half, else 0.0, (n,); and
        where the blocks start.
    """
    images = x_group.size
    place = np.empty(images, np.int64)
    place[np.lexsort((y_group, x_group))] = np.arange(images)
    half = 1
    while half < images:
        later = place // half % 2
        # Of equal y the later half comes first, so that ties do not count.
        order = np.lexsort((-later, -y_group, place // (2 * half)))
        yield order, (later[order] == 0).astype(np.float64), np.arange(0, images, 2 * half)
        half *= 2


def _ranks(tied: Array) -> Array:
    """Average rank of each distinct value from the number of images that have it, (b, distinct)."""
    # A value's images take the ranks up to its cumulative count, and each gets their mean.
    return np.cumsum(tied, axis=1) - (tied - 1) / 2


def _untied_pairs(tied: Array) -> Array:
    """How many pairs of images differ, (b,), from the number with each value, (b, distinct)."""
    squares: Array = np.sum(tied, axis=1) ** 2 - np.sum(tied**2, axis=1)
    return squares / 2


def _scaled(values: Array) -> Array:
    """Scale to at most 1, so that no square leaves float64."""
    return values / (np.abs(values).max() or 1.0)


def _pearson(x: Array, y: Array, weights: Array, sizes: Array) -> Array:
    """Pearson correlation in each resample, (b,); x and y are (b, n), or (1, n) for all alike."""
    # About the mean of the resample: about any other point, squares lose digits to an outlier.
    x = x - (np.sum(weights * x, axis=1) / sizes)[:, None]
    y = y - (np.sum(weights * y, axis=1) / sizes)[:, None]
    x_square, y_square, product = (
        np.einsum("bn,bn,bn->b", weights, first, second)
        for first, second in ((x, x), (y, y), (x, y))
    )
    return product / np.sqrt(x_square) / np.sqrt(y_square)
