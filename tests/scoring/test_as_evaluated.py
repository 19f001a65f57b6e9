"""Scoring gives what the evaluation gave: the same preprocessing, in the units of the labels."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import glpi_jax
from glpi_jax.cli.main import main
from glpi_jax.core.config import load_config
from glpi_jax.evaluation.metrics import rmse
from glpi_jax.evaluation.protocols import metrics_note
from glpi_jax.hub import read_model, save_folder
from glpi_jax.report import results_markdown
from glpi_jax.scoring import Scorer
from glpi_jax.scoring.ladder import score_ladders
from glpi_jax.workflow.runs import _is_reported
from glpi_jax.workflow.workdir import read_run

pytestmark = pytest.mark.usefixtures("no_plots")

# The device computes the same crops in batches of other sizes.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}
STRETCHED = ("data.label_scale=2", "data.label_shift=-50")
CASES = {
    "exact size": ("data.resize=(80,70)",),
    "shorter side": ("data.resize=(72,)", "data.apply_orientation=true"),
    "stretched labels": STRETCHED,
    "stretched labels, official": (*STRETCHED, "protocol=official"),
}


@pytest.fixture(scope="module")
def photographs(make_database, tmp_path_factory) -> Path:
    """The miniature as JPEG files that a camera turned, with labels from 0 to 100."""
    folder = make_database(tmp_path_factory.mktemp("turned") / "database")
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in folder.glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=95, exif=exif)
        path.unlink()
    header, *lines = (folder / "labels.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    lines = [
        ",".join([name.replace(".png", ".jpg"), f"{float(score) * 18:.2f}", *rest])
        for name, score, *rest in rows
    ]
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def train(plan_run, photographs, shared_compilations, tmp_path_factory) -> Callable[[str], Path]:
    """Train a case once, and give its workdir; each image has five crops on a grid."""
    workdirs: dict[str, Path] = {}

    def trained(case: str) -> Path:
        if case not in workdirs:
            workdirs[case] = tmp_path_factory.mktemp("case") / "workdir"
            overrides = (
                *(f"--config.{each}" for each in CASES[case]),
                f"--config.data.root={photographs}",
                "--config.train.epochs=1",
                "--config.evaluation.crops=5",
                "--config.evaluation.placement=grid",
            )
            arguments = ["--workdir", str(workdirs[case]), *plan_run.config, *overrides]
            assert main(["train", *arguments]) == 0
        return workdirs[case]

    return trained


def evaluated(workdir: Path) -> dict[str, dict]:
    """The predictions of results.json by image."""
    results = json.loads((workdir / "results.json").read_text())
    return {entry["image"]: entry for part in results["parts"].values()
            for entry in part["predictions"]}  # fmt: skip


@pytest.fixture(params=CASES)
def workdir(request, train) -> Path:
    return train(request.param)


@pytest.fixture
def published(workdir, tmp_path) -> Path:
    save_folder(workdir, tmp_path / "model")
    return tmp_path / "model"


def assert_as_evaluated(results, entries):
    for key, name in (("score", "predicted"), ("crop_std", "crop_std")):
        found = [getattr(result, key) for result in results]
        expected = [entry[name] for entry in entries.values()]
        np.testing.assert_allclose(found, expected, **ROUNDING)
    assert np.ptp([result.score for result in results]) > 100 * ROUNDING["atol"]


def test_score_equals_evaluate_for_workdir_and_published_folder(workdir, published, photographs):
    entries = evaluated(workdir)
    files = [photographs / name for name in entries]
    for model in (workdir, published):
        scorer = glpi_jax.load(model)
        assert_as_evaluated(scorer.score(files), entries)
        assert_as_evaluated(scorer.score([file.read_bytes() for file in files]), entries)
        assert_as_evaluated(scorer.score([Image.open(file) for file in files]), entries)


def test_command_equals_evaluate(train, photographs, capsys):
    workdir = train("exact size")
    assert main(["score", str(workdir), str(photographs), "--json"]) == 0
    output = capsys.readouterr()
    scores = {Path(each["image"]).name: each["score"] for each in json.loads(output.out)}
    for name, entry in evaluated(workdir).items():
        np.testing.assert_allclose(scores[name], entry["predicted"], **ROUNDING)
    assert "resized to height 80 and width 70 pixels" in output.err


def test_published_folder_keeps_preprocessing_and_label_scale(workdir, published):
    old, new = read_model(workdir), read_model(published)
    for name in ("preprocessing", "preprocessing_assumed", "label_scale", "label_shift", "meaning"):
        assert getattr(new, name) == getattr(old, name)
    assert old.preprocessing_assumed is False


def test_training_evaluation_and_scoring_cut_the_same_pixels(train, photographs):
    """Of a photograph that is stored 110 pixels wide and turned, by both kinds of preprocessing."""
    exact, shorter = (glpi_jax.load(train(case)) for case in ("exact size", "shorter side"))
    file = photographs / "scene0_1.jpg"
    stored = np.asarray(Image.open(file))
    assert stored.shape[:2] == (125, 110)
    assert exact.read_pixels(file).shape == (80, 70, 3)
    assert shorter.read_pixels(file).shape == (72, 82, 3)  # turned, 110 × 125
    kept = glpi_jax.load(train("stretched labels"))
    np.testing.assert_array_equal(kept.read_pixels(file), stored)


def test_arrays_and_frames_are_resized(train, photographs):
    scorer = glpi_jax.load(train("exact size"))
    file = photographs / "scene0_1.jpg"
    pixels = np.asarray(Image.open(file))
    frame = glpi_jax.scoring.Frame("clip.mp4#0.000", 0.0, pixels)
    expected = scorer.score(file).score
    for source in (pixels, frame, scorer.read_pixels(file)):
        assert scorer.score(source).score == pytest.approx(expected, rel=1e-6)


def test_map_and_ladder_are_preprocessed(train, photographs):
    scorer = glpi_jax.load(train("exact size"))
    file = photographs / "scene0_1.jpg"
    quality = scorer.quality_map(file, stride=16)
    assert quality.image.shape == (80, 70, 3)
    (ladder,) = score_ladders(scorer, file, ["gaussian_blur"])
    assert ladder.images[0].shape == (125, 110, 3)
    assert ladder.scores[0] == pytest.approx(scorer.score(file).score, rel=1e-5)


def test_stretched_labels_scores_are_mapped_back(train, photographs):
    trained = read_model(train("stretched labels"))
    assert (trained.label_scale, trained.label_shift) == (2, -50)
    raw = Scorer(dataclasses.replace(trained, label_scale=1.0, label_shift=0.0))
    scorer, file = Scorer(trained), photographs / "scene1_2.jpg"
    mapped, unmapped = scorer.score(file), raw.score(file)
    assert mapped.score == (unmapped.score + 50) / 2
    assert mapped.crop_std == unmapped.crop_std / 2
    assert mapped.standard_error == unmapped.standard_error / 2
    np.testing.assert_allclose(
        scorer.quality_map(file).scores, (raw.quality_map(file).scores + 50) / 2, rtol=1e-12
    )
    assert scorer.fingerprint() != raw.fingerprint()


def results_and_rmse(workdir):
    """The results, and the RMSE of the test part's predictions as they are and stretched."""
    results = json.loads((workdir / "results.json").read_text())
    part = results["parts"]["test"]
    mos = [entry["mos"] for entry in part["predictions"]]
    mapped = np.array([entry["predicted"] for entry in part["predictions"]])
    return results, part["metrics"]["rmse"], rmse(mapped, mos), rmse(2 * mapped - 50, mos)


