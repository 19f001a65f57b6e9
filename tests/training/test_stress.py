"""Runs that are killed at random moments end bit for bit where undisturbed ones do.

Twenty times SIGKILL, of all processes or of one of two, and ten times SIGTERM; many of them inside
a save. One process and two are tested alike, each against undisturbed runs of as many.
"""

import csv
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from own_process import free_port, with_devices

from glpi_jax.cli.common import EXIT_AGAIN

pytestmark = pytest.mark.stress

EPOCHS = 30  # of four steps
OVERRIDES = (
    f"--config.train.epochs={EPOCHS}",
    "--config.train.checkpoint_every_steps=3",
    "--config.evaluation.every_epochs=5",
    "--config.evaluation.bootstrap_resamples=0",
)
LAUNCHER_GRACE = 3  # seconds from SIGTERM to SIGKILL for those that a failed one leaves behind


class Blow(NamedTuple):
    """What hits a run, and when: after so many steps and milliseconds, or inside the next save."""

    signal: signal.Signals
    inside_save: bool
    steps: int
    milliseconds: float
    all_processes: bool


def blows_of(processes):
    """In random order; every second one inside a save, every second SIGKILL for all processes.

    Two processes, of which JAX compiles the second anew every time, get the smaller part.
    """
    rng = random.Random(processes)
    kills, terminations = {1: (14, 8), 2: (6, 2)}[processes]
    kinds = [(signal.SIGKILL, i % 2 == 0, i // 2 % 2 == 0) for i in range(kills)]
    kinds += [(signal.SIGTERM, i % 2 == 0, False) for i in range(terminations)]
    rng.shuffle(kinds)
    return [
        Blow(number, inside, rng.randrange(5), rng.uniform(0, 60), together)
        for number, inside, together in kinds
    ]


def start(trained, environment, workdir, processes):
    """All processes of a run, with two devices in all."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "glpi_jax", "train", "--workdir", workdir]
    command += [*trained.config, *OVERRIDES]
    place = ("--coordinator", address, "--processes", str(processes), "--process")
    return [
        subprocess.Popen(
            [*command, *((*place, str(number)) if processes > 1 else ())],
            env=with_devices(environment, 2 // processes),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]


def steps_written(workdir):
    """The last whole row's step in metrics.csv; 0 if there is none."""
    try:
        lines = (workdir / "metrics.csv").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    whole = [line for line in lines[1:] if line.endswith("\n")]
    return int(whole[-1].split(",")[0]) if whole else 0


def saves_under_way(workdir):
    """Temporary folders of Orbax, and steps without a seal."""
    for folder in (*workdir.glob("checkpoints/*"), *workdir.glob("best/*")):
        if not (folder / "files.json").is_file() and folder.is_dir():
            yield folder


def finished_step(workdir):
    return max((int(f.parent.name) for f in workdir.glob("checkpoints/*/files.json")), default=0)


def wait_for(condition, running):
    """Poll often: a save takes a few hundredths of a second. False if a process ends before."""
    for count in itertools.count():
        if condition():
            return True
        if count % 100 == 0 and any(process.poll() is not None for process in running):
            return False
        time.sleep(0.002)


def metrics_file(workdir):
    """Which file metrics.csv is: a run that goes on replaces it."""
    path = workdir / "metrics.csv"
    return path.stat().st_ino if path.exists() else None


def hit(blow, rng, running, workdir, metrics_before):
    """Wait for the moment; returns who was hit, or None if the run ended before."""
    begun = finished_step(workdir)

    def taken_enough_steps():
        fresh = metrics_file(workdir) != metrics_before
        return fresh and steps_written(workdir) > begun + blow.steps

    if not wait_for(taken_enough_steps, running):
        return None
    if blow.inside_save:
        if not wait_for(lambda: any(saves_under_way(workdir)), running):
            return None
    else:
        time.sleep(blow.milliseconds / 1000)
    targets = running if blow.all_processes else [rng.choice(running)]
    for process in targets:
        process.send_signal(blow.signal)
    return targets


def arrays_of(folder):
    """A saved tree as NumPy arrays, wherever it was saved."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=as_numpy))


def end_of(workdir):
    """All that two runs must have in common: bits of every array, selection, metrics, results."""
    found = {}
    for folder in (*workdir.glob("checkpoints/*/state"), *workdir.glob("best/*/variables")):
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays_of(folder)):
            name = folder.relative_to(workdir).as_posix() + jax.tree_util.keystr(path)
            found[name] = (np.asarray(leaf).dtype, np.asarray(leaf).tobytes())
    for path in (
        *workdir.glob("checkpoints/*/data/metadata"),
        *workdir.glob("best/*/selection/metadata"),
    ):
        found[path.relative_to(workdir).as_posix()] = path.read_text()
    rows = csv.reader((workdir / "metrics.csv").read_text().splitlines())
    found["metrics.csv"] = [row for row in rows if row[2] != "train/images_per_second"]
    results = json.loads((workdir / "results.json").read_text())
    found |= {key: results[key] for key in ("parts", "selection", "split")}
    return found


def run_to_the_end(trained, environment, workdir, processes):
    running = start(trained, environment, workdir, processes)
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, errors


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_again_and_again_a_run_ends_with_the_same_bits(
    plan_run, shared_compilations, tmp_path, processes
):
    run_to_the_end(plan_run, shared_compilations, tmp_path / "undisturbed", processes)
    workdir = tmp_path / "disturbed"
    rng = random.Random(0)
    inside = 0
    for blow in blows_of(processes):
        before = metrics_file(workdir)
        running = start(plan_run, shared_compilations, workdir, processes)
        targets = hit(blow, rng, running, workdir, before)
        if blow.signal == signal.SIGKILL:
            for process in targets or ():
                process.wait()
            inside += any(saves_under_way(workdir))
            if targets and len(targets) < processes:  # as launch/local.sh ends the others
                for process in running:
                    process.terminate()
                    try:
                        process.wait(LAUNCHER_GRACE)
                    except subprocess.TimeoutExpired:
                        process.kill()
        errors = [process.communicate()[1] for process in running]
        assert targets is not None, errors
        if blow.signal == signal.SIGKILL:
            assert {process.returncode for process in targets} == {-signal.SIGKILL}, errors
        else:
            assert [process.returncode for process in running] == [EXIT_AGAIN] * processes, errors
            assert finished_step(workdir) == steps_written(workdir)
            assert list(saves_under_way(workdir)) == []
        for error in errors:
            assert "warning: " not in error  # nothing is damaged by a kill
    assert inside >= 2  # that many kills have left half a checkpoint
    run_to_the_end(plan_run, shared_compilations, workdir, processes)
    found, expected = end_of(workdir), end_of(tmp_path / "undisturbed")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert f"checkpoints/{4 * EPOCHS}/state['opt_state']" in " ".join(found)
