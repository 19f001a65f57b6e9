"""The report: one file, complete, honest about what its numbers are, and safe for odd names."""

import base64
import copy
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from glpi_jax.errors import GlpiError
from glpi_jax.evaluation import plots
from glpi_jax.evaluation.metrics import metrics_by_group, quality_metrics
from glpi_jax.evaluation.report import results_markdown, write_report
from glpi_jax.training.metric_writer import MetricRow

METRICS_CSV = """step,epoch,name,value
5,0,train/loss,1.25
5,0,train/learning_rate,0.0001
10,1,train/loss,nan
10,1,validation/srocc,0.5
"""


def part(seed: int, references: list[str]) -> dict:
    rng = np.random.default_rng(seed)
    predictions = [
        {
            "image": f"images/{reference}_{distortion}_{level}.png",
            "reference": reference,
            "distortion": distortion,
            "level": level,
            "mos": 5.0 - 0.7 * level,
            "predicted": float(4.8 - 0.6 * level + rng.normal(0, 0.3)),
            "crop_std": 0.125,
        }
        for reference in references
        for distortion in ("gaussian_blur", "jpeg")
        for level in (1, 3, 5)
    ]
    predicted = [entry["predicted"] for entry in predictions]
    mos = [entry["mos"] for entry in predictions]
    return {
        "database": "demo",
        "images": len(predictions),
        "crops": 5,
        "metrics": quality_metrics(predicted, mos),
        "by_distortion": metrics_by_group(predicted, mos, [e["distortion"] for e in predictions]),
        "predictions": predictions,
    }