def test_strict_metrics_are_in_units_of_the_labels(train):
    workdir = train("stretched labels")
    results, found, in_units, stretched = results_and_rmse(workdir)
    assert found == in_units != stretched
    assert results["metrics_note"] is None
    assert "RMSE is in units of the label." in (workdir / "report.html").read_text()


def test_official_metrics_compare_stretched_predictions_and_say_so(train):
    workdir = train("stretched labels, official")
    results, found, in_units, stretched = results_and_rmse(workdir)
    assert found == pytest.approx(stretched, rel=1e-12)
    assert abs(found - in_units) > 1
    note = "RMSE of predictions on the scale 2·MOS − 50, as the authors' code compares them"
    assert results["metrics_note"] == note
    assert note in results_markdown(results)
    assert "RMSE of predictions on the scale 2·MOS − 50" in (workdir / "report.html").read_text()
    validated = [
        float(line.rsplit(",", 1)[1])
        for line in (workdir / "metrics.csv").read_text().splitlines()
        if "test/rmse" in line
    ]
    assert min(abs(value - stretched) for value in validated) < 1e-3


def test_config_without_stretching_needs_no_note(plan_run):
    def note(*overrides):
        config = load_config(plan_run.config[1], [f"--config.{each}" for each in overrides])
        return metrics_note(config, "DMOS")

    assert note("protocol=official") is None
    assert note(*STRETCHED) is None
    assert "scale 0.5·DMOS," in note("protocol=official", "data.label_scale=0.5")
    assert "scale DMOS + 3," in note("protocol=official", "data.label_shift=3")


def test_results_that_may_hold_stretched_predictions_are_not_taken_for_complete(train, tmp_path):
    """As an older version wrote them."""
    workdir = shutil.copytree(train("stretched labels"), tmp_path / "workdir")
    config = ConfigDict(read_run(workdir)["config"])
    assert _is_reported(config, workdir)
    results = json.loads((workdir / "results.json").read_text())
    del results["metrics_note"]
    (workdir / "results.json").write_text(json.dumps(results))
    assert not _is_reported(config, workdir)
