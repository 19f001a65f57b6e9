"""The batch scripts for Slurm: their commands, and the way back into the queue."""

import re
import shutil
from pathlib import Path

import pytest

from glpi_jax.core.config import load_config
from glpi_jax.workflow.benchmark import round_folder, round_of

ROOT = Path(__file__).parents[2]
SCRIPTS = ("slurm/one_node.sh", "slurm/many_nodes.sh", "slurm/rounds.sh")
JOB = ("--", "train", "--config", "my config.py", "--workdir", "runs/a")
REQUEUE = ["# if that exits with code 75", 'scontrol requeue "$SLURM_JOB_ID"']


def batch_options(script: str) -> dict[str, str]:
    text = (ROOT / "launch" / script).read_text()
    # sbatch reads no further than to the first command.
    head = text[: text.index("\nset -euo")]
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", head, re.MULTILINE))


@pytest.mark.parametrize("script", SCRIPTS)
def test_jobs_are_warned_and_can_be_requeued(script):
    options = batch_options(script)
    # Without "B:": to glpi, not to the script, which sees the exit code and requeues.
    assert options["signal"] == "TERM@180"
    assert {"requeue", "time"} <= options.keys()
    assert options["open-mode"] == "append"


def test_one_node(dry):
    assert batch_options("slurm/one_node.sh")["ntasks"] == "1"
    assert dry("slurm/one_node.sh", *JOB) == [
        "srun --cpus-per-task=8 --ntasks=1 glpi train --config 'my config.py' --workdir runs/a"
        " --distributed off",
        *REQUEUE,
    ]
    lines = dry("slurm/one_node.sh", "--command=my venv/glpi", *JOB, SLURM_CPUS_PER_TASK="3")
    assert lines[0].startswith("srun --cpus-per-task=3 --ntasks=1 'my venv/glpi' train ")


def test_many_nodes(dry):
    options = batch_options("slurm/many_nodes.sh")
    assert options["ntasks-per-node"] == options["gpus-per-node"] == "8"
    assert dry("slurm/many_nodes.sh", *JOB) == [
        "srun --cpus-per-task=8 --gpu-bind=none --kill-on-bad-exit=1 glpi train"
        " --config 'my config.py' --workdir runs/a --distributed auto",
        *REQUEUE,
    ]


@pytest.mark.parametrize(("gpus", "tasks", "fits"), [("h100:4", "4", True), ("8", "4", False)])
def test_many_nodes_needs_a_process_for_each_gpu(gpus, tasks, fits, launch):
    variables = {"SLURM_GPUS_PER_NODE": gpus, "SLURM_NTASKS_PER_NODE": tasks}
    done = launch("slurm/many_nodes.sh", "--dry-run", *JOB, **variables)
    assert done.returncode == (0 if fits else 2)
    assert ("must be as many" in done.stderr) is not fits


@pytest.mark.parametrize("number", [1, 10])
def test_rounds_are_those_of_the_benchmark(number, dry):
    config = str(ROOT / "configs/demo.py")
    base = load_config(config, ["--config.seed=7"])
    expected = round_of(base, number)
    words = ("--workdir", "runs/a b", "--seed", "7", "--", "--config", "demo.py")
    lines = dry("slurm/rounds.sh", *words, SLURM_ARRAY_TASK_ID=str(number))
    assert lines == [
        "srun --cpus-per-task=8 --ntasks=1 glpi train --config demo.py"
        f" --workdir 'runs/a b/{round_folder(number)}'"
        f" --config.split.round={expected.split.round} --config.seed={expected.seed}"
        " --distributed off",
        *REQUEUE,
    ]


@pytest.mark.parametrize(
    ("script", "words", "problem"),
    [
        ("slurm/rounds.sh", ["--", "--config", "f"], "--workdir is missing"),
        ("slurm/rounds.sh", ["--workdir=w", "--seed=x", "--", "a"], "--seed x: must be"),
        ("slurm/one_node.sh", ["--command=", "--", "a"], "--command is missing"),
        ("slurm/one_node.sh", [*JOB], "is submitted with sbatch"),
    ],
)
def test_bad_arguments(script, words, problem, launch, tmp_path):
    done = launch(script, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (2, False), (137, False)])
def test_only_saved_jobs_are_requeued(code, requeued, launch, write_tool, tmp_path):
    write_tool("srun", f"exit {code}")
    write_tool("scontrol", "exit 0")
    # As Slurm does it: a copy of the script, away from the others.
    script = tmp_path / "slurm_script"
    shutil.copy(ROOT / "launch/slurm/one_node.sh", script)
    variables = {"SLURM_JOB_ID": "41", "SLURM_SUBMIT_DIR": str(ROOT)}
    done = launch(script, "--", "train", **variables)
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "srun --cpus-per-task=8 --ntasks=1 glpi train --distributed off"
    assert calls[1:] == (["scontrol requeue 41"] if requeued else [])
