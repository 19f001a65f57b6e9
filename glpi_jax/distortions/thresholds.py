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


def between_class_variance(histogram: Vector) -> Callable[[Vector], float]:
    """Otsu's criterion of a histogram (256,), in squared bins, for thresholds (N,) in bins 0..255.

    It is -inf unless they are strictly increasing, 1..254 after rounding, with no empty class.
    """
    probability = histogram / histogram.sum()
    weight = np.cumsum(probability)
    moment = np.cumsum(probability * np.arange(1, _BINS + 1))

    def criterion(thresholds: Vector) -> float:
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

    return criterion


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
        reflected = 2 * centre - worst
        value = objective(reflected)
        evaluations += 1
        accepted = value < values[-2]
        if value < values[0] or not accepted:
            outside = values[0] <= value < values[-1]
            if value < values[0]:  # expand
                other = 3 * centre - 2 * worst
            elif outside:  # contract
                other = 1.5 * centre - 0.5 * worst
            else:  # contract on the inside
                other = 0.5 * centre + 0.5 * worst
            other_value = objective(other)
            evaluations += 1
            if other_value < min(value, values[-1]) or (outside and other_value == value):
                reflected, value, accepted = other, other_value, True
        if accepted:
            simplex[-1], values[-1] = reflected, value
        else:
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


def otsu_thresholds(histogram: Vector, count: int) -> Vector:
    """`count` increasing thresholds for a histogram (256,) of 0..1, in 255ths, whole numbers.

    Maximises the between-class variance, starting from equally spaced thresholds.
    """
    variance = between_class_variance(histogram)
    start = np.linspace(0, _BINS - 1, count + 2)[1:-1]
    best = minimise_nelder_mead(
        lambda thresholds: -variance(thresholds),
        start,
        x_tolerance=1,
        f_tolerance=1e-4,
        max_evaluations=200 * count,
    )
    return np.floor(best + 0.5)
