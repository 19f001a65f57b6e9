"""Logistic regression of subjective on predicted scores, and PLCC and RMSE after it.

The regression takes the predicted scores to the scale of the labels before they are compared, so
that a model is not punished for a monotone but curved relation. Two forms are in use:

- 4 parameters: `f(x) = (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2`. Video Quality Experts Group,
  "Final report on the validation of objective models of video quality assessment, Phase II", 2003.
- 5 parameters: `f(x) = b1·(1/2 - 1 / (1 + exp(b2·(x - b3)))) + b4·x + b5`. H. R. Sheikh,
  M. F. Sabir, A. C. Bovik, "A statistical evaluation of recent full reference image quality
  assessment algorithms", IEEE Transactions on Image Processing 15(11), 2006. It need not be
  monotone.

Either may fall as well as rise, as DMOS (lower is better) needs it. PLCC after a fit is therefore
never negative and says nothing of the direction: read that from the raw SROCC or PLCC, or turn the
labels first (`glpi_jax.evaluation.metrics.oriented`).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation.metrics import paired_scores, plcc, quality_metrics, rmse

Vector = NDArray[np.float64]

# Start values: sigmoids at these quantiles of the predictions and one bulk (the range of the middle
# half) beyond each end, of these widths in units of the bulk. The best centre of each width is a
# candidate, and the search goes on from the best candidates.
_QUANTILES = (np.arange(15) + 0.5) / 15
_WIDTHS = np.array([0.04, 0.1, 0.3, 1.0, 3.0, 10.0])
_STARTS = 4
# Where it searches: a narrower sigmoid (in bulks) is a step between two images, a wider one (in
# ranges) is a line, and one centred further beyond the ends (in widths) an exponential. These
# limits are near enough, while their coefficients would cancel to nothing in float64.
_NARROWEST, _WIDEST, _FURTHEST = 0.03, 5.0, 8.0
_TOLERANCE = 1e-8
_EVALUATIONS = 200  # of the residuals, from each start, before the search gives up
# Ranges of the scores beyond this, or below its inverse, leave the coefficients no room in float64.
_LARGEST = 1e100


@dataclass(frozen=True)
class LogisticFit:
    """A map from predicted scores to the scale of the labels.

    Attributes:
        form: `logistic4`, `logistic5`, or `linear` where the least-squares line took their place.
        parameters: b1 … b4 or b1 … b5 of the formulas above, in the units of the scores; for
            `linear` slope, x0 and y0 of f(x) = slope·(x - x0) + y0.
        converged: whether the search for the logistic function ended by its tolerances. A `linear`
            map that converged says that no logistic function is better than the line, which is
            a limit of both forms; one that did not is the fallback.
    """

    form: Literal["logistic4", "logistic5", "linear"]
    parameters: tuple[float, ...]
    converged: bool

    def __call__(self, predicted: ArrayLike) -> Vector:
        """Map scores of any shape to float64 of that shape, each by itself."""
        x = np.asarray(predicted, np.float64)
        # A huge argument is a sigmoid of 0 or 1, and `expit` does not mind an infinite one.
        with np.errstate(all="ignore"):
            if self.form == "logistic4":
                b1, b2, b3, b4 = self.parameters
                return (b1 - b2) * expit((x - b3) / abs(b4)) + b2
            if self.form == "logistic5":
                b1, b2, b3, b4, b5 = self.parameters
                # 1/2 - 1 / (1 + exp(z)) is expit(z) - 1/2.
                return b1 * (expit(b2 * (x - b3)) - 0.5) + b4 * x + b5
            slope, x0, y0 = self.parameters
            return slope * (x - x0) + y0


def fit_logistic(predicted: ArrayLike, mos: ArrayLike, parameters: Literal[4, 5]) -> LogisticFit:
    """Fit a logistic function from predicted to subjective scores by least squares.

    The PLCC of the mapped scores is never below the absolute PLCC of the raw ones (up to 1e-9),
    nor is their squared error above that of the least-squares line: where the search does worse, or
    does not converge, the line is the result. No search is made where it would mean nothing: labels
    that are all equal, or no more distinct predictions than parameters; nor for a range of either
    side beyond 1e±100, where float64 ends. The line then counts as not converged. It is a constant,
    the mean label, where all predictions or all labels are equal.

    Only the centre and the width of the sigmoid are searched, from a grid of start values, by
    `scipy.optimize.least_squares`; the other parameters are linear and follow from them (variable
    projection, G. H. Golub and V. Pereyra, SIAM J. Numer. Anal. 10(2), 1973). The result depends
    on the scores alone, and follows a change of their units.

    Args:
        predicted, mos: as for `srocc`, n ≥ 2; MOS or DMOS.
        parameters: 4 or 5, which of the forms.

    Raises:
        GlpiError: as `srocc`, there are fewer than two images, or `parameters` is neither 4 nor 5.
    """
    x, y = paired_scores(predicted, mos)
    if parameters not in (4, 5):
        raise GlpiError(f"parameters is {parameters!r}: the logistic forms have 4 or 5.")
    if x.size < 2:
        raise GlpiError(f"a logistic fit to {x.size} image(s): give at least two.")
    with np.errstate(all="ignore"):
        line = _line(x, y)
        if np.unique(x).size <= parameters or np.ptp(y) == 0:
            return line
        fit = _search(x, y, parameters)
        if fit is None:
            return line
        better = _squared_error(fit, x, y) <= _squared_error(line, x, y)
    # The second condition follows from the first but for rounding, where both are tiny.
    after = plcc(fit(x), y) if better else None
    better = after is not None and after >= abs(plcc(x, y) or 0.0)
    return fit if better else replace(line, converged=True)


def full_metrics(predicted: ArrayLike, mos: ArrayLike) -> dict[str, float | bool | None]:
    """Give the four raw criteria, and PLCC and RMSE after both logistic fits.

    The fits take some 0.05 s for 2000 images and seconds for 40,000. For a validation in a
    training, and for many small groups where a fit of five parameters means little, take
    `glpi_jax.evaluation.metrics.quality_metrics`. Arguments and errors are those of `srocc`.

    Returns:
        Under `srocc`, `plcc`, `krcc` and `rmse` what `quality_metrics` gives; under
        `plcc_logistic4`, `rmse_logistic4`, `plcc_logistic5` and `rmse_logistic5` the same of the
        mapped predictions, the error divided by n and not by the degrees of freedom; under
        `logistic4_converged` and `logistic5_converged` whether the fit converged (see
        `LogisticFit`). None stands for an undefined value: PLCC after the fit is undefined where
        the raw one is, and all of them are for fewer than two images.
    """
    x, y = paired_scores(predicted, mos)
    metrics: dict[str, float | bool | None] = {**quality_metrics(x, y)}
    raw = metrics["plcc"]
    forms: tuple[Literal[4, 5], ...] = (4, 5)
    for form in forms:
        keys = (f"plcc_logistic{form}", f"rmse_logistic{form}", f"logistic{form}_converged")
        if x.size < 2:
            metrics |= dict.fromkeys(keys)
            continue
        fit = fit_logistic(x, y, form)
        mapped = fit(x)
        after = None if raw is None else abs(raw)  # no line changes more than the sign
        if fit.form != "linear":
            after = plcc(mapped, y)
        error = rmse(mapped, y) if np.isfinite(mapped).all() else None
        metrics |= zip(keys, (after, error, fit.converged), strict=True)
    return metrics


def _line(x: Vector, y: Vector) -> LogisticFit:
    """The least-squares line; a constant where the slope is undefined or beyond float64."""
    # Values of one scale, so that neither sums nor squares leave float64.
    x_scale, y_scale = (float(np.abs(side).max()) or 1.0 for side in (x, y))
    x0, y0 = np.mean(x / x_scale) * x_scale, np.mean(y / y_scale) * y_scale
    u, v = x - x0, y - y0
    x_scale, y_scale = (float(np.abs(side).max()) for side in (u, v))
    slope = 0.0
    if np.ptp(x) > 0 and np.ptp(y) > 0:
        u, v = u / x_scale, v / y_scale
        slope = float(u @ v / (u @ u) * (np.float64(y_scale) / x_scale))
    values = (slope, float(x0), float(y0)) if np.isfinite(slope) else (0.0, 0.0, float(y0))
    return LogisticFit("linear", values, converged=False)


def _squared_error(fit: LogisticFit, x: Vector, y: Vector) -> float:
    """Sum of squared errors in units of the labels' range; not finite where the map is not."""
    errors = (fit(x) - y) / np.ptp(y)
    return float(errors @ errors)


