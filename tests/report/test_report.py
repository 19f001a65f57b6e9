"""The page about a run: one file, complete, honest about its numbers, and safe for odd names."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.evaluation.logistic import fit_logistic
from glpi_jax.evaluation.protocols import LAST_EPOCH
from glpi_jax.report import results_markdown, write_report


@pytest.fixture
def render(tmp_path, write_run):
    """Write a run and its report; returns the HTML."""

    def write(results, **options):
        path = write_report(write_run(tmp_path, results, **options))
        assert path == tmp_path / "report.html"
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture
def text_of(render, parse_page, figures):
    """The visible text of a report without its plots."""
    return lambda results, **options: parse_page(render(results, **options)).text


def test_the_page_is_well_formed_and_needs_nothing_from_outside(
    tmp_path, results, render, parse_page
):
    html = render(results)
    page = parse_page(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    addresses = page.addresses()
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


def test_the_page_says_what_was_measured_on_what(results, text_of):
    text = text_of(results)
    metrics = results["parts"]["test"]["metrics"]
    assert f"Test SROCC {metrics['srocc']:.4f}" in text
    for fact in [
        "glpi_demo on demo", "1.83 M parameters", "strict", "cpu × 1", "3f2b9c1",
        "The label is MOS (higher is better). Labels are means by type & level, <not> opinions.",
        "test held out; used once, after the selection demo 12 5",
        "validation not trained on; it selected the checkpoint demo 6 5",
        "step 10 (epoch 1), selected by SROCC on the validation part; its SROCC was 0.5000",
        "The parts share no reference.", "ab" * 32, "train: 1 reference chelsea",
        "doi:10.1145/3815779", "jax 0.10.2", '"seed": 3',
    ]:  # fmt: skip
        assert fact in text, fact


def test_a_validation_part_that_selected_nothing_is_not_said_to_have(results, text_of):
    results["selection"]["criterion"] = LAST_EPOCH
    text = text_of(results)
    assert "validation not trained on demo 6 5" in text
    assert "selected by its place, the last epoch of the run" in text


def test_raw_metrics_have_intervals_and_fitted_ones_follow(results, text_of):
    part = results["parts"]["test"]
    # Four columns of values, each with its interval.
    cells = " ".join(
        f"{part['metrics'][name]:.4f} {interval['low']:.4f} … {interval['high']:.4f}"
        for name, interval in part["intervals"].items()
    )
    text = text_of(results)
    assert f"demo 12 5 {cells}" in text
    assert "its 90 % interval from a bootstrap over the references" in text
    # One reference gives no interval: the validation part's are left out, and that is said.
    assert "is undefined, and left out, with fewer than two" in text
    fitted = [
        part["metrics"][f"{name}_logistic{parameters}"]
        for parameters in (4, 5)
        for name in ("plcc", "rmse")
    ]
    assert f"RMSE test {' '.join(f'{value:.4f}' for value in fitted)}" in text
    assert "least-squares line" not in text


def test_without_intervals_the_page_says_so(results, text_of):
    for part in results["parts"].values():
        part["intervals"] = {}
    text = text_of(results)
    assert "Confidence intervals were not computed." in text
    assert " … " not in text


def test_a_fit_that_is_a_line_is_marked(results, text_of):
    metrics = results["parts"]["test"]["metrics"]
    metrics["logistic5_converged"] = False
    text = text_of(results)
    assert f"{metrics['rmse_logistic4']:.4f} {metrics['plcc_logistic5']:.4f}*" in text
    assert "Where a star is, no logistic function fits" in text


def shown_images(text):
    table = text[text.index("Largest errors, test part") :]
    return re.findall(r"images/\w+\.png", table)


def test_the_largest_errors_of_the_test_part_come_first(results, text_of):
    predictions = results["parts"]["test"]["predictions"]
    predictions[7]["predicted"] = predictions[7]["mos"] - 4
    predictions[2]["predicted"] = predictions[2]["mos"] + 3
    x, y = ([entry[side] for entry in predictions] for side in ("predicted", "mos"))
    fitted = fit_logistic(x, y, 4)(x)
    errors = fitted - np.array(y)
    order = np.argsort(-abs(errors))
    text = text_of(results)
    assert shown_images(text) == [predictions[index]["image"] for index in order]
    first = predictions[order[0]]
    assert (
        f"MOS {first['mos']:.2f} predicted {first['predicted']:.2f} ± 0.12"
        f" fitted {fitted[order[0]]:.2f} error {errors[order[0]]:+.2f}"
        f" {first['distortion'].replace('_', ' ')}, level {first['level']} {first['image']}"
    ) in text


def test_errors_are_those_after_the_fit(results, text_of):
    """Predictions on another scale, falling where the labels rise, are not wrong for that."""
    predictions = results["parts"]["test"]["predictions"]
    for index, entry in enumerate(predictions):
        entry["predicted"] = 500.0 - 100 * entry["mos"] + index
    predictions[4]["predicted"] += 150
    assert shown_images(text_of(results))[0] == predictions[4]["image"]


@pytest.mark.usefixtures("figures")
def test_thumbnails_are_small_and_missing_images_are_named(tmp_path, results, render, parse_page):
    folder = tmp_path / "database/images"
    folder.mkdir(parents=True)
    results["config"]["data"]["root"] = str(folder.parent)
    names = [entry["image"] for entry in results["parts"]["test"]["predictions"]]
    for name in names[:3]:
        pixels = np.random.default_rng(0).integers(0, 256, (450, 600, 3), np.uint8)
        Image.fromarray(pixels).save(folder.parent / name)
    (folder.parent / names[3]).write_bytes(b"no image")
    page = parse_page(render(results))
    thumbnails = {
        attributes["alt"]: attributes["src"]
        for tag, attributes in page.tags
        if tag == "img" and attributes["src"].startswith("data:image/jpeg")
    }
    assert sorted(f"images/{name}" for name in thumbnails) == sorted(names[:3])
    for source in thumbnails.values():
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
            assert image.format == "JPEG"
            assert image.size == (280, 210)
    assert f"9 of the 12 images cannot be read any more in {folder.parent}" in page.text
    assert sorted(shown_images(page.text)) == sorted(names)


def test_the_official_protocol_does_not_pass_for_a_held_out_test(results, text_of):
    assert "Strict protocol: the epoch was selected without the test part" in text_of(results)
    results["protocol"] = "official"
    del results["parts"]["validation"]
    text = text_of(results)
    assert "Official protocol: the test part itself selected the epoch" in text
    assert "it selected the checkpoint: optimistic" in text
    assert "held out" not in text
    assert "Strict" not in text


def test_training_images_are_never_called_test(results, text_of):
    results["parts"] = {"train": results["parts"]["validation"]}
    text = text_of(results)
    assert "the model was trained on these images" in text
    assert "Train SROCC" in text
    assert "Largest errors, train part" in text
    assert "Test SROCC" not in text
    assert "held out" not in text


def test_a_cross_dataset_run_names_its_databases(crossed, text_of, figures):
    text = text_of(crossed)
    for fact in [
        "glpi_demo on LIVE, CSIQ", "Trained on KADID-10k",
        "the test databases themselves selected the epoch",
        "The label of the training database is MOS",
        "Largest errors, test live part", "Largest errors, test csiq part", "Test live SROCC",
    ]:  # fmt: skip
        assert fact in text, fact
    # What the targets' labels are called is not in the results: they need not be MOS.
    assert "fitted prediction minus the subjective score" in text
    labels = [axes.get_ylabel() for figure in figures for axes in figure.axes]
    assert "subjective score" in labels
    assert "MOS" not in labels
    # No plot of labels and predictions by level, as they have no common scale.
    assert len(figures) == 2 * (2 + 2 + 1)  # scatter and bars of both, curves; light and dark


def test_a_cross_dataset_run_takes_thumbnails_from_the_targets(
    tmp_path, crossed, render, parse_page, figures
):
    entry = crossed["parts"]["test csiq"]["predictions"][0]
    (tmp_path / "csiq/images").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(tmp_path / "csiq" / entry["image"])
    crossed["config"]["targets"]["csiq"]["root"] = str(tmp_path / "csiq")
    page = parse_page(render(crossed))
    assert f"5 of the 6 images cannot be read any more in {tmp_path / 'csiq'}" in page.text
    assert "12 of the 12 images cannot be read any more in /no/such/target" in page.text


def test_a_reference_in_two_parts_is_told(results, text_of):
    results["split"]["references"]["test"].append("chelsea")
    assert "Parts share references: train and test share 1." in text_of(results)


def test_an_authentic_database_and_undefined_metrics(results, text_of, figures):
    for content in results["parts"].values():
        content["by_distortion"] = {}
        content["metrics"] = dict.fromkeys(content["metrics"])
        for entry in content["predictions"]:
            entry["distortion"] = entry["level"] = None
    results["git_revision"] = results["selection"] = None
    text = text_of(results)
    assert len(figures) == 2 * 3  # no plots by distortion
    assert "Test SROCC undefined Test PLCC undefined" in text
    assert "Revision not known" in text
    assert "The weights were given" in text
    assert "nan" not in text.lower()
    assert "None" not in text


@pytest.mark.usefixtures("figures")
def test_a_part_of_one_image(results, remeasure, text_of):
    part = results["parts"]["test"]
    del part["predictions"][1:]
    remeasure(part)
    text = text_of(results)
    assert "Test SROCC undefined" in text
    assert len(shown_images(text)) == 1
    assert "None" not in text


def test_without_metrics_csv_there_are_no_curves_and_the_page_says_so(results, text_of, figures):
    text = text_of(results, metrics_csv=None)
    assert "There is no metrics.csv in this folder" in text
    assert len(figures) == 2 * 4


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize(
    ("train", "words"), [({}, "mean absolute error"), ({"loss": "plcc"}, "1 − PLCC")]
)
def test_curves_name_the_loss(results, text_of, figures, train, words):
    results["config"]["train"] |= train
    text_of(results)
    titles = {axes.get_title(loc="left") for figure in figures for axes in figure.axes}
    assert f"training loss ({words})" in titles


def test_names_cannot_inject_markup(results, render, parse_page):
    bad = '<script>alert("1")</script>'
    results["model"]["name"] = results["device"] = results["label_note"] = bad
    results["score_name"] = bad
    results["parts"]["test"]["database"] = bad
    results["parts"]["test"]["predictions"][0].update(image=bad, distortion=bad, predicted=99.0)
    results["split"]["references"]["train"] = [bad]
    results["config"]["note"] = bad
    html = render(results)
    assert "<script" not in html
    assert parse_page(html).text.count(bad) >= 6


def test_long_lists_of_references_are_cut(results, text_of):
    results["split"]["references"]["train"] = [f"photo{i}" for i in range(1000)]
    text = text_of(results)
    assert "train: 1000 references" in text
    assert "and 700 more, in results.json" in text
    assert "photo299" in text
    assert "photo300" not in text


def test_the_same_results_give_the_same_bytes(results, render):
    assert render(results) == render(results)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"results\.json is missing: run 'glpi evaluate'"),
        ("{", r"results\.json cannot be read"),
        ("[]", r"results\.json has format None, not 1"),
        ('{"format": 2}', r"results\.json has format 2, not 1"),
        ('{"format": 1}', r"results\.json lacks protocol: evaluate again"),
    ],
)
def test_results_that_cannot_be_used_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(GlpiError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("parts",), 3, r"parts is '3'"),
        (("parts",), {}, r"has no parts"),
        (("protocol",), "loose", r"has protocol 'loose'"),
        (("selection",), {"step": 1}, r"lacks selection\.epoch"),
        (("parts", "test", "metrics"), {}, r"lacks parts\.test\.metrics\.srocc"),
        (
            ("parts", "test", "predictions", 2, "mos"),
            None,
            r"test\.predictions\[2\]\.mos is 'None'",
        ),
        (("parts", "test", "intervals", "srocc"), 1, r"parts\.test\.intervals\.srocc is '1'"),
        (("parts", "test", "by_distortion", "jpeg"), {}, r"test\.by_distortion\.jpeg\.images"),
        (("parts", "test mars"), "validation", r"lacks config\.targets\.mars"),
        (("split", "references", "train"), 3, r"split\.references\.train is '3'"),
    ],
)
def test_results_of_another_shape_are_named(tmp_path, results, write_run, path, value, message):
    if value == "validation":
        value = results["parts"]["validation"]
    node = results
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(GlpiError, match=rf"results\.json.*{message}.*: evaluate again") as caught:
        write_report(write_run(tmp_path, results))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_cross_dataset_run_without_its_description(tmp_path, crossed, write_run):
    (write_run(tmp_path, crossed) / "run.json").unlink()
    with pytest.raises(GlpiError, match=r"run\.json is missing: a cross-dataset report takes"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "database": {}}))
    with pytest.raises(GlpiError, match=r"run\.json lacks database\.name"):
        write_report(tmp_path)


def test_the_table_for_the_terminal(results):
    results["parts"]["test"]["metrics"] = {
        "srocc": 0.87654, "plcc": None, "krcc": -0.5, "rmse": 12.0,
    }  # fmt: skip
    results["parts"]["validation"]["metrics"] = dict.fromkeys(("srocc", "plcc", "krcc", "rmse"))
    assert results_markdown(results) == (
        "glpi_demo on demo, protocol strict\n"
        "\n"
        "| part       | database | images | SROCC     | PLCC      | KRCC      | RMSE      |\n"
        "| ---------- | -------- | ------ | --------- | --------- | --------- | --------- |\n"
        "| test       | demo     | 12     | 0.8765    | undefined | -0.5000   | 12.0000   |\n"
        "| validation | demo     | 6      | undefined | undefined | undefined | undefined |\n"
    )
