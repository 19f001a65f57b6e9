"""The criteria equal SciPy and their definitions; undefined cases are None without a warning."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation.metrics import (
    krcc,
    median_and_spread,
    metrics_by_group,
    oriented,
    plcc,
    quality_metrics,
    rmse,
    srocc,
)

CORRELATIONS = [
    (srocc, stats.spearmanr),
    (plcc, stats.pearsonr),
    (krcc, stats.kendalltau),
]
ALL = [srocc, plcc, krcc, rmse]


def sample(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mos = rng.uniform(1, 5, n).round(1)  # rounded, so that there are ties
    return mos + rng.normal(0, 0.8, n), mos


@pytest.mark.parametrize(("ours", "reference"), CORRELATIONS)
def test_correlations_equal_scipy(ours, reference):
    for seed in range(5):
        predicted, mos = sample(seed)
        assert ours(predicted, mos) == reference(predicted, mos).statistic


# Few different values, so that most lists have ties on both sides.
tied = st.integers(-2, 2).map(float)


@given(st.lists(st.tuples(tied, tied), min_size=2, max_size=15))
def test_ties_are_treated_as_scipy_and_the_definitions_have_it(pairs):
    predicted, mos = np.array(pairs).T
    defined = np.ptp(predicted) > 0 and np.ptp(mos) > 0
    for ours, reference in CORRELATIONS:
        value = ours(predicted, mos)
        assert value == (reference(predicted, mos).statistic if defined else None)
    if defined:
        signs_x, signs_y = (np.sign(side[:, None] - side) for side in (predicted, mos))
        tau_b = np.sum(signs_x * signs_y) / math.sqrt(np.sum(signs_x**2) * np.sum(signs_y**2))
        assert krcc(predicted, mos) == pytest.approx(tau_b, abs=1e-12)
        # The average rank of a value: how many are below it, and half of those equal to it.
        ranks = [signs.sum(axis=1) / 2 for signs in (signs_x, signs_y)]
        assert srocc(predicted, mos) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert rmse(predicted, mos) == pytest.approx(np.linalg.norm(predicted - mos) / len(mos) ** 0.5)


def test_hand_computed_values():
    predicted, mos = [1.0, 2.0, 3.0, 5.0], [1.0, 3.0, 2.0, 4.0]
    assert srocc(predicted, mos) == pytest.approx(0.8)  # 1 - 6·2/(4·15)
    assert krcc(predicted, mos) == pytest.approx(4 / 6)  # 5 concordant, 1 discordant of 6
    assert plcc(predicted, mos) == pytest.approx(5.5 / math.sqrt(8.75 * 5))
    assert rmse(predicted, mos) == pytest.approx(math.sqrt(3 / 4))


def test_quality_metrics_gathers_the_four():
    predicted, mos = sample(7)
    assert quality_metrics(predicted, mos) == {
        "srocc": srocc(predicted, mos),
        "plcc": plcc(predicted, mos),
        "krcc": krcc(predicted, mos),
        "rmse": rmse(predicted, mos),
    }
    assert all(type(value) is float for value in quality_metrics(predicted, mos).values())


@pytest.mark.parametrize("metric", [srocc, plcc, krcc])
@pytest.mark.parametrize(
    ("predicted", "mos"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [3.0, 3.0, 3.0]),
    ],
)
def test_undefined_is_none(metric, predicted, mos):
    assert metric(predicted, mos) is None


def test_rmse_is_defined_for_constant_input_but_not_for_one_image():
    assert rmse([3.0, 3.0], [3.0, 3.0]) == 0.0
    assert rmse([3.0, 3.0], [1.0, 5.0]) == 2.0
    assert rmse([1.0], [2.0]) is None
    assert rmse([], []) is None
    assert rmse([1.7e308, 0.0], [-1.7e308, 0.0]) is None  # beyond float64


@pytest.mark.parametrize("metric", ALL)
def test_two_images_are_enough(metric):
    assert metric([1.0, 2.0], [1.0, 2.0]) == pytest.approx(0.0 if metric is rmse else 1.0)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(metric, bad):
    with pytest.raises(GlpiError, match=r"predicted holds 1 value\(s\).*index 1"):
        metric([1.0, bad, 3.0], [1.0, 2.0, 3.0])
    with pytest.raises(GlpiError, match=r"mos holds 1 value\(s\).*index 2"):
        metric([1.0, 2.0, 3.0], [1.0, 2.0, bad])


@pytest.mark.parametrize("metric", ALL)
def test_shapes_are_checked(metric):
    with pytest.raises(GlpiError, match="predicted has 3 values and mos has 2"):
        metric([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(GlpiError, match=r"predicted has shape \(2, 1\)"):
        metric([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(GlpiError, match="mos is not a vector of numbers"):
        metric([1.0, 2.0], ["good", "bad"])


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite), max_size=12))
def test_no_finite_input_gives_nan_or_a_warning(pairs):
    # Warnings are errors in this suite.
    predicted, mos = [x for x, _ in pairs], [y for _, y in pairs]
    for name, value in quality_metrics(predicted, mos).items():
        assert value is None or (not math.isnan(value)), name


def test_metrics_by_group_keeps_order_and_counts():
    predicted, mos = sample(3, 9)
    groups = ["noise", "blur", "noise", "jpeg", "blur", "noise", "noise", "blur", "noise"]
    table = metrics_by_group(predicted, mos, groups)
    assert list(table) == ["noise", "blur", "jpeg"]
    rows = [i for i, group in enumerate(groups) if group == "blur"]
    assert table["blur"] == {"images": 3, **quality_metrics(predicted[rows], mos[rows])}
    assert table["jpeg"] == {
        "images": 1, "srocc": None, "plcc": None, "krcc": None, "rmse": None,
    }  # fmt: skip


def test_metrics_by_group_checks_the_groups():
    with pytest.raises(GlpiError, match="groups has 2 entries for 3 images"):
        metrics_by_group([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], ["a", "b"])


def test_oriented_turns_dmos_only():
    scores = np.array([3.0, 0.0, -1.5])
    kept, turned = oriented(scores, True), oriented(scores, False)
    assert kept.tolist() == [3.0, 0.0, -1.5]
    assert turned.tolist() == [-3.0, 0.0, 1.5]
    assert not np.signbit(turned[1])
    assert oriented(turned, False).tolist() == scores.tolist()
    kept[0] = 9.0
    assert scores[0] == 3.0  # a new vector
    predicted, mos = sample(1)
    assert srocc(predicted, oriented(mos, False)) == pytest.approx(-srocc(predicted, mos))


def test_oriented_checks_the_labels():
    with pytest.raises(GlpiError, match=r"scores holds 1 value\(s\).*index 1"):
        oriented([1.0, math.nan], True)


def test_median_and_spread_by_hand():
    values = [0.9, 0.5, 0.8, 0.6]
    assert median_and_spread(values) == {
        "rounds": 4,
        "undefined": 0,
        "median": pytest.approx(0.7),
        "mean": pytest.approx(0.7),
        "std": pytest.approx(math.sqrt(0.1 / 3)),
        "q1": pytest.approx(0.575),
        "q3": pytest.approx(0.825),
        "min": 0.5,
        "max": 0.9,
    }


def test_one_round_has_no_deviation():
    summary = median_and_spread([0.25])
    assert summary.pop("std") is None
    assert (summary.pop("rounds"), summary.pop("undefined")) == (1, 0)
    assert set(summary.values()) == {0.25}


def test_a_round_that_is_undefined_is_not_left_out():
    for values in ([0.9, None, 0.8, None], [None, None]):
        summary = median_and_spread(values)
        assert (summary.pop("rounds"), summary.pop("undefined")) == (len(values), 2)
        assert len(summary) == 7
        assert set(summary.values()) == {None}


def test_median_and_spread_beyond_float64_is_undefined():
    # Warnings are errors in this suite.
    summary = median_and_spread([1.7e308, 1.7e308, -1.7e308])
    assert summary["std"] is None
    assert (summary["median"], summary["min"]) == (1.7e308, -1.7e308)


def test_median_and_spread_checks_the_values():
    with pytest.raises(GlpiError, match="values is empty"):
        median_and_spread([])
    with pytest.raises(GlpiError, match=r"values holds 1 value\(s\)"):
        median_and_spread([0.5, math.nan])