def _search(x: Vector, y: Vector, parameters: Literal[4, 5]) -> LogisticFit | None:
    """The best logistic function of the searches that converge, None if none does."""
    # In units of the ranges, so that tolerances and bounds mean the same for any scores.
    x_unit, y_unit = np.ptp(x), np.ptp(y)
    x_zero, y_zero = np.median(x), np.median(y)
    if not all(1 / _LARGEST < unit < _LARGEST for unit in (x_unit, y_unit)):
        return None
    u, v = (x - x_zero) / x_unit, (y - y_zero) / y_unit
    problem = _Projected(u, v, linear_term=parameters == 5)
    # The middle half, which outliers do not reach; or more, where ties leave it no width.
    bulk = next(
        b for b in (*np.subtract(*np.quantile(u, ((0.75, 0.95), (0.25, 0.05)))), 1.0) if b > 1e-9
    )
    bounds = (np.array([0, np.log(_NARROWEST * bulk)]), np.array([1, np.log(_WIDEST)]))
    found = [
        least_squares(
            problem.residuals,
            np.clip(start, *bounds),
            problem.jacobian,
            bounds,
            method="dogbox",  # unlike "trf" it does not creep along a bound
            x_scale=(bulk, 1.0),
            ftol=_TOLERANCE,
            xtol=_TOLERANCE,
            gtol=1e-12,
            max_nfev=_EVALUATIONS,
        )
        for start in problem.starts(bulk)
    ]
    # Status 0: it ran out of evaluations.
    converged = [result for result in found if result.status > 0]
    if not converged:
        return None
    point = min(converged, key=lambda result: result.cost).x
    # Back to the units of the scores.
    level, tilt, height = problem.coefficients(point) * y_unit
    centre, width = problem.centre_and_width(point)
    centre, width = centre * x_unit + x_zero, width * x_unit
    slope = tilt / x_unit
    level += y_zero - slope * x_zero
    if parameters == 4:
        values = np.array([level + height, level, centre, width])
        return LogisticFit("logistic4", tuple(values.tolist()), converged=True)
    values = np.array([height, 1 / width, centre, slope, level + height / 2])
    return LogisticFit("logistic5", tuple(values.tolist()), converged=True)