RESULTS = {
    "format": 1,
    "protocol": "strict",
    "seed": 3,
    "config": {"seed": 3, "optimizer": {"learning_rate": 1e-4}},
    "git_revision": "3f2b9c1",
    "versions": {"jax": "0.10.2"},
    "device": "cpu × 1",
    "model": {"name": "glpi_demo", "parameters": 1_834_561},
    "selection": {
        "step": 10,
        "epoch": 1,
        "criterion": "SROCC on the validation part",
        "value": 0.5,
    },
    "split": {
        "sha256": "ab" * 32,
        "references": {"train": ["chelsea"], "validation": ["coffee"], "test": ["rocket"]},
    },
    "label_note": "Labels are means by type & level, <not> opinions.",
    "score_name": "MOS",
    "higher_is_better": True,
    "parts": {"validation": part(1, ["coffee"]), "test": part(2, ["rocket", "hubble"])},
}


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, instead of their PNG files."""
    drawn = []

    def keep(figure):
        drawn.append(figure)
        return b""

    monkeypatch.setattr(plots, "_png", keep)
    return drawn


def render(workdir, results, metrics_csv=METRICS_CSV) -> str:
    (workdir / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if metrics_csv is not None:
        (workdir / "metrics.csv").write_text(metrics_csv)
    path = write_report(workdir)
    assert path == workdir / "report.html"
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks nesting and collects attributes and visible text."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def test_the_page_is_well_formed_and_needs_nothing_from_outside(tmp_path, results):
    html = render(tmp_path, results)
    page = Page(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    addresses = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "srcset", "href")
        if name in attributes
    ]
    assert len(addresses) == 10  # five plots, light and dark
    for address in addresses:
        kind, data = address.split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            image.load()
            assert min(image.size) >= 200
    assert not re.search(r"url\(|@import|https?://", html)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.usefixtures("figures")
def test_the_page_says_what_was_measured_on_what(tmp_path, results):
    text = Page(render(tmp_path, results)).text
    metrics = results["parts"]["test"]["metrics"]
    assert f"Test SROCC {metrics['srocc']:.4f}" in text
    for fact in [
        "glpi_demo on demo", "1.83 M parameters", "strict", "cpu × 1", "3f2b9c1",
        "The label is MOS (higher is better). Labels are means by type & level, <not> opinions.",
        "test held out; used once, after the selection demo 12 5",
        "validation not trained on; it selected the checkpoint demo 6 5",
        "step 10 (epoch 1), selected by SROCC on the validation part: 0.5000",
        "The parts share no reference.", "ab" * 32, "train: 1 reference chelsea",
        "doi:10.1145/3815779", "jax 0.10.2", '"learning_rate": 0.0001',
    ]:  # fmt: skip
        assert fact in text, fact


@pytest.mark.usefixtures("figures")
def test_the_largest_errors_of_the_test_part_come_first(tmp_path, results):
    predictions = results["parts"]["test"]["predictions"]
    predictions[7]["predicted"] = predictions[7]["mos"] - 4
    predictions[2]["predicted"] = predictions[2]["mos"] + 3
    text = Page(render(tmp_path, results)).text
    table = text[text.index("Largest errors, test part") :]
    shown = re.findall(r"images/\w+\.png", table)
    assert shown[:2] == [predictions[7]["image"], predictions[2]["image"]]
    assert "-4.00 0.12" in table
    assert "+3.00 0.12" in table


@pytest.mark.usefixtures("figures")
def test_the_official_protocol_does_not_pass_for_a_held_out_test(tmp_path, results):
    results["protocol"] = "official"
    del results["parts"]["validation"]
    text = Page(render(tmp_path, results)).text
    assert "it selected the checkpoint: optimistic" in text
    assert "held out" not in text


@pytest.mark.usefixtures("figures")
def test_training_images_are_never_called_test(tmp_path, results):
    results["parts"] = {"train": results["parts"]["validation"]}
    text = Page(render(tmp_path, results)).text
    assert "the model was trained on these images" in text
    assert "Train SROCC" in text
    assert "Test SROCC" not in text
    assert "held out" not in text


@pytest.mark.usefixtures("figures")
def test_a_reference_in_two_parts_is_told(tmp_path, results):
    results["split"]["references"]["test"].append("chelsea")
    text = Page(render(tmp_path, results)).text
    assert "Parts share references: train and test share 1." in text


@pytest.mark.usefixtures("figures")
def test_an_authentic_database_and_undefined_metrics(tmp_path, results):
    for content in results["parts"].values():
        content["by_distortion"] = {}
        content["metrics"]["srocc"] = None
        for entry in content["predictions"]:
            entry["distortion"] = entry["level"] = None
    results["git_revision"] = results["selection"] = None
    html = render(tmp_path, results)
    page = Page(html)
    assert sum(tag == "img" for tag, _ in page.tags) == 3  # no plots by distortion
    assert "Test SROCC – " in page.text
    assert "Revision not known" in page.text
    assert "The weights were given" in page.text
    assert "nan" not in page.text.lower()


@pytest.mark.usefixtures("figures")
def test_without_metrics_csv_there_are_no_curves_and_the_page_says_so(tmp_path, results):
    page = Page(render(tmp_path, results, metrics_csv=None))
    assert "There is no metrics.csv in this folder" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 4


@pytest.mark.usefixtures("figures")
def test_names_cannot_inject_markup(tmp_path, results):
    bad = '<script>alert("1")</script>'
    results["model"]["name"] = results["device"] = results["label_note"] = bad
    results["parts"]["test"]["database"] = bad
    results["parts"]["test"]["predictions"][0].update(image=bad, distortion=bad, predicted=99.0)
    results["split"]["references"]["train"] = [bad]
    results["config"]["note"] = bad
    html = render(tmp_path, results)
    assert "<script" not in html
    assert Page(html).text.count(bad) >= 6


@pytest.mark.usefixtures("figures")
def test_long_lists_of_references_are_cut(tmp_path, results):
    results["split"]["references"]["train"] = [f"photo{i}" for i in range(1000)]
    text = Page(render(tmp_path, results)).text
    assert "train: 1000 references" in text
    assert "and 700 more, in results.json" in text
    assert "photo299" in text
    assert "photo300" not in text


def test_the_same_results_give_the_same_bytes(tmp_path, results):
    assert render(tmp_path, results) == render(tmp_path, results)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"results\.json is missing: run 'glpi evaluate'"),
        ("{", r"results\.json cannot be read"),
        ("[]", r"results\.json has format None, not 1"),
        ('{"format": 2}', r"results\.json has format 2, not 1"),
        ('{"format": 1}', r"results\.json lacks the key 'parts'"),
        ('{"format": 1, "parts": 3}', r"results\.json lacks a value"),
    ],
)
def test_results_that_cannot_be_used_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(GlpiError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_table_for_the_terminal(results):
    results["parts"]["test"]["metrics"] = {
        "srocc": 0.87654, "plcc": None, "krcc": -0.5, "rmse": 12.0,
    }  # fmt: skip
    results["parts"]["validation"]["metrics"] = dict.fromkeys(("srocc", "plcc", "krcc", "rmse"))
    assert results_markdown(results) == (
        "glpi_demo on demo, protocol strict\n"
        "\n"
        "| part       | database | images | SROCC  | PLCC | KRCC    | RMSE    |\n"
        "| ---------- | -------- | ------ | ------ | ---- | ------- | ------- |\n"
        "| test       | demo     | 12     | 0.8765 | –    | -0.5000 | 12.0000 |\n"
        "| validation | demo     | 6      | –      | –    | –       | –       |\n"
    )


def test_scatter_has_every_image_in_the_colour_of_its_distortion(figures, results):
    predictions = results["parts"]["test"]["predictions"]
    plots.scatter(predictions, 0.98765, "test", "DMOS", plots.LIGHT)
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "Test: SROCC 0.9877, 12 images"
    assert axes.get_xlabel() == "DMOS"
    offsets = np.concatenate([points.get_offsets() for points in axes.collections])
    expected = [(entry["mos"], entry["predicted"]) for entry in predictions]
    np.testing.assert_array_equal(np.sort(offsets, axis=0), np.sort(expected, axis=0))
    assert [points.get_label() for points in axes.collections] == ["gaussian blur", "jpeg"]
    identity = axes.lines[0].get_xydata()
    np.testing.assert_array_equal(identity[:, 0], identity[:, 1])


def test_the_25_distortions_look_different(figures):
    predictions = [
        {"mos": float(i), "predicted": 1.0, "distortion": f"type_{i}"} for i in range(25)
    ]
    for theme in (plots.LIGHT, plots.DARK):
        plots.scatter(predictions, None, "test", "MOS", theme)
        (axes,) = figures.pop().axes
        looks = {
            (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
            for points in axes.collections
        }
        assert len(looks) == 25
        assert axes.get_title(loc="left") == "Test: SROCC undefined, 25 images"


def test_curves_mark_the_selected_step_and_tell_what_is_missing(figures):
    rows = [MetricRow(step, 0, "train/loss", 1 / step) for step in (1, 2, 4)]
    plots.training_curves(rows, 2, plots.LIGHT)
    loss, rate, srocc = figures[0].axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [(1, 1), (2, 0.5), (4, 0.25)])
    assert list(loss.lines[1].get_xdata()) == [2, 2]
    for axes in (rate, srocc):
        assert [text.get_text() for text in axes.texts] == ["not recorded"]


def test_bars_are_sorted_and_undefined_is_text(figures):
    table = {
        "jpeg": {"images": 5, "srocc": 0.25},
        "darken": {"images": 1, "srocc": None},
        "white_noise": {"images": 9, "srocc": -0.5},
        "jitter": {"images": 5, "srocc": 0.75},
    }
    plots.distortion_bars(table, plots.DARK)
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [-0.5, 0.25, 0.75]  # from the bottom
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "darken  (1)", "white noise  (9)", "jpeg  (5)", "jitter  (5)",
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["undefined", "-0.500", "0.250", "0.750"]


def test_level_panels_show_the_means(figures):
    predictions = [
        {"distortion": "jpeg", "level": 2, "mos": 4.0, "predicted": 3.0},
        {"distortion": "jpeg", "level": 1, "mos": 5.0, "predicted": 5.5},
        {"distortion": "jpeg", "level": 2, "mos": 2.0, "predicted": 2.0},
        {"distortion": None, "level": None, "mos": 0.0, "predicted": 0.0},
    ]
    plots.level_means(predictions, "MOS", plots.LIGHT)
    (axes,) = figures[0].axes
    labels, predicted = axes.lines
    np.testing.assert_array_equal(labels.get_xydata(), [(1, 5), (2, 3)])
    np.testing.assert_array_equal(predicted.get_xydata(), [(1, 5.5), (2, 2.5)])
