"""A run that is killed again and again ends bit for bit where an undisturbed one does."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

STEPS = 8  # of the planned run; its checkpoints are at 3, 4, 6 and 8


def arrays_of(folder):
    """Every array that a checkpoint holds, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(ocp.StandardCheckpointer().restore(folder))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_arrays(folder, expected_folder, parts):
    arrays, expected = arrays_of(folder), arrays_of(expected_folder)
    assert arrays.keys() == expected.keys()
    assert {path.split("'")[1] for path in arrays} == parts
    different = [path for path in expected if not np.array_equal(arrays[path], expected[path])]
    assert different == []
    assert [path for path in expected if arrays[path].dtype != expected[path].dtype] == []


def steps_in(folder):
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def metrics_of(workdir, last_step=STEPS):
    """Rows of metrics.csv up to a step: those that must repeat, and the speeds."""
    rows = list(csv.reader((workdir / "metrics.csv").read_text().splitlines()))[1:]
    rows = [row for row in rows if int(row[0]) <= last_step]
    speeds = [row for row in rows if row[2] == "train/images_per_second"]
    return [row for row in rows if row not in speeds], speeds


@pytest.fixture(scope="module")
def killed(trained, shared_compilations, tmp_path_factory):
    """The trained run once more, killed twice; and the speeds it had noted before it went on."""
    workdir = tmp_path_factory.mktemp("killed") / "workdir"
    command = [sys.executable, "-m", "glpi_jax", "train", "--workdir", workdir, *trained.config]

    def kill_when_there_is(path: Path) -> None:
        with subprocess.Popen(
            command, env=shared_compilations, stderr=subprocess.PIPE, text=True
        ) as process:
            for _ in range(4000):  # over three minutes
                if path.exists() or process.poll() is not None:
                    break
                time.sleep(0.05)
            process.send_signal(SIGKILL)
            _, error = process.communicate()
        assert path.exists(), error
        assert process.returncode == -SIGKILL, error

    # The first step is being compiled: no checkpoint yet.
    kill_when_there_is(workdir / "metrics.csv")
    assert steps_in(workdir / "checkpoints") == []
    # The first validation comes after the checkpoint, and much of the run after that.
    kill_when_there_is(workdir / "checkpoints/3/files.json")  # written last
    (reached, *_) = steps_in(workdir / "checkpoints")
    assert reached == 3
    assert STEPS not in steps_in(workdir / "checkpoints")
    assert not (workdir / "results.json").exists()
    _, speeds = metrics_of(workdir, last_step=3)
    # What a save leaves that is killed half-way.
    for folder in ("checkpoints/7", "best/7"):
        leftover = workdir / f"{folder}.orbax-checkpoint-tmp" / "state"
        leftover.mkdir(parents=True)
        (leftover / "_METADATA").write_text("{")
    done = subprocess.run(
        command, env=shared_compilations, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return workdir, speeds


def test_the_final_state_is_the_same(trained, killed):
    workdir, _ = killed
    assert steps_in(workdir / "checkpoints") == steps_in(trained.workdir / "checkpoints") == [6, 8]
    for step in ("6", "8"):
        folder, expected = (run / "checkpoints" / step for run in (workdir, trained.workdir))
        parts = {"step", "params", "batch_stats", "opt_state", "dropout_key"}
        assert_same_arrays(folder / "state", expected / "state", parts)
        position, expected_position = (
            json.loads((run / "data/metadata").read_text()) for run in (folder, expected)
        )
        assert position == expected_position


def test_the_selected_weights_are_the_same(trained, killed):
    workdir, _ = killed
    (step,) = steps_in(trained.workdir / "best")
    assert steps_in(workdir / "best") == [step]
    assert_same_arrays(
        workdir / f"best/{step}/variables",
        trained.workdir / f"best/{step}/variables",
        {"params", "batch_stats"},
    )


def test_metrics_hold_every_value_once(trained, killed):
    workdir, speeds = killed
    values, all_speeds = metrics_of(workdir)
    expected, expected_speeds = metrics_of(trained.workdir)
    assert values == expected
    assert [row[:3] for row in all_speeds] == [row[:3] for row in expected_speeds]
    # The steps before the kill were not taken again: their rows are the ones written then.
    assert len(speeds) == 3
    assert all_speeds[:3] == speeds


def test_results_are_the_same(trained, killed):
    results, expected = (
        json.loads((workdir / "results.json").read_text())
        for workdir in (killed[0], trained.workdir)
    )
    for key in ("parts", "selection", "split", "config"):
        assert results[key] == expected[key]


def test_leftovers_of_interrupted_saves_are_gone(killed):
    assert [path for path in killed[0].rglob("*") if "tmp" in path.name] == []
    assert (killed[0] / "report.html").is_file()
