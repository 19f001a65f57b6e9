"""What the plots show: every image, the fitted curve, all rounds; and what is missing, in words."""

import numpy as np
import pytest

from glpi_jax.evaluation.logistic import fit_logistic
from glpi_jax.report import curve_plots, plots
from glpi_jax.report.plot_style import DARK, LIGHT
from glpi_jax.report.plots import ScatterPanel
from glpi_jax.results.metrics_file import MetricRow


def panel_of(predictions, fit=None, score_name="MOS"):
    return ScatterPanel("Test", "SROCC 0.9", predictions, fit, score_name)


def labels_of(artists):
    return [artist.get_text() for artist in artists]


def curved(count=40):
    """Predictions that rise with labels along an S."""
    mos = np.linspace(1, 5, count)
    noise = np.random.default_rng(0).normal(0, 0.02, count)
    predicted = 3 + np.arctanh((mos - 3) / 2.2) + noise
    return [
        {"mos": float(y), "predicted": float(x), "distortion": None}
        for x, y in zip(predicted, mos, strict=True)
    ]


def fit_to(predictions):
    return fit_logistic([e["predicted"] for e in predictions], [e["mos"] for e in predictions], 4)


def test_scatter_has_every_image_in_the_colour_of_its_distortion(figures, results):
    predictions = results["parts"]["test"]["predictions"]
    plots.scatter(panel_of(predictions, score_name="DMOS"), LIGHT)
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "Test: SROCC 0.9"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "DMOS")
    offsets = np.concatenate([points.get_offsets() for points in axes.collections])
    expected = [(entry["predicted"], entry["mos"]) for entry in predictions]
    np.testing.assert_array_equal(np.sort(offsets, axis=0), np.sort(expected, axis=0))
    assert [points.get_label() for points in axes.collections] == ["gaussian blur", "jpeg"]
    identity = axes.lines[0].get_xydata()
    np.testing.assert_array_equal(identity[:, 0], identity[:, 1])
    assert axes.lines[0].get_label() == "predicted = DMOS"


@pytest.mark.parametrize("draw", ["one", "panels"])
def test_the_fitted_curve_runs_through_the_points(figures, draw):
    predictions = curved()
    fit = fit_to(predictions)
    assert fit.form == "logistic4"
    panel = panel_of(predictions, fit)
    if draw == "one":
        plots.scatter(panel, LIGHT)
    else:
        plots.scatter_panels([panel], LIGHT)
    axes = figures[0].axes[0]
    (curve,) = [line for line in axes.lines if line.get_label() == "fitted logistic function"]
    x, y = curve.get_xydata().T
    np.testing.assert_allclose(y, fit(x))
    low, high = axes.get_xlim()
    assert (x[0], x[-1]) == (low, high)
    predicted = [entry["predicted"] for entry in predictions]
    assert low < min(predicted) < max(predicted) < high


def test_a_line_in_the_curves_place_is_called_one(figures):
    few = curved(3)
    plots.scatter(panel_of(few, fit_to(few)), DARK)
    assert "fitted line, as no logistic function fits" in [
        line.get_label() for line in figures[0].axes[0].lines
    ]


def test_scores_on_another_scale_have_no_line_of_equality(figures):
    predictions = [{"mos": 50.0 + i, "predicted": 0.1 * i, "distortion": "jpeg"} for i in range(10)]
    plots.scatter(panel_of(predictions), LIGHT)
    assert len(figures[0].axes[0].lines) == 0


