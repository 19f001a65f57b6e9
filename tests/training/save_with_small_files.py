"""Saves a state where no file can grow beyond some bytes; run by test_checkpoint.py."""

import os
import resource
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax.numpy as jnp
import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.training.checkpoint import ResumeCheckpoints
from glpi_jax.training.state import TrainState


def state(step: int, size: int) -> TrainState:
    random = np.random.default_rng(0).normal(size=size)  # compression makes it no smaller
    return TrainState(
        step=jnp.int32(step),
        params={"bias": jnp.asarray(random, jnp.float32)},
        batch_stats={},
        opt_state={},
        dropout_key=jnp.zeros(2, jnp.uint32),
    )


def main() -> None:
    workdir = Path(sys.argv[1])
    checkpoints = ResumeCheckpoints(workdir)
    checkpoints.save(state(2, 10), {})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    checkpoints.save(state(5, 100_000), {})
    try:
        checkpoints.wait()
    except GlpiError as error:
        print(error)
    checkpoints.close()
    checkpoints = ResumeCheckpoints(workdir)  # clears what a late write has left
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["2"]
    assert checkpoints.latest_step == 2
    checkpoints.save(state(5, 10), {})
    checkpoints.close()
    assert checkpoints.latest_step == 5


main()
