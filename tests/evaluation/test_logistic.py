"""Fits find known logistic functions, never lower PLCC, and fall back to the line openly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation import logistic
from glpi_jax.evaluation.logistic import LogisticFit, _Projected, fit_logistic, full_metrics
from glpi_jax.evaluation.metrics import plcc, quality_metrics, rmse

FORMS = (4, 5)


def logistic4(x, b1, b2, b3, b4):
    return (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4))) + b2


def logistic5(x, b1, b2, b3, b4, b5):
    return b1 * (1 / 2 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


FUNCTIONS = {4: logistic4, 5: logistic5}
# Rising and falling, on both scales that labels have.
TRUTHS = {
    4: [(80.0, 10.0, 0.5, 0.7), (1.2, 4.6, -0.4, 0.3)],
    5: [(60.0, 2.0, 0.3, 5.0, 45.0), (-2.5, 3.0, -0.2, 0.2, 3.0)],
}
KNOWN = [(form, truth) for form in FORMS for truth in TRUTHS[form]]


def noisy(form: int, truth: tuple[float, ...], noise: float, n: int = 1500):
    """Predictions from -2.5 to 2.5, and labels whose noise has this share of their range."""
    rng = np.random.default_rng(form)
    x = rng.uniform(-2.5, 2.5, n)
    y = FUNCTIONS[form](x, *truth)
    return x, y + noise * np.ptp(y) * rng.normal(size=n)


@pytest.mark.parametrize(("form", "values"), KNOWN)
def test_map_is_the_formula(form, values):
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    fit = LogisticFit(f"logistic{form}", values, converged=True)
    np.testing.assert_allclose(fit(x), FUNCTIONS[form](x, *values), rtol=1e-12)
    assert fit(x).dtype == np.float64


def test_map_takes_a_negative_width_huge_arguments_and_the_line():
    falling = LogisticFit("logistic4", (5.0, 1.0, 0.0, -2.0), converged=True)
    np.testing.assert_allclose(falling([-1e308, 0.0, 1e308]), [1.0, 3.0, 5.0])
    assert LogisticFit("linear", (2.0, 1.0, 10.0), converged=False)(4) == 16.0


@pytest.mark.parametrize(("form", "truth"), KNOWN)
def test_known_parameters_come_back(form, truth):
    exact = fit_logistic(*noisy(form, truth, 0.0), form)
    assert (exact.form, exact.converged) == (f"logistic{form}", True)
    np.testing.assert_allclose(exact.parameters, truth, rtol=1e-4)

    x, y = noisy(form, truth, 0.02)
    fit = fit_logistic(x, y, form)
    # The linear term and the sigmoid of the second form trade off, so its errors are wider.
    np.testing.assert_allclose(fit.parameters, truth, rtol=0.05 if form == 4 else 0.25)
    inner = np.linspace(-2.5, 2.5, 50)
    worst = np.abs(fit(inner) - FUNCTIONS[form](inner, *truth)).max()
    assert worst < 0.01 * np.ptp(y)


@pytest.mark.parametrize(("form", "truth"), KNOWN)
# In heavy noise the optimum may be a sigmoid beyond the limits of the search, hardly better.
@pytest.mark.parametrize(("noise", "tolerance"), [(0.05, 1e-6), (0.3, 1e-4)])
def test_fit_is_the_least_squares_optimum(form, truth, noise, tolerance):
    # An independent search of all parameters that starts at the truth.
    x, y = noisy(form, truth, noise, n=120)
    optimum, _ = curve_fit(FUNCTIONS[form], x, y, truth, maxfev=20000)
    fit = fit_logistic(x, y, form)
    assert fit.converged
    assert rmse(fit(x), y) <= rmse(FUNCTIONS[form](x, *optimum), y) * (1 + tolerance)


@pytest.mark.parametrize("linear_term", [False, True])
def test_derivatives_equal_differences(linear_term):
    u = np.random.default_rng(0).uniform(size=30)
    problem = _Projected(u, np.tanh(3 * u) + u**2, linear_term=linear_term)
    point = np.array([0.4, -1.2])
    differences = [
        (problem.residuals(point + step) - problem.residuals(point - step)) / 2e-6
        for step in 1e-6 * np.eye(2)
    ]
    np.testing.assert_allclose(problem.jacobian(point).T, differences, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_fit_follows_a_change_of_units(form):
    x, y = noisy(form, TRUTHS[form][0], 0.1, n=80)
    fit = fit_logistic(x, y, form)
    for x_unit, y_unit in [(1e-6, 1e6), (1e6, 1e-6), (1.0, -1.0)]:
        changed = fit_logistic(x_unit * x + 7 * x_unit, y_unit * y + 3 * y_unit, form)
        mapped = changed(x_unit * x + 7 * x_unit)
        np.testing.assert_allclose(mapped / y_unit - 3, fit(x), atol=1e-4 * np.ptp(y))


KINDS = (
    "monotone", "decreasing", "ties", "tiny", "outliers", "steps", "unrelated", "offset",
    "constant predictions", "constant labels",
)  # fmt: skip


def random_case(seed: int) -> tuple[str, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    n = int(rng.integers(2, 8)) if kind == "tiny" else int(rng.integers(10, 120))
    x = rng.normal(size=n)
    curve = (np.tanh, np.exp, np.cbrt, np.sinh)[seed // len(KINDS) % 4]
    y = curve(1.5 * x) + rng.choice([0.0, 0.1, 1.0]) * rng.normal(size=n)
    if kind == "decreasing":
        y = -y
    elif kind == "ties":
        x, y = x.round(), (y / 2).round()
    elif kind == "outliers":
        x[0], y[-1] = 1e3 * x[0], 50 * y[-1]
    elif kind == "steps":
        y = np.sign(x - 0.2) + (x > 1)
    elif kind == "unrelated":
        y = rng.normal(size=n)
    elif kind == "offset":
        x, y = x + 1e5, y - 1e5
    elif kind == "constant predictions":
        x = np.full(n, x[0])
    elif kind == "constant labels":
        y = np.full(n, y[0])
    return kind, x * 10.0 ** rng.integers(-6, 7), y * 10.0 ** rng.integers(-6, 7)


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_correlation_is_never_lower_after_the_fit(first):
    for seed in range(first, first + 20):
        kind, x, y = random_case(seed)
        metrics = full_metrics(x, y)
        for form in FORMS:
            fit = fit_logistic(x, y, form)
            assert np.isfinite(fit(x)).all(), (seed, kind)
            after = metrics[f"plcc_logistic{form}"]
            if metrics["plcc"] is None:
                assert kind.startswith("constant") or kind in ("ties", "tiny")
                assert after is None
                assert metrics[f"rmse_logistic{form}"] == pytest.approx(np.std(y))
                assert (fit.form, fit.converged) == ("linear", False)
            else:
                assert not kind.startswith("constant")
                raw = abs(metrics["plcc"])
                assert after >= raw - 1e-9, (seed, kind)
                assert plcc(fit(x), y) >= raw - 1e-9, (seed, kind)
                line = np.std(y) * math.sqrt(max(0.0, 1 - raw**2))  # its residuals
                bound = line + 1e-7 * np.std(y)
                assert metrics[f"rmse_logistic{form}"] <= bound, (seed, kind)


def test_correlation_is_higher_after_the_fit_of_a_curved_relation():
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, 200)
    metrics = full_metrics(x, 50 - 40 * np.tanh(2 * x))
    assert metrics["plcc"] > -0.95
    assert metrics["plcc_logistic4"] == pytest.approx(1)
    assert metrics["plcc_logistic5"] == pytest.approx(1)
    assert metrics["rmse_logistic4"] < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_search_that_does_not_converge_gives_the_line(form, monkeypatch):
    x, y = noisy(form, TRUTHS[form][0], 0.1, n=80)
    assert fit_logistic(x, y, form).form == f"logistic{form}"
    monkeypatch.setattr(logistic, "_EVALUATIONS", 1)
    fallback = fit_logistic(x, y, form)
    assert (fallback.form, fallback.converged) == ("linear", False)
    np.testing.assert_allclose(fallback(x), np.polyval(np.polyfit(x, y, 1), x))
    assert plcc(fallback(x), y) == pytest.approx(abs(plcc(x, y)), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_too_few_distinct_predictions_are_not_searched(form):
    x = np.repeat(np.arange(form), 3.0)
    y = np.random.default_rng(0).normal(size=x.size)
    fit = fit_logistic(x, y, form)
    assert (fit.form, fit.converged) == ("linear", False)
    assert full_metrics(x, y)[f"logistic{form}_converged"] is False


def test_line_may_be_better_than_any_sigmoid():
    # A search that converged, to a sigmoid so wide that it is nearly the line.
    x = np.linspace(0, 1, 30)
    fit = fit_logistic(x, 3 - 2 * x, 4)
    assert (fit.form, fit.converged) == ("linear", True)
    np.testing.assert_allclose(fit(x), 3 - 2 * x, atol=1e-12)
    assert plcc(fit(x), 3 - 2 * x) == pytest.approx(1, abs=1e-12)


def test_full_metrics_gathers_raw_and_mapped_criteria():
    x, y = noisy(4, TRUTHS[4][1], 0.1, n=60)
    expected = dict(quality_metrics(x, y))
    for form in FORMS:
        fit = fit_logistic(x, y, form)
        expected |= {
            f"plcc_logistic{form}": plcc(fit(x), y),
            f"rmse_logistic{form}": rmse(fit(x), y),
            f"logistic{form}_converged": True,
        }
    metrics = full_metrics(list(x), list(y))
    assert metrics == expected
    assert {type(value) for value in metrics.values()} == {float, bool}


@pytest.mark.parametrize("values", [[], [1.0]])
def test_full_metrics_of_less_than_two_images_is_undefined(values):
    assert len(full_metrics(values, values)) == 10
    assert set(full_metrics(values, values).values()) == {None}


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-10, 10),
    st.integers(-3, 3).map(float),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(numbers, numbers), min_size=6, max_size=14))
def test_no_finite_input_gives_nan_or_a_warning_or_a_lower_correlation(pairs):
    # Warnings are errors in this suite.
    metrics = full_metrics([x for x, _ in pairs], [y for _, y in pairs])
    for name, value in metrics.items():
        assert value is None or not math.isnan(value), name
    for form in FORMS:
        after = metrics[f"plcc_logistic{form}"]
        assert (after is None) == (metrics["plcc"] is None)
        assert after is None or after >= abs(metrics["plcc"]) - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_outliers_at_the_limit_of_float64_are_survived(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=20) * 10.0 ** rng.integers(-310, 308, 20)
    y = rng.normal(size=20)
    for form in FORMS:
        fit = fit_logistic(x, y, form)
        assert (fit.form, fit.converged) == ("linear", False)  # the range is beyond 1e100
        assert np.isfinite(fit(x)).all()


def test_bad_arguments_are_refused():
    x = np.arange(8.0)
    with pytest.raises(GlpiError, match="parameters is 3: the logistic forms have 4 or 5"):
        fit_logistic(x, x, 3)
    with pytest.raises(GlpiError, match=r"logistic fit to 1 image\(s\)"):
        fit_logistic([1.0], [1.0], 4)
    with pytest.raises(GlpiError, match="predicted has 8 values and mos has 7"):
        full_metrics(x, x[:7])
    with pytest.raises(GlpiError, match=r"mos holds 1 value\(s\)"):
        full_metrics(x, np.where(x == 2, np.nan, x))
