"""Multi-level Otsu thresholds by Nelder-Mead search, as MATLAB's multithresh finds them.

The search stops early (a tolerance of one grey level) and its path is chaotic, so that the order
of the floating-point operations and a stable sort matter; SciPy's Nelder-Mead ends elsewhere.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from glpi_jax.distortions.bands import row_bands
from glpi_jax.distortions.color_spaces import FloatImage

_BINS = 256
Vector = NDArray[np.float64]


def between_class_variance(histogram: NDArray[np.float64], thresholds: Vector) -> float:
    """Otsu's criterion in squared bins, for thresholds (N,) in bins 0..255; -inf if not allowed.

    Allowed are strictly increasing thresholds of 1..254 after rounding, with no empty class.
    """
    probability = histogram / histogram.sum()
    weight = np.cumsum(probability)
    moment = np.cumsum(probability * np.arange(1, _BINS + 1))
    return _criterion(weight, moment, thresholds)


def _criterion(weight: Vector, moment: Vector, thresholds: Vector) -> float:
    edges = np.empty(len(thresholds) + 1, dtype=np.int64)
    edges[:-1] = np.floor(thresholds + 0.5)
    edges[-1] = _BINS - 1
    if edges[0] < 1 or (edges[1:] <= edges[:-1]).any():
        return -np.inf
    class_weight = weight[edges]
    class_weight[1:] -= class_weight[:-1].copy()
    if not class_weight.all():
        return -np.inf
    class_mean = moment[edges]
    class_mean[1:] -= class_mean[:-1].copy()
    class_mean /= class_weight
    # Summed class by class: a pairwise sum would differ in the last bit.
    return float(np.cumsum(class_weight * (class_mean - moment[-1]) ** 2)[-1])


def minimise_nelder_mead(
    objective: Callable[[Vector], float],
    start: Vector,
    x_tolerance: float,
    f_tolerance: float,
    max_evaluations: int,
) -> Vector:
    """Nelder-Mead in MATLAB's manner (fminsearch): start simplex 5 % along each axis, stable sort.

    Stops when all vertices lie within `x_tolerance` of the best and `f_tolerance` of its value, or
    after `max_evaluations` evaluations or iterations. Returns the best vertex.
    """
    size = len(start)
    simplex = np.tile(start, (size + 1, 1))
    for axis in range(size):
        # fminsearch: 5 % of a coordinate, 0.00025 where it is zero.
        simplex[axis + 1, axis] = 1.05 * start[axis] if start[axis] != 0 else 0.00025
    values = np.array([objective(vertex) for vertex in simplex])
    order = np.argsort(values, kind="stable")
    simplex, values = simplex[order], values[order]
    evaluations, iterations = size + 1, 1

    while evaluations < max_evaluations and iterations < max_evaluations:
        # While every vertex is outside the domain the values are infinite: go on.
        spread = values[-1] - values[0] if np.isfinite(values[0]) else np.inf
        if spread <= f_tolerance and np.abs(simplex[1:] - simplex[0]).max() <= x_tolerance:
            break
        centre = simplex[:-1].sum(axis=0) / size
        worst = simplex[-1]
        shrink = False

        reflected = 2 * centre - worst
        value = objective(reflected)
        evaluations += 1
        if value < values[0]:
            expanded = 3 * centre - 2 * worst
            expanded_value = objective(expanded)
            evaluations += 1
            if expanded_value < value:
                reflected, value = expanded, expanded_value
            simplex[-1], values[-1] = reflected, value
        elif value < values[-2]:
            simplex[-1], values[-1] = reflected, value
        elif value < values[-1]:
            outside = 1.5 * centre - 0.5 * worst
            outside_value = objective(outside)
            evaluations += 1
            if outside_value <= value:
                simplex[-1], values[-1] = outside, outside_value
            else:
                shrink = True
        else:
            inside = 0.5 * centre + 0.5 * worst
            inside_value = objective(inside)
            evaluations += 1
            if inside_value < values[-1]:
                simplex[-1], values[-1] = inside, inside_value
            else:
                shrink = True
        if shrink:
            for vertex in range(1, size + 1):
                simplex[vertex] = simplex[0] + 0.5 * (simplex[vertex] - simplex[0])
                values[vertex] = objective(simplex[vertex])
            evaluations += size

        order = np.argsort(values, kind="stable")
        simplex, values = simplex[order], values[order]
        iterations += 1
    return simplex[0]


def histogram_256(image: FloatImage) -> NDArray[np.float64]:
    """Counts (256,) of all values, stretched in float32 to their range and rounded to 8 bits.

    The float32 value is scaled in float64: which way a half rounds decides the whole search.
    """
    low, high = image.min(), image.max()
    counts = np.zeros(_BINS)
    for band in row_bands(*image.shape[:2]):
        values = image[band]
        stretched = np.zeros_like(values) if high == low else (values - low) / (high - low)
        levels = np.floor(stretched.astype(np.float64) * 255 + 0.5).astype(np.uint8)
        counts += np.bincount(levels.ravel(), minlength=_BINS)
    return counts


def otsu_thresholds(histogram: NDArray[np.float64], count: int) -> Vector:
    """`count` increasing thresholds for a histogram (256,) of 0..1, in 255ths, whole numbers.

    Maximises the between-class variance, starting from equally spaced thresholds.
    """
    probability = histogram / histogram.sum()
    weight = np.cumsum(probability)
    moment = np.cumsum(probability * np.arange(1, _BINS + 1))
    start = np.linspace(0, _BINS - 1, count + 2)[1:-1]
    best = minimise_nelder_mead(
        lambda thresholds: -_criterion(weight, moment, thresholds),
        start,
        x_tolerance=1,
        f_tolerance=1e-4,
        max_evaluations=200 * count,
    )
    return np.floor(best + 0.5)
