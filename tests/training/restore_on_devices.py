"""Saves, or restores and checks, arrays that all devices share; run by test_checkpoint.py."""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from glpi_jax.distributed.mesh import DATA_AXIS, make_mesh
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.state import TrainState

# Sharded along the first axis, along the second, and not at all.
SPECS = {
    "first": PartitionSpec(DATA_AXIS),
    "second": PartitionSpec(None, DATA_AXIS),
    "whole": PartitionSpec(),
}
SELECTION = {"step": 7, "epoch": 1, "criterion": "a test's", "value": 0.5}


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(16, 24)).astype(np.float32) for name in SPECS}


def main() -> None:
    mode, workdir = sys.argv[1], Path(sys.argv[2])
    mesh = make_mesh(-1)
    replicated = NamedSharding(mesh, PartitionSpec())
    params = {
        name: jax.device_put(value, NamedSharding(mesh, SPECS[name]))
        for name, value in arrays().items()
    }
    state = TrainState(
        step=jax.device_put(np.int32(7), replicated),
        params=params,
        batch_stats={},
        opt_state={"count": jax.device_put(np.int32(3), replicated)},
        dropout_key=jax.device_put(np.array([4, 5], np.uint32), replicated),
    )
    if mode == "save":
        assert len(jax.devices()) == 8
        checkpoints, best = ResumeCheckpoints(workdir), BestCheckpoint(workdir, read_only=False)
        checkpoints.save(state, {"next_index": 7})
        checkpoints.wait()
        best.save(params, SELECTION)
    else:
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        checkpoints, best = ResumeCheckpoints(workdir), BestCheckpoint(workdir, read_only=True)
        restored, data = checkpoints.restore(target)
        assert data == {"next_index": 7}
        variables, selection = best.restore(target.params)
        assert selection == SELECTION
        jax.tree.map(check, (restored, variables), (state, params))
    checkpoints.close()
    best.close()


def check(array: jax.Array, expected: jax.Array) -> None:
    np.testing.assert_array_equal(array, expected)
    assert array.sharding == expected.sharding
    assert array.dtype == expected.dtype


main()
