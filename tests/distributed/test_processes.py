"""Two processes that train together, stopped by SIGTERM on the way: as one process undisturbed."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from own_process import free_port, with_devices

from glpi_jax.cli.common import EXIT_AGAIN, EXIT_BAD_INPUT, EXIT_FAILED, EXIT_OK
from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed import ranks as processes
from glpi_jax.workflow.workdir import kept_to_one_training

STEPS = 8  # of the planned run
LOSE_A_PROCESS = Path(__file__).with_name("lose_a_process.py")
END_THE_SECOND_RUN = Path(__file__).with_name("end_the_second_run.py")


def start_pair(trained, workdir, environment):
    """Both processes of a run, with one device each: as many as the one process has."""
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "glpi_jax", "train", "--workdir", workdir),
                *trained.config,
                *("--coordinator", address, "--processes", "2", "--process", str(number)),
            ],
            env=with_devices(environment, 1),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]


def metrics_of(workdir):
    """(step, name) → value, without the speeds."""
    _, *rows = csv.reader((workdir / "metrics.csv").read_text().splitlines())
    values = {(int(step), name): float(value) for step, _, name, value in rows}
    return {key: value for key, value in values.items() if "per_second" not in key[1]}


@pytest.fixture(scope="module")
def pair(trained, shared_compilations, tmp_path_factory):
    """A run of two processes, of which one gets SIGTERM after the first checkpoint."""
    workdir = tmp_path_factory.mktemp("pair") / "workdir"
    running = start_pair(trained, workdir, shared_compilations)
    for _ in range(4000):  # over three minutes
        if (workdir / "checkpoints/3/files.json").exists() or running[0].poll() is not None:
            break
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    stopped = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    again = start_pair(trained, workdir, shared_compilations)
    errors = [process.communicate()[1] for process in again]
    assert [process.returncode for process in again] == [0, 0], errors
    return workdir, codes, stopped


@pytest.mark.slow
def test_all_end_together_and_say_so(pair):
    _, codes, errors = pair
    assert codes == [EXIT_AGAIN, EXIT_AGAIN], errors
    for error in errors:
        assert "terminated; the same command resumes where it stopped" in error


@pytest.mark.slow
def test_a_workdir_in_which_another_trains_is_refused_by_both(
    trained, tmp_path, shared_compilations
):
    with kept_to_one_training(tmp_path):
        running = start_pair(trained, tmp_path, shared_compilations)
        errors = [process.communicate()[1] for process in running]
    assert running[0].returncode == EXIT_BAD_INPUT, errors
    assert f"glpi: error: {tmp_path}: another process is training" in errors[0]
    assert running[1].returncode != EXIT_OK
    assert [path.name for path in tmp_path.iterdir() if path.name != "compilations"] == ["lock"]


@pytest.mark.slow
def test_losses_and_metrics_are_those_of_one_process(trained, pair):
    workdir, _, _ = pair
    values, expected = metrics_of(workdir), metrics_of(trained.workdir)
    assert values.keys() == expected.keys()
    for key, value in expected.items():
        # Sums over devices are taken in another order: float32 rounding, which Adam lets grow.
        assert values[key] == pytest.approx(value, rel=2e-3, abs=1e-3), key
    first = (1, "train/loss")
    assert values[first] == pytest.approx(expected[first], rel=1e-5)


@pytest.mark.slow
def test_results_hold_every_image_once_and_in_order(trained, pair):
    workdir, _, _ = pair
    results, expected = (
        json.loads((folder / "results.json").read_text()) for folder in (workdir, trained.workdir)
    )
    for name, part in expected["parts"].items():
        predictions = results["parts"][name]["predictions"]
        for key in ("image", "mos"):
            assert [p[key] for p in predictions] == [p[key] for p in part["predictions"]]
        np.testing.assert_allclose(
            [p["predicted"] for p in predictions],
            [p["predicted"] for p in part["predictions"]],
            atol=5e-3,
        )
    assert (workdir / "report.html").is_file()


def test_parts_cover_all_rows(monkeypatch):
    rows = tuple(range(7))
    monkeypatch.setattr(processes.jax, "process_count", lambda: 3)
    parts = []
    for number in range(3):
        monkeypatch.setattr(processes.jax, "process_index", lambda number=number: number)
        parts.append(processes.own_part(rows))
    assert sorted(row for part in parts for row in part) == list(rows)
    assert max(map(len, parts)) == processes.largest_part(7) == 3
    values = [np.array([[row + 0.1, -row] for row in part]) for part in parts]

    def allgather(own):
        padded = [np.concatenate([v, np.full((3 - len(v), 2), np.nan)]) for v in values]
        assert own.dtype == np.uint32
        return np.stack([array.view(np.uint32) for array in padded])

    monkeypatch.setattr(processes.multihost_utils, "process_allgather", allgather)
    together = processes.gather_parts(values[2], 7)
    np.testing.assert_array_equal(together, [[row + 0.1, -row] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("killed", -signal.SIGKILL, ""),
        ("bad input", 2, "glpi: error: a.png: not an image\n"),
        ("interrupted", 130, "glpi: interrupted; the same command resumes where it stopped\n"),
        ("unforeseen", EXIT_FAILED, "KeyError: 'no such name'\n"),
    ],
)
def test_when_one_has_ended_the_other_says_so_and_ends(shared_compilations, end, code, words):
    port = str(free_port())
    running = [
        subprocess.Popen(
            [sys.executable, LOSE_A_PROCESS, port, str(number), end],
            env=with_devices(shared_compilations, 1),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    # JAX by itself would wait until the other one has given no sign of life for 100 seconds.
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [EXIT_FAILED, code], errors
    assert "glpi: error: another process is gone or cannot be reached; the same" in errors[0]
    assert "Traceback" not in errors[0]
    assert errors[1].endswith(words)


@pytest.mark.slow
def test_a_signal_between_two_runs_ends_the_second(shared_compilations):
    """As of a resumed run, whose first step has another number than JAX expects."""
    port = str(free_port())
    running = [
        subprocess.Popen(
            [sys.executable, END_THE_SECOND_RUN, port, str(number)],
            env=with_devices(shared_compilations, 1),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    ends = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    first, second = (end.splitlines()[-1] for end in ends)  # Gloo talks before
    assert first == second
    assert first.isdecimal()


ALONE = """
import os, signal, sys
from glpi_jax.distributed.ranks import start
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
assert not start("off", f"127.0.0.1:{sys.argv[1]}", 1, 0)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_joined_nobody_hears_sigterm_itself(shared_compilations):
    """As on a pod of one host, where evaluating and scoring do not ask JAX about signals."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(free_port())],
        env=with_devices(shared_compilations, 1),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "heard\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("auto", "here:1", None, None), "leave out --coordinator"),
        (("off", "here:1", 2, None), "belong together: give all three"),
        (("off", None, 2, 1), "belong together"),
        (("off", "here:1", 2, 2), "--process 2 of --processes 2: there is no such process"),
    ],
)
def test_a_place_that_is_not_clear(arguments, message):
    with pytest.raises(GlpiError, match=message):
        processes.start(*arguments)


def test_alone_nothing_is_started(monkeypatch):
    monkeypatch.setattr(processes.jax.distributed, "initialize", None)
    processes.start("off", None, None, None)


def test_auto_needs_a_cluster(monkeypatch):
    def nothing_found(*_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes.jax.distributed, "initialize", nothing_found)
    with pytest.raises(GlpiError, match="this is no TPU pod, Slurm or Open MPI job"):
        processes.start("auto", None, None, None)
