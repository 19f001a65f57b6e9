"""A workdir is one training's at a time, and of nothing else."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys

import pytest

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.workflow.workdir import LOCK_FILE, kept_to_one_training

HOLD = """
import sys, time
from pathlib import Path
from glpi_jax.workflow.workdir import kept_to_one_training
with kept_to_one_training(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def train(workdir, run):
    return main(["train", "--workdir", str(workdir), *run.config])


def test_a_second_training_is_refused_before_it_writes_anything(trained, tmp_path, capsys):
    workdir = shutil.copytree(trained.workdir, tmp_path / "copy")
    contents = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    with kept_to_one_training(workdir):
        assert train(workdir, trained) == 2
    error = capsys.readouterr().err
    assert f"glpi: error: {workdir}: another process is training in this workdir" in error
    assert "another --workdir" in error
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == contents
    assert train(workdir, trained) == 0


def test_a_new_workdir_that_another_is_beginning(plan_run, tmp_path, capsys):
    with kept_to_one_training(tmp_path):
        assert train(tmp_path, plan_run) == 2
    assert "another process is training" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_the_lock_ends_with_a_killed_process(tmp_path, shared_compilations):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=shared_compilations) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(GlpiError, match="another process"), kept_to_one_training(tmp_path):
                pass
        finally:
            process.send_signal(signal.SIGKILL)
    with kept_to_one_training(tmp_path):
        pass


def test_an_error_inside_gives_the_lock_back(tmp_path):
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KeyboardInterrupt), kept_to_one_training(tmp_path):
        raise KeyboardInterrupt
    with kept_to_one_training(tmp_path):
        pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("place", [(fcntl, "flock"), (os, "open")])
def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch, place):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with monkeypatch.context() as patch:
        patch.setattr(*place, refuse)
        with kept_to_one_training(tmp_path), kept_to_one_training(tmp_path):
            pass


def test_other_errors_of_the_lock_are_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        with pytest.raises(OSError, match="Input/output"), kept_to_one_training(tmp_path):
            pass


@pytest.mark.parametrize("folder", ["checkpoints", "best"])
def test_checkpoints_of_another_program_are_left_alone(plan_run, tmp_path, folder, capsys):
    """Numbered folders without a seal look like what a killed save has left."""
    other = tmp_path / folder / "1000" / "state.msgpack"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"weights")
    assert train(tmp_path, plan_run) == 2
    error = capsys.readouterr().err
    assert f"glpi: error: {tmp_path / folder}: holds something, but" in error
    assert other.read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == [folder]
