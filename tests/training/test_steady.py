"""A run compiles in its first two steps alone, traces what it is asked to, and stays small.

`benchmarks/steady.py` takes 2,000 steps.
"""

import os
import resource
from pathlib import Path

import jax
import pytest

from glpi_jax.cli.main import main
from glpi_jax.training import loop

STEPS = 40
COMPILED = "/jax/core/compile/backend_compile_duration"


def resident_bytes():
    """Resident memory of this process; its peak where the system tells no more."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def watched(plan_run, shared_compilations, tmp_path_factory):
    """A run of forty steps: its workdir, and after each step the compilations so far and memory."""
    workdir = tmp_path_factory.mktemp("steady") / "workdir"
    compilations, seen, memory = [], [], []

    def count(event, duration, **_):
        if event == COMPILED:
            compilations.append(duration)

    original = loop.compile_train_step

    def watched_step(*args, **kwargs):
        step = original(*args, **kwargs)

        def counting(state, batch):
            result = step(state, batch)
            seen.append(len(compilations))
            memory.append(resident_bytes())
            return result

        return counting

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "compile_train_step", watched_step)
            overrides = [
                "--config.train.epochs=10",
                "--config.train.checkpoint_every_steps=1000",
                "--config.evaluation.every_epochs=10",
                "--config.evaluation.select=last",
            ]
            train = ["train", "--profile", "--workdir", str(workdir)]
            assert main([*train, *plan_run.config, *overrides]) == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    return workdir, seen, memory


def test_nothing_is_compiled_after_the_second_step(watched):
    _, seen, _ = watched
    assert len(seen) == STEPS
    assert seen[0] > 0
    assert seen[1:] == [seen[1]] * (STEPS - 1)


def test_memory_stays(watched):
    """Forty states of this model would be 170 MB; the profile's buffers are filled by step 9."""
    _, _, memory = watched
    assert memory[-1] - memory[12] < 40e6


def test_the_profile_holds_a_trace_of_the_steps(watched):
    workdir, _, _ = watched
    (trace,) = (workdir / "profile").rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_serialized_xspace(trace.read_bytes())
    names = {event.name for plane in data.planes for line in plane.lines for event in line.events}
    assert any("train" in name for name in names)
