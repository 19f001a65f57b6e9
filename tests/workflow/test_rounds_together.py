"""Rounds trained side by side on groups of devices are those trained one by one.

Losses and predictions agree to 1e-5 relative: a group has fewer devices, and sums another order.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from own_process import free_port, with_devices

from glpi_jax.cli.main import main
from glpi_jax.results.metrics_file import read_metrics
from glpi_jax.workflow import runs

ROUNDS = 4
BATCH = 4


@pytest.fixture(scope="module")
def command(plan_run, make_database, tmp_path_factory):
    """A benchmark, without workdir and mesh; its rounds have epochs of different lengths."""
    database = make_database(tmp_path_factory.mktemp("rounds") / "database")
    labels = database / "labels.csv"
    header, *lines = labels.read_text().splitlines()
    # Thirteen of four scenes with scene3, four steps; twelve with scene4 in its place, three steps.
    dropped = ("scene0_2", "scene0_3", "scene0_4", "scene4_1")
    fewer = [line for line in lines if not line.startswith(dropped)]
    labels.write_text("\n".join([header, *fewer, ""]))
    overrides = [x for x in plan_run.overrides if "data.root" not in x]
    return [
        *("benchmark", "--config", plan_run.config[1], f"--config.data.root={database}"),
        *(*overrides, "--config.model.dropout=0.5", "--rounds", str(ROUNDS)),
    ]


@pytest.fixture(scope="module")
def run(command, shared_compilations):
    """`run(workdir, *more)` runs the command in a process of its own, with two devices."""

    def run(workdir, *more):
        done = subprocess.run(
            [sys.executable, "-m", "glpi_jax", *command, "--workdir", workdir, *more],
            env=with_devices(shared_compilations, 2),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="module")
def one_by_one(run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one_by_one") / "workdir"
    run(workdir)
    return workdir


def assert_same_rounds(workdir, expected, rounds=ROUNDS):
    lengths = set()
    for number in range(1, rounds + 1):
        folders = [each / f"round_{number:02d}" for each in (workdir, expected)]
        rows, expected_rows = (
            [r for r in read_metrics(f / "metrics.csv") if "per_second" not in r.name]
            for f in folders
        )
        assert [r[:3] for r in rows] == [r[:3] for r in expected_rows]
        losses, expected_losses = (
            [r.value for r in each if r.name == "train/loss"] for each in (rows, expected_rows)
        )
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
        lengths.add(len(losses))
        results, expected_results = (
            json.loads((folder / "results.json").read_text()) for folder in folders
        )
        assert results["split"] == expected_results["split"]
        assert results["seed"] == number - 1
        for part in ("test", "validation"):
            predictions, expected_predictions = (
                [p["predicted"] for p in each["parts"][part]["predictions"]]
                for each in (results, expected_results)
            )
            np.testing.assert_allclose(predictions, expected_predictions, rtol=1e-4)
    assert len(lengths) > 1  # some rounds end earlier than others
    summary = json.loads((workdir / "benchmark.json").read_text())
    assert len(summary["rounds"]) == rounds


@pytest.mark.slow
def test_train_rounds_scores_each_part_once(command, tmp_path, monkeypatch):
    scored = []
    predict_part = runs.predict_part

    def record(config, part, *args):
        scored.append((config.split.round, part.name))
        return predict_part(config, part, *args)

    monkeypatch.setattr(runs, "predict_part", record)
    more = ["--config.mesh.round=2", "--config.train.epochs=1", "--rounds=2"]
    assert main([*command, *more, "--workdir", str(tmp_path)]) == 0
    assert sorted(scored) == [(n, part) for n in (1, 2) for part in ("test", "validation")]
    for number in (1, 2):
        written = json.loads((tmp_path / f"round_{number:02d}/results.json").read_text())
        config = ConfigDict(written["config"])
        evaluated = runs.evaluate_run(config, tmp_path / f"round_{number:02d}")
        assert json.loads(json.dumps(evaluated)) == written


@pytest.mark.slow
def test_two_groups_train_four_rounds_of_which_one_was_there(command, run, one_by_one, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(one_by_one / "round_01", workdir / "round_01")
    before = (workdir / "round_01/results.json").read_bytes()
    run(workdir, "--config.mesh.round=2")
    assert (workdir / "round_01/results.json").read_bytes() == before
    assert_same_rounds(workdir, one_by_one)
    # Finished: nothing is trained again.
    written = (workdir / "round_02/metrics.csv").stat().st_mtime_ns
    assert main([*command, "--workdir", str(workdir), "--config.mesh.round=2"]) == 0
    assert (workdir / "round_02/metrics.csv").stat().st_mtime_ns == written


@pytest.mark.slow
def test_two_processes_share_a_group_of_each(command, one_by_one, shared_compilations, tmp_path):
    """Two groups of two devices: each process has a group of its own."""
    workdir = tmp_path / "workdir"
    address = f"127.0.0.1:{free_port()}"
    pair = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "glpi_jax", *command, "--workdir", str(workdir)),
                *("--config.mesh.round=2", "--rounds=2"),
                *("--coordinator", address, "--processes", "2", "--process", str(number)),
            ],
            env=with_devices(shared_compilations, 2),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    texts = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], texts
    assert_same_rounds(workdir, one_by_one, rounds=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config.mesh.round=2", "--rounds=3"], "3 rounds do not split evenly over"),
        (["--config.mesh.round=3"], "config.mesh.round = 3, config.mesh.data = -1, but there are"),
        (["--config.mesh.round=2", "--config.mesh.data=0"], "config.mesh.data = 0"),
    ],
)
def test_numbers_that_do_not_fit(command, options, message, tmp_path, capsys):
    assert main([*command, *options, "--workdir", str(tmp_path / "w")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_single_run_has_no_rounds(command, tmp_path, capsys):
    train = ["train", *command[1:-2], "--config.mesh.round=2", "--workdir", str(tmp_path / "w")]
    assert main(train) == 2
    assert "that is for `glpi benchmark`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