def test_panels_of_several_runs(figures):
    predictions = curved(10)
    panels = [
        ScatterPanel(f"run {i}", "facts", predictions[: 4 + i], None, "MOS") for i in range(4)
    ]
    plots.scatter_panels(panels, LIGHT)
    shown = [axes for axes in figures[0].axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [f"run {i}\nfacts" for i in range(4)]
    assert [len(axes.collections[0].get_offsets()) for axes in shown] == [4, 5, 6, 7]
    (legend,) = figures[0].legends
    assert labels_of(legend.get_texts()) == ["predicted = MOS"]  # once


def test_a_title_that_is_too_wide_for_a_panel_keeps_its_end(figures):
    title = "/home/somebody/experiments/2026/koniq10k/round_01"
    plots.scatter_panels([ScatterPanel(title, "facts", curved(3), None, "MOS")], LIGHT)
    assert figures[0].axes[0].get_title(loc="left") == f"…{title[-37:]}\nfacts"


def test_the_25_distortions_look_different(figures):
    predictions = [
        {"mos": float(i), "predicted": 1.0, "distortion": f"type_{i}"} for i in range(25)
    ]
    for theme in (LIGHT, DARK):
        plots.scatter(panel_of(predictions), theme)
        (axes,) = figures.pop().axes
        looks = {
            (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
            for points in axes.collections
        }
        assert len(looks) == 25


def rows_of(name, values):
    return [MetricRow(step, 0, name, value) for step, value in values.items()]


def test_curves_mark_the_selected_step_and_tell_what_is_missing(figures):
    rows = rows_of("train/loss", {1: 1.0, 2: 0.5, 4: 0.25})
    curve_plots.training_curves(rows, 2, LIGHT)
    loss, rate, srocc = figures[0].axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [(1, 1), (2, 0.5), (4, 0.25)])
    assert list(loss.lines[1].get_xdata()) == [2, 2]
    for axes in (rate, srocc):
        assert labels_of(axes.texts) == ["not recorded"]


def test_curves_of_every_selection_part(figures):
    rows = rows_of("test live/srocc", {5: 0.1, 10: 0.2}) + rows_of("test csiq/srocc", {10: -0.3})
    rows += rows_of("test csiq/plcc", {10: 0.9})
    curve_plots.training_curves(rows, None, LIGHT)
    axes = figures[0].axes[2]
    assert axes.get_title(loc="left") == "SROCC of the selection parts"
    live, csiq = axes.lines
    np.testing.assert_array_equal(live.get_xydata(), [(5, 0.1), (10, 0.2)])
    np.testing.assert_array_equal(csiq.get_xydata(), [(10, -0.3)])
    assert labels_of(axes.get_legend().get_texts()) == ["test live", "test csiq"]
    assert live.get_color() != csiq.get_color()

    curve_plots.training_curves(rows_of("validation/srocc", {1: 0.5}), None, LIGHT)
    assert figures[1].axes[2].get_title(loc="left") == "validation SROCC"


def test_compared_curves_have_a_line_for_every_round(figures):
    first = rows_of("train/loss", {1: 2.0}) + rows_of("validation/srocc", {1: 0.5, 2: 0.75})
    crossed = rows_of("test live/srocc", {5: 0.25, 10: 0.5}) + rows_of("test csiq/srocc", {10: 1.0})
    curve_plots.compared_curves({"many": [first, first], "one": [crossed]}, LIGHT)
    loss, srocc = figures[0].axes
    assert [len(line.get_xdata()) for line in loss.lines] == [1, 1, 0]
    # Of several parts the mean, at the steps that all of them have.
    np.testing.assert_array_equal(srocc.lines[2].get_xydata(), [(10, 0.75)])
    colors = [line.get_color() for line in srocc.lines]
    assert colors[0] == colors[1] != colors[2]
    assert labels_of(figures[0].legends[0].get_texts()) == ["many", "one"]


def test_compared_curves_that_nobody_recorded(figures):
    curve_plots.compared_curves({"a": [[]], "b": [[]]}, DARK)
    assert [labels_of(axes.texts) for axes in figures[0].axes] == [["not recorded"]] * 2


def test_bars_are_sorted_and_undefined_is_text(figures):
    run = {"jpeg": 0.25, "darken": None, "white_noise": -0.5, "jitter": 0.75}
    images = {"jpeg": 5, "darken": 1, "white_noise": 9, "jitter": 5}
    plots.distortion_bars({"run": run}, images, DARK)
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [-0.5, 0.25, 0.75]  # from the bottom
    assert labels_of(axes.get_yticklabels()) == [
        "darken  (1)", "white noise  (9)", "jpeg  (5)", "jitter  (5)",
    ]  # fmt: skip
    assert labels_of(axes.texts) == ["undefined", "-0.500", "0.250", "0.750"]
    assert figures[0].legends == []


def test_bars_of_several_runs_stand_side_by_side(figures):
    runs = {"a": {"jpeg": 0.5, "jitter": 1.0}, "b": {"jpeg": 0.25}, "c": {"jpeg": None}}
    plots.distortion_bars(runs, {"jpeg": 5, "jitter": 5}, LIGHT)
    (axes,) = figures[0].axes
    bars = {bar.get_width(): bar for bar in axes.patches}
    assert sorted(bars) == [0.25, 0.5, 1.0]
    # From the top in the order given, none over another.
    gap = bars[0.5].get_y() - bars[0.25].get_y()
    assert gap == pytest.approx(bars[0.5].get_height())
    assert bars[0.5].get_facecolor() == bars[1.0].get_facecolor() != bars[0.25].get_facecolor()
    assert labels_of(figures[0].legends[0].get_texts()) == ["a", "b", "c"]


def test_more_runs_than_colours_look_different(figures):
    runs = {f"run {i}": {"jpeg": 0.5} for i in range(20)}
    plots.distortion_bars(runs, {"jpeg": 5}, LIGHT)
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in figures[0].axes[0].patches}
    assert len(looks) == 20


def test_names_that_mean_something_to_matplotlib():
    """Drawn, not only laid out: "$…$" would be a formula, and not every letter is in the font."""
    names = ["_run", r"$\frac$", "a_b^c", "日本", "\udcff"]
    predictions = [
        {"mos": float(i), "predicted": 1.0 * i, "distortion": n} for i, n in enumerate(names)
    ]
    plots.scatter(panel_of(predictions), LIGHT)
    plots.scatter_panels([ScatterPanel(n, n, predictions, None, n) for n in names], LIGHT)
    plots.distortion_bars(
        {n: dict.fromkeys(names, 0.5) for n in names}, dict.fromkeys(names, 1), LIGHT
    )
    curve_plots.compared_curves({n: [rows_of("train/loss", {1: 1.0})] for n in names}, LIGHT)


def test_legends_have_names_that_begin_with_an_underscore(figures):
    plots.distortion_bars({"_a": {"x": 1.0}, "b": {"x": 1.0}}, {"x": 1}, LIGHT)
    curve_plots.compared_curves({"_a": [[]], "b": [[]]}, LIGHT)
    for figure in figures:
        assert labels_of(figure.legends[0].get_texts()) == [" _a", "b"]


def test_level_panels_show_the_means(figures):
    predictions = [
        {"distortion": "jpeg", "level": 2, "mos": 4.0, "predicted": 3.0},
        {"distortion": "jpeg", "level": 1, "mos": 5.0, "predicted": 5.5},
        {"distortion": "jpeg", "level": 2, "mos": 2.0, "predicted": 2.0},
        {"distortion": None, "level": None, "mos": 0.0, "predicted": 0.0},
    ]
    plots.level_means(predictions, "MOS", LIGHT)
    (axes,) = figures[0].axes
    labels, predicted = axes.lines
    np.testing.assert_array_equal(labels.get_xydata(), [(1, 5), (2, 3)])
    np.testing.assert_array_equal(predicted.get_xydata(), [(1, 5.5), (2, 2.5)])
