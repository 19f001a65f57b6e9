"""local.sh: its command lines, and real processes that finish, stop, crash and hang."""

import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Waits for SIGTERM and then says so, as a job that saves would.
WAIT = "trap 'echo saved; exit 75' TERM; echo waiting; while :; do sleep 0.05; done"


@pytest.fixture
def stand_in(tmp_path):
    """Write the program that is run: shell code in which $process is the process's number."""

    def write(code: str) -> tuple[str, ...]:
        path = tmp_path / "job"
        path.write_text(f"#!/bin/bash\nprocess=${{!#}}\necho start\n{code}\n")
        path.chmod(0o755)
        return ("--processes", "2", "--cpu-devices", "1", "--command", str(path))

    return write


def log(tmp_path: Path, index: int) -> list[str]:
    return (tmp_path / f"here/runs/logs/process_{index}.log").read_text().splitlines()


def logs(tmp_path: Path) -> list[list[str]]:
    return [log(tmp_path, index) for index in (0, 1)]


def test_dry_run_shares_gpus(dry):
    job = ("--", "train", "--config", "my config.py", "--workdir", "it's")
    common = (
        r"glpi train --config 'my config.py' --workdir 'it'\''s'"
        " --coordinator 127.0.0.1:7000 --processes 2"
    )
    assert dry("local.sh", "--processes=2", "--gpus", "0,1,5,6", "--port", "7000", *job) == [
        "mkdir -p runs/logs",
        f"env CUDA_VISIBLE_DEVICES=0,1 {common} --process 0 >>runs/logs/process_0.log 2>&1 &",
        f"env CUDA_VISIBLE_DEVICES=5,6 {common} --process 1 >>runs/logs/process_1.log 2>&1 &",
        "wait",
    ]


def test_dry_run_makes_cpu_devices(dry):
    lines = dry("local.sh", "--processes", "2", "--cpu-devices", "4", "--", "train", XLA_FLAGS="-x")
    flags = "'XLA_FLAGS=-x --xla_force_host_platform_device_count=4'"
    assert [line.split(" glpi ")[0] for line in lines[1:3]] == [
        f"env JAX_PLATFORMS=cpu {flags}"
    ] * 2


def test_dry_run_of_one_process_is_the_plain_command(dry):
    assert dry("local.sh", "--logs", "my logs", "--", "train", "--workdir", "w") == [
        "mkdir -p 'my logs'",
        "glpi train --workdir w >>'my logs/process_0.log' 2>&1 &",
        "wait",
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--processes", "0"], "--processes 0: must be a whole number, 1 or more"),
        (["--processes", "two"], "--processes two: must be"),
        (["--processes", "2"], "--gpus or --cpu-devices"),
        (["--processes", "2", "--gpus", "0,1,2"], "3 do not share out evenly over 2"),
        (["--gpus", "0,,1"], "must be like 0,1,2,3"),
        (["--gpus", "0", "--cpu-devices", "1"], "exclude each other"),
        (["--cpu-devices", "x"], "--cpu-devices x: must be"),
        (["--restarts", "-1"], "--restarts -1: must be a whole number, 0 or more"),
        (["--port"], "--port needs a value"),
        (["--command="], "--command is missing"),
    ],
)
def test_bad_arguments(words, problem, launch):
    done = launch("local.sh", *words, *(["--", "train"] if words != ["--port"] else []))
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_all_finish(launch, stand_in, tmp_path):
    job = stand_in('echo "$*"; echo "$JAX_PLATFORMS $XLA_FLAGS"; printf last')
    done = launch("local.sh", *job, "--", "train", "--workdir", "a b")
    assert done.returncode == 0
    for index, lines in enumerate(logs(tmp_path)):
        assert lines == [
            "start",
            f"train --workdir a b --coordinator 127.0.0.1:12321 --processes 2 --process {index}",
            "cpu --xla_force_host_platform_device_count=1",
            "last",
        ]
        assert [line for line in done.stdout.splitlines() if line.startswith(f"[{index}] ")] == [
            f"[{index}] {line}" for line in lines
        ]


def test_a_saved_job_is_started_again(launch, stand_in, tmp_path):
    # Process 1 is stopped at the first start; process 0 waits for it then, and is told to stop.
    job = stand_in(
        "[[ ! -e again ]] || exit 0\n"
        f"((process == 1)) || {{ {WAIT}; }}\n"
        "until grep -qs waiting runs/logs/process_0.log; do sleep 0.05; done; touch again; exit 75"
    )
    done = launch("local.sh", *job, "--", "train")
    assert done.returncode == 0
    assert logs(tmp_path) == [["start", "waiting", "saved", "start"], ["start", "start"]]


def test_a_crash_ends_the_others(launch, stand_in, tmp_path):
    job = stand_in(
        f"((process == 0)) || {{ {WAIT}; }}\n"
        "until grep -qs waiting runs/logs/process_1.log; do sleep 0.05; done; exit 3"
    )
    done = launch("local.sh", *job, "--", "train")
    assert done.returncode == 3  # not the 75 of the other
    assert logs(tmp_path) == [["start"], ["start", "waiting", "saved"]]


def test_a_process_that_hangs_is_killed(launch, stand_in, tmp_path):
    job = stand_in(
        "((process == 0)) || { trap '' TERM; echo waiting; while :; do sleep 0.05; done; }\n"
        "until grep -qs waiting runs/logs/process_1.log; do sleep 0.05; done; exit 4"
    )
    done = launch("local.sh", *job, "--grace", "0", "--", "train")
    assert done.returncode == 4
    assert "process 1 ended with code 137" in done.stderr


def test_restarts_are_bounded(launch, stand_in, tmp_path):
    job = (*stand_in("exit 5"), "--processes", "1")
    done = launch("local.sh", *job, "--restarts", "1", "--", "train")
    assert done.returncode == 5
    assert log(tmp_path, 0) == ["start", "start"]


def test_bad_input_is_not_started_again(launch, stand_in, tmp_path):
    job = (*stand_in("exit 2"), "--processes", "1")
    done = launch("local.sh", *job, "--restarts", "9", "--", "train")
    assert done.returncode == 2
    assert log(tmp_path, 0) == ["start"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all(number, stand_in, tmp_path):
    job = stand_in(WAIT)
    here = tmp_path / "here"
    here.mkdir()
    process = subprocess.Popen(
        # A shell that runs the tests in its background has told them to ignore SIGINT.
        ["env", "--default-signal", ROOT / "launch/local.sh", *job, "--", "train"],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    waiting = 0
    while waiting < 2:
        waiting += "waiting" in process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert logs(tmp_path) == [["start", "waiting", "saved"]] * 2
