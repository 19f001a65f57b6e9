"""What a run leaves in its workdir, and what becomes of a workdir that is not as it should be."""

import csv
import json
import re
import shutil
import subprocess

import pytest

from glpi_jax.cli.main import main
from glpi_jax.core.config import load_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import load_database
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.evaluation.predict import Prediction
from glpi_jax.evaluation.protocols import Part
from glpi_jax.models.glpi import SIZES
from glpi_jax.workflow import provenance, runs
from glpi_jax.workflow.runs import evaluate_run, load_best, train_run
from glpi_jax.workflow.scored_parts import part_results
from glpi_jax.workflow.workdir import read_run

pytestmark = pytest.mark.usefixtures("no_plots")

# Written by the run itself; TensorBoard's and Orbax's files have names of their own choosing.
ONE_CROP = "--config.evaluation.crops=1"
FILES = ["metrics.csv", "report.html", "results.json", "run.json", "split.json"]


@pytest.fixture
def copy(trained, tmp_path):
    """A finished run's workdir that a test may change."""
    return shutil.copytree(trained.workdir, tmp_path / "copy")


@pytest.fixture
def load(trained):
    """`load("--config.seed=1")`: the trained run's config, changed."""

    def load(*overrides):
        return load_config(trained.config[1], [*trained.overrides, *overrides])

    return load


def read(path):
    return json.loads(path.read_text())


def rows(path):
    """The rows of a CSV file as dictionaries."""
    return list(csv.DictReader(path.read_text().splitlines()))