class _Projected:
    """v ≈ level + tilt·u + height·expit((u - centre) / width), with only centre and width free.

    The range of u is 1. A point, (2,), is the place of the centre and the log of the width; places
    from 0 to 1 run from 8 widths below the lowest u to 8 above the highest. The linear terms, of
    which the tilt is left out for the form of 4 parameters, are projected out of v and of the
    sigmoid; the height follows from what is left.
    """

    def __init__(self, u: Vector, v: Vector, *, linear_term: bool) -> None:
        self.u, self.v = u, v
        self.columns = np.stack([np.ones_like(u), u][: 1 + linear_term], axis=1)  # (n, 1 or 2)
        self.basis = np.linalg.qr(self.columns).Q
        self.target = self._beside_columns(v)
        self.low = float(u.min())

    def centre_and_width(self, point: Vector) -> tuple[float, float]:
        """The sigmoid's, in the units of u."""
        width = float(np.exp(point[1]))
        margin = _FURTHEST * width
        return self.low - margin + float(point[0]) * (1 + 2 * margin), width

    def residuals(self, point: Vector) -> Vector:
        """What the best linear part leaves of v, (n,)."""
        height, sigmoid, _ = self._height(point)
        return self.target - height * sigmoid

    def jacobian(self, point: Vector) -> Vector:
        """Derivatives of `residuals`, (n, 2), with those of the height."""
        height, sigmoid, square = self._height(point)
        if square == 0:
            return np.zeros((self.u.size, 2))
        centre, width = self.centre_and_width(point)
        z = (self.u - centre) / width
        bell = expit(z) * expit(-z)
        by_place = -bell / width * (1 + 2 * _FURTHEST * width)
        by_log_width = -bell * (z + _FURTHEST * (2 * point[0] - 1))  # the centre moves, too
        columns = []
        for change in map(self._beside_columns, (by_place, by_log_width)):
            height_change = (change @ self.target - 2 * height * (change @ sigmoid)) / square
            columns.append(-height * change - height_change * sigmoid)
        return np.stack(columns, axis=1)

    def starts(self, bulk: float) -> list[Vector]:
        """The most promising points of the grid, the best first."""
        centres = np.quantile(self.u, _QUANTILES)
        centres = np.array([self.low - bulk, *centres, self.low + 1 + bulk])

        def cost(point: Vector) -> float:
            return float(np.sum(self.residuals(point) ** 2))

        best = []
        for width in _WIDTHS * bulk:
            margin = _FURTHEST * width
            places = np.clip((centres - self.low + margin) / (1 + 2 * margin), 0, 1)
            best.append(min((np.array([place, np.log(width)]) for place in places), key=cost))
        return sorted(best, key=cost)[:_STARTS]

    def coefficients(self, point: Vector) -> Vector:
        """Level, tilt and height at a point, (3,)."""
        height, _, _ = self._height(point)
        centre, width = self.centre_and_width(point)
        rest = self.v - height * expit((self.u - centre) / width)
        level, *tilt = np.linalg.lstsq(self.columns, rest)[0]
        return np.array([level, *(tilt or [0.0]), height])

    def _height(self, point: Vector) -> tuple[float, Vector, float]:
        """The height, the sigmoid beside the linear terms, and its square; 0 where it is flat."""
        centre, width = self.centre_and_width(point)
        sigmoid = expit((self.u - centre) / width)
        beside = self._beside_columns(sigmoid)
        square = float(beside @ beside)
        # Flat: nothing but rounding is left of it.
        if square <= 1e-24 * float(sigmoid @ sigmoid):
            return 0.0, np.zeros_like(beside), 0.0
        return float(beside @ self.target) / square, beside, square

    def _beside_columns(self, vector: Vector) -> Vector:
        """The part of (n,) at right angles to the linear terms."""
        # Twice, for a sigmoid that is nearly linear.
        for _ in range(2):
            vector = vector - self.basis @ (self.basis.T @ vector)
        return vector
