"""Intervals equal those of explicit resampling, cover the truth, and widen with clusters."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation import bootstrap
from glpi_jax.evaluation.bootstrap import Resampling, bootstrap_intervals
from glpi_jax.evaluation.metrics import quality_metrics

NAMES = ("srocc", "plcc", "krcc", "rmse")


def sample(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mos = rng.uniform(1, 5, n).round(1)  # rounded, so that there are ties
    return (mos + rng.normal(0, 0.8, n)).round(1), mos


def assert_equal_to_repeated_images(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> None:
    resampled = Resampling(x, y)(counts)
    assert tuple(resampled) == NAMES
    for row, drawn in enumerate(counts):
        for name, value in quality_metrics(np.repeat(x, drawn), np.repeat(y, drawn)).items():
            expected = math.nan if value is None else value
            assert resampled[name][row] == pytest.approx(
                expected, rel=1e-10, abs=1e-10, nan_ok=True
            ), name


score = st.one_of(st.integers(-2, 2).map(float), st.floats(-100, 100).map(lambda x: round(x, 3)))


@given(
    st.lists(st.tuples(score, score, st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=20)
)
def test_resampled_metrics_equal_those_of_repeated_images(rows):
    x, y, *counts = (np.array(column) for column in zip(*rows, strict=True))
    assert_equal_to_repeated_images(x, y, np.array(counts))


@pytest.mark.parametrize("n", [31, 32, 33, 200])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1.0, 1e6), (1e200, 0.0)])
def test_resampled_metrics_of_many_images(n, scale, offset):
    x, y = sample(n, n)
    counts = np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), size=4)
    assert_equal_to_repeated_images(scale * x + offset, y, counts)


def test_correlations_stay_within_one():
    x, _ = sample(0, 40)
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=200)
    for sign in (1, -1):
        resampled = Resampling(x, sign * x / 3)(counts)
        for name in ("srocc", "plcc", "krcc"):
            assert resampled[name] == pytest.approx(sign)
            assert np.abs(resampled[name]).max() <= 1


def test_values_drawn_alike_are_constant_whatever_rounding_does_to_their_mean():
    y = np.arange(30.0)
    x = np.append(np.full(29, 0.1), 5.0)
    counts = np.tril(np.ones((29, 30), np.int64))  # the first image, the first two, …
    for name in ("srocc", "plcc", "krcc"):
        assert np.isnan(Resampling(x, y)(counts)[name]).all()


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_equal_explicit_resampling(clustered):
    x, y = sample(0, 36)
    groups = [f"scene{7 * i % 9}" for i in range(36)] if clustered else None
    units = groups or range(36)
    members = [np.flatnonzero([u == unit for u in units]) for unit in dict.fromkeys(units)]
    draws = np.random.default_rng(5).integers(len(members), size=(80, len(members)))
    rows = [np.concatenate([members[unit] for unit in draw]) for draw in draws]
    values = [quality_metrics(x[row], y[row]) for row in rows]

    intervals = bootstrap_intervals(x, y, seed=5, resamples=80, confidence=0.9, groups=groups)
    assert tuple(intervals) == NAMES
    for name, estimate in quality_metrics(x, y).items():
        low, high = np.quantile([value[name] for value in values], [0.05, 0.95])
        assert intervals[name] == {
            "estimate": estimate,
            "low": pytest.approx(low, abs=1e-10),
            "high": pytest.approx(high, abs=1e-10),
            "undefined": 0,
        }


def test_seed_fixes_the_intervals_however_the_work_is_cut(monkeypatch):
    x, y = sample(1, 50)
    arguments = {"resamples": 60, "confidence": 0.95}
    intervals = bootstrap_intervals(x, y, seed=3, **arguments)
    assert bootstrap_intervals(x, y, seed=3, **arguments) == intervals
    assert bootstrap_intervals(x, y, seed=4, **arguments) != intervals
    # Images that stand alone are references of their own.
    assert bootstrap_intervals(x, y, seed=3, groups=range(50), **arguments) == intervals
    monkeypatch.setattr(bootstrap, "_CHUNK", 350)  # 7 resamples at a time
    for name, interval in bootstrap_intervals(x, y, seed=3, **arguments).items():
        assert interval == pytest.approx(intervals[name], abs=1e-12)


def test_coverage_is_near_nominal_on_a_bivariate_normal():
    rho, n, experiments = 0.7, 80, 250
    truth = {
        "srocc": 6 / math.pi * math.asin(rho / 2),
        "plcc": rho,
        "krcc": 2 / math.pi * math.asin(rho),
        "rmse": math.sqrt(2 - 2 * rho),
    }
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(NAMES, 0)
    for seed in range(experiments):
        x, noise = rng.normal(size=(2, n))
        y = rho * x + math.sqrt(1 - rho**2) * noise
        intervals = bootstrap_intervals(x, y, seed=seed, resamples=200, confidence=0.9)
        for name in NAMES:
            covered[name] += intervals[name]["low"] <= truth[name] <= intervals[name]["high"]
    for name in NAMES:
        # Three standard errors of 250 experiments are 0.06.
        assert covered[name] / experiments == pytest.approx(0.9, abs=0.06), name


def test_cluster_bootstrap_is_wider_on_clustered_data():
    rng = np.random.default_rng(0)
    scenes = np.repeat(np.arange(20), 15)
    mos = rng.uniform(1, 5, scenes.size)
    # The model is wrong by scene, so that its images are far fewer observations than they seem.
    predicted = mos + rng.normal(0, 1.5, 20)[scenes] + rng.normal(0, 0.1, scenes.size)
    arguments = {"seed": 0, "resamples": 400, "confidence": 0.95}
    plain = bootstrap_intervals(predicted, mos, **arguments)
    clustered = bootstrap_intervals(predicted, mos, groups=scenes, **arguments)
    for name in NAMES:
        widths = [table[name]["high"] - table[name]["low"] for table in (plain, clustered)]
        assert widths[1] > 1.3 * widths[0], name
        assert clustered[name]["low"] < clustered[name]["estimate"] < clustered[name]["high"]


def test_higher_confidence_is_wider():
    x, y = sample(2, 100)
    ends = [
        bootstrap_intervals(x, y, seed=0, resamples=300, confidence=confidence)["plcc"]
        for confidence in (0.5, 0.95)
    ]
    assert ends[1]["low"] < ends[0]["low"] < ends[0]["high"] < ends[1]["high"]


def test_memory_does_not_grow_with_pairs_or_resamples():
    x, y = sample(3, 20_000)
    tracemalloc.start()
    try:
        bootstrap_intervals(x, y, seed=0, resamples=60, confidence=0.95)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20  # all counts at once are 9 MiB, in each of several arrays


def test_constant_predictions_have_no_correlation_but_an_error():
    mos = np.arange(10.0)
    intervals = bootstrap_intervals(np.ones(10), mos, seed=0, resamples=50, confidence=0.9)
    undefined = {"estimate": None, "low": None, "high": None, "undefined": 50}
    assert [intervals[name] for name in ("srocc", "plcc", "krcc")] == [undefined] * 3
    assert intervals["rmse"]["undefined"] == 0
    assert intervals["rmse"]["low"] < intervals["rmse"]["estimate"] < intervals["rmse"]["high"]


def test_undefined_resamples_are_left_out_and_counted():
    # A resample of two images has both, and a correlation, or one of them twice.
    draws = np.random.default_rng(0).integers(2, size=(100, 2))
    alike = int(np.sum(draws[:, 0] == draws[:, 1]))
    assert 0 < alike < 100
    intervals = bootstrap_intervals([1, 2], [2, 1], seed=0, resamples=100, confidence=0.9)
    for name in ("srocc", "plcc", "krcc"):
        values = {"estimate": -1, "low": -1, "high": -1, "undefined": alike}
        assert intervals[name] == pytest.approx(values)
    assert intervals["rmse"] == {"estimate": 1, "low": 1, "high": 1, "undefined": 0}


@pytest.mark.parametrize(("n", "groups"), [(0, None), (1, None), (3, ["a", "a", "a"])])
def test_nothing_to_draw_from_gives_no_ends(n, groups):
    x = np.arange(float(n))
    intervals = bootstrap_intervals(x, x, seed=0, resamples=20, confidence=0.9, groups=groups)
    for name, estimate in quality_metrics(x, x).items():
        expected = {"estimate": estimate, "low": None, "high": None, "undefined": 20}
        assert intervals[name] == expected


def test_errors_beyond_float64_are_undefined():
    # Warnings are errors in this suite.
    x = [1.7e308, 0.0, 1.0, 2.0]
    intervals = bootstrap_intervals(x, np.negative(x), seed=0, resamples=40, confidence=0.9)
    assert intervals["rmse"] == {"estimate": None, "low": None, "high": None, "undefined": 40}
    assert intervals["srocc"]["low"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1: give 0 or more"),
        ({"resamples": 0}, "resamples is 0: give at least 1"),
        ({"confidence": 0.0}, "confidence is 0.0: give a number between 0 and 1"),
        ({"confidence": 95}, "confidence is 95: give a number between 0 and 1"),
        ({"groups": ["a"]}, "groups has 1 entries for 4 images"),
        ({"mos": [1.0, 2.0]}, "predicted has 4 values and mos has 2"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    scores = [1.0, 2.0, 3.0, 4.0]
    arguments = {
        "predicted": scores, "mos": scores, "seed": 0, "resamples": 10, "confidence": 0.9,
    }  # fmt: skip
    with pytest.raises(GlpiError, match=message):
        bootstrap_intervals(**{**arguments, **change})