def state_of(workdir):
    """Every file with its content and its time of change."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in workdir.rglob("*")
        if path.is_file()
    }


def test_a_run_leaves_its_files_and_nothing_half_written(trained):
    names = {path.name for path in trained.workdir.iterdir()}
    assert names == {*FILES, "best", "checkpoints", "lock", "tensorboard"}
    assert list((trained.workdir / "tensorboard").iterdir())
    assert [path for path in trained.workdir.rglob("*") if "tmp" in path.name] == []


def test_results_tell_what_was_done(trained):
    results = read(trained.workdir / "results.json")
    assert results["protocol"] == "strict"
    assert results["config"]["data"]["root"] == str(trained.database)
    assert results["model"]["name"] == "glpi_demo"
    assert results["versions"].keys() >= {"glpi_jax", "jax", "flax", "numpy"}
    assert results["label_note"] == "5 minus the level of noise"
    assert (results["score_name"], results["higher_is_better"]) == ("MOS", True)
    labels = {row["image"]: row for row in rows(trained.database / "labels.csv")}
    for part in ("test", "validation"):
        predictions = results["parts"][part]["predictions"]
        assert results["parts"][part]["images"] == len(predictions) == 4
        assert set(results["parts"][part]["by_distortion"]) == {"noise", "grain"}
        for entry in predictions:
            label = labels[entry["image"]]
            assert entry["mos"] == float(label["score"])
            assert entry["reference"] == label["reference"]
            assert entry["distortion"] == label["distortion"]
            assert entry["level"] == int(label["level"])


def test_references_of_the_test_part_are_in_no_other_part(trained):
    results = read(trained.workdir / "results.json")
    parts = results["split"]["references"]
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    assert len(set().union(*parts.values())) == 6
    for part in ("test", "validation"):
        scored = {entry["reference"] for entry in results["parts"][part]["predictions"]}
        assert scored == set(parts[part])


def test_the_selected_epoch_is_the_best_validated_one(trained):
    validated = {
        int(row["step"]): float(row["value"])
        for row in rows(trained.workdir / "metrics.csv")
        if row["name"] == "validation/srocc"
    }
    assert sorted(validated) == [4, 8]
    selection = read(trained.workdir / "results.json")["selection"]
    assert selection["value"] == max(validated.values()) == validated[selection["step"]]
    assert selection["epoch"] == selection["step"] // 4
    # Scored with those weights, the validation part gives that very number again.
    metrics = read(trained.workdir / "results.json")["parts"]["validation"]["metrics"]
    assert metrics["srocc"] == selection["value"]


def test_results_of_other_crops_are_taken_anew(trained, tmp_path):
    """`glpi evaluate` may have written others; a benchmark must not mix them."""
    workdir = shutil.copytree(trained.workdir, tmp_path / "run")
    before = read(workdir / "results.json")
    assert main(["evaluate", "--workdir", str(workdir), *trained.config, ONE_CROP]) == 0
    assert read(workdir / "results.json")["config"]["evaluation"]["crops"] == 1
    assert main(["train", "--workdir", str(workdir), *trained.config]) == 0
    after = read(workdir / "results.json")
    assert after["parts"] == before["parts"]


def test_a_finished_run_started_again_does_nothing(trained, copy, capsys):
    before = state_of(copy)
    assert main(["train", "--workdir", str(copy), *trained.config]) == 0
    assert "this run is finished: nothing to do" in capsys.readouterr().err
    assert state_of(copy) == before


def make_older(path):
    """Take the keys out of a saved config that older versions did not know."""
    saved = read(path)
    for section, keys in {
        "model": ["param_dtype", "plain_operators"],
        "optimizer": ["name", "arguments"],
        "train": ["loss", "huber_delta"],
    }.items():
        for key in keys:
            del saved["config"][section][key]
    path.write_text(json.dumps(saved))


def test_run_from_before_loss_and_optimizer_were_chosen_is_as_it_was(copy, load):
    """Its files lack the keys: its loss was l1, its optimizer the official Adam."""
    for name in ("run.json", "results.json"):
        make_older(copy / name)
    assert not train_run(load(), copy)
    with pytest.raises(GlpiError, match=r"config\.train\.loss = 'mse' \(was 'l1'\)\. Give"):
        train_run(load("--config.train.loss=mse"), copy)


def test_interrupted_run_of_an_older_version_resumes_to_the_same_numbers(trained, load, tmp_path):
    workdir = tmp_path / "run"

    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "mean_srocc", interrupted)  # in the validation after step 4
        with pytest.raises(KeyboardInterrupt):
            train_run(load(), workdir)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]
    make_older(workdir / "run.json")
    assert train_run(load(), workdir)
    results, expected = (read(path / "results.json") for path in (workdir, trained.workdir))
    for key in ("parts", "selection", "split", "config"):
        assert results[key] == expected[key]
    speed = "train/images_per_second"
    values, expected = (
        [row for row in rows(path / "metrics.csv") if row["name"] != speed]
        for path in (workdir, trained.workdir)
    )
    assert values == expected


def test_a_run_stopped_between_training_and_report_is_completed(trained, copy, load):
    expected = read(copy / "results.json")
    (copy / "report.html").unlink()
    assert train_run(load(), copy)
    assert (copy / "report.html").is_file()
    (copy / "results.json").write_text('{"config": ')  # damaged
    assert train_run(load(), copy)
    assert read(copy / "results.json")["parts"] == expected["parts"]
    (copy / "results.json").unlink()
    assert train_run(load(), copy)
    assert read(copy / "results.json")["parts"] == expected["parts"]
    assert (copy / "metrics.csv").read_bytes() == (trained.workdir / "metrics.csv").read_bytes()


def test_evaluate_gives_what_train_wrote(copy, trained, capsys):
    trained_results = read(copy / "results.json")
    (copy / "results.json").unlink()
    (copy / "report.html").unlink()
    assert main(["evaluate", "--workdir", str(copy), *trained.config]) == 0
    output = capsys.readouterr()
    assert "SROCC" in output.out
    assert str(copy / "report.html") in output.err
    assert (copy / "report.html").is_file()
    again = read(copy / "results.json")
    for results in (trained_results, again):
        del results["git_revision"]  # the tests run from a checkout that may change meanwhile
    assert again == trained_results


@pytest.fixture
def scored(monkeypatch):
    """The parts that are scored from here on, in order."""
    names = []
    predict_part = runs.predict_part

    def record(config, part, *args):
        names.append(part.name)
        return predict_part(config, part, *args)

    monkeypatch.setattr(runs, "predict_part", record)
    return names


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("--config.protocol=strict", ["validation", "test"]),
        ("--config.protocol=official", ["test"]),
        slow("--config.evaluation.select=last", ["validation", "test"]),
        # The weights of a validation are split, those of an evaluation whole.
        slow("--config.mesh.fsdp=2", ["validation", "test", "validation"]),
    ],
)
def test_train_run_scores_each_part_once(load, tmp_path, scored, override, expected):
    config = load("--config.train.epochs=1", override)
    assert train_run(config, tmp_path / "run")
    assert scored == expected
    written = read(tmp_path / "run/results.json")
    evaluated = evaluate_run(config, tmp_path / "run")
    assert len(scored) == len(expected) + len(written["parts"])
    assert json.loads(json.dumps(evaluated)) == written


def test_train_run_reuses_the_predictions_of_an_earlier_epoch(load, tmp_path, scored, monkeypatch):
    values = iter([0.9, 0.8])
    monkeypatch.setattr(runs, "mean_srocc", lambda _: next(values))
    assert train_run(load(), tmp_path / "run")
    assert scored == ["validation", "validation", "test"]
    written = read(tmp_path / "run/results.json")
    assert written["selection"]["epoch"] == 1
    evaluated = evaluate_run(load(), tmp_path / "run")
    assert json.loads(json.dumps(evaluated)) == written


def test_train_run_of_a_finished_training_scores_again(copy, load, scored):
    (copy / "results.json").unlink()
    assert train_run(load(), copy)
    assert scored == ["test", "validation"]


def test_evaluate_with_other_crops(copy, load):
    before = read(copy / "results.json")
    results = evaluate_run(load("--config.evaluation.crops=3"), copy)
    assert json.loads(json.dumps(results)) == read(copy / "results.json")
    assert results["parts"]["test"]["crops"] == 3
    assert results["config"]["evaluation"]["crops"] == 3
    assert results["selection"] == before["selection"]
    for entry, other in zip(
        results["parts"]["test"]["predictions"],
        before["parts"]["test"]["predictions"],
        strict=True,
    ):
        assert entry["image"] == other["image"]
        assert entry["predicted"] != other["predicted"]


def test_another_config_in_the_workdir_is_refused(copy, load):
    before = state_of(copy)
    changed = load("--config.seed=3", "--config.train.epochs=5")
    with pytest.raises(GlpiError, match="run of another config") as caught:
        train_run(changed, copy)
    assert "config.seed = 3 (was 0)" in str(caught.value)
    assert "config.train.epochs = 5 (was 2)" in str(caught.value)
    assert "crops" not in str(caught.value)
    # The number of epochs does not matter to an evaluation, the seed does.
    with pytest.raises(GlpiError, match=r"config\.seed = 3") as caught:
        evaluate_run(changed, copy)
    assert "epochs" not in str(caught.value)
    assert state_of(copy) == before


def test_no_workdir_and_no_model(load, plan_run, tmp_path):
    with pytest.raises(GlpiError, match="nowhere: no such workdir"):
        evaluate_run(load(), tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GlpiError, match="empty: not a workdir"):
        evaluate_run(load(), tmp_path / "empty")
    with pytest.raises(GlpiError, match="not a workdir"):
        read_run(plan_run.database)


def test_a_workdir_that_holds_no_trained_model(copy, load):
    shutil.rmtree(copy / "best")
    with pytest.raises(GlpiError, match=r"copy: no trained model here \(no folder best/\)"):
        evaluate_run(load(), copy)
    (copy / "best").mkdir()
    with pytest.raises(GlpiError, match="best: holds no finished checkpoint"):
        evaluate_run(load(), copy)


def test_a_checkpoint_of_another_size_lists_the_differences(copy):
    run = read(copy / "run.json")
    run["config"]["model"]["name"] = "glpi_ti16"
    (copy / "run.json").write_text(json.dumps(run))
    with pytest.raises(GlpiError, match=r"of another model than run\.json says") as caught:
        load_best(copy, make_mesh(-1))
    text = str(caught.value)
    assert str(copy / "best") in text
    assert " missing: batch_stats/clfe/backbone/layer1_1/bn1/mean, " in text
    stem, other = SIZES["glpi_demo"].stem, SIZES["glpi_ti16"].stem
    misshapen = f" misshapen: batch_stats/clfe/backbone/bn1/mean ({stem},) instead of ({other},)"
    assert misshapen in text
    assert re.search(r"… \(\d+ more\)", text)
    assert len(text) < 2000


def without(path):
    """run.json without the entry that this path leads to."""

    def edit(run):
        *parents, last = path
        node = run
        for name in parents:
            node = node[name]
        del node[last]
        return json.dumps(run)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: json.dumps(run)[:200],
        lambda run: "",
        lambda run: "[]",
        lambda run: "null",
        lambda run: json.dumps(run | {"format": 99}),
        lambda run: json.dumps(run | {"config": {}}),
        lambda run: json.dumps(run | {"database": None}),
        without(["format"]),
        without(["database", "score_name"]),
        without(["config", "evaluation"]),
        without(["config", "model", "dropout"]),
        lambda run: "\udcff",
    ],
)
def test_a_damaged_run_description_is_named(copy, load, damage):
    text = damage(read(copy / "run.json"))
    (copy / "run.json").write_text(text, errors="surrogateescape")
    for use in (
        lambda: train_run(load(), copy),
        lambda: evaluate_run(load(), copy),
        lambda: load_best(copy, make_mesh(-1)),
    ):
        with pytest.raises(GlpiError, match=r"run\.json: ") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_split_that_does_not_fit_the_database(copy, load, make_database, tmp_path):
    split = read(copy / "split.json")
    (copy / "split.json").unlink()
    with pytest.raises(GlpiError, match=r"split\.json: no such split file"):
        evaluate_run(load(), copy)
    moved = split | {"test": split["test"] + split["train"][:1], "train": split["train"][1:]}
    (copy / "split.json").write_text(json.dumps(moved))
    with pytest.raises(GlpiError, match="is in both"):
        train_run(load(), copy)
    (copy / "split.json").write_text(json.dumps(split | {"test": ["elsewhere.png"]}))
    with pytest.raises(GlpiError, match=r"split\.json: .*elsewhere\.png"):
        evaluate_run(load(), copy)


def test_images_that_left_the_database_are_named(copy, load, make_database, tmp_path):
    other = make_database(tmp_path / "other")
    run = read(copy / "run.json")
    run["config"]["data"]["root"] = str(other)
    (copy / "run.json").write_text(json.dumps(run))
    gone = read(copy / "split.json")["test"][0]
    (other / gone).unlink()
    moved = load(f"--config.data.root={other}")
    with pytest.raises(GlpiError, match=gone):
        evaluate_run(moved, copy)
    # Taken out of the labels as well, it is the split that does not fit.
    lines = (other / "labels.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(gone)]
    (other / "labels.csv").write_text("".join(kept))
    with pytest.raises(GlpiError, match=rf"split\.json: .*{gone}"):
        evaluate_run(moved, copy)


def test_an_unreadable_training_image_stops_the_run_and_is_named(
    load, make_database, tmp_path, shared_compilations
):
    database = make_database(tmp_path / "database")
    for path in database.glob("*.png"):
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(GlpiError, match=r"scene\d_\d\.png: corrupt or truncated"):
        train_run(load(f"--config.data.root={database}"), tmp_path / "workdir")


def test_labels_without_distortions_give_no_table_by_distortion(load, make_database, tmp_path):
    folder = make_database(tmp_path / "database")
    lines = (folder / "labels.csv").read_text().splitlines()
    shorter = [line.rsplit(",", 2)[0] for line in lines]  # without distortion and level
    (folder / "labels.csv").write_text("\n".join(shorter) + "\n")
    database = load_database("csv", folder)
    predictions = [Prediction(float(row), 0.0) for row in range(4)]
    config = load()
    rows = Part("test", database, tuple(range(4)), config.data, "config.data")
    part = part_results(config, rows, predictions)
    assert part["by_distortion"] == {}
    assert part["metrics"]["srocc"] == -1.0  # rising predictions, falling scores
    assert [entry["level"] for entry in part["predictions"]] == [None] * 4


def test_labels_that_are_left_out_are_told(load, make_database, tmp_path, capsys):
    folder = make_database(tmp_path / "database")
    with (folder / "labels.csv").open("a") as file:
        file.write("lost.png,3,scene0,noise,1\n")
    source = f"--config.data.root={folder}"
    with pytest.raises(GlpiError, match=r"lost\.png"):
        train_run(load(source), tmp_path / "strict")
    assert not (tmp_path / "strict").exists()
    config = load(source, "--config.data.skip_bad=True", "--config.train.epochs=1")
    train_run(config, tmp_path / "lenient")
    assert "miniature: left out 1 labels:\n" in capsys.readouterr().err
    (reason,) = read(tmp_path / "lenient/results.json")["left_out"]["miniature"]
    assert "lost.png" in reason


def git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_the_revision_is_that_of_the_package_alone(tmp_path, monkeypatch):
    """Not of a project in whose folder the environment lies that the package is installed in."""
    package = tmp_path / "project/.venv/glpi_jax"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_revision() is None
    git(tmp_path / "project", "init")
    git(tmp_path / "project", "commit", "--allow-empty", "-m", "begin")
    assert provenance.git_revision() is None
    git(tmp_path / "project", "add", ".")
    git(tmp_path / "project", "commit", "-m", "package")
    assert re.fullmatch("[0-9a-f]{12}", provenance.git_revision())
