"""Run by test_data_parallel.py in a process with 8 devices: one step on 1 and on 8 of them."""

import json
import sys

import jax
import numpy as np
import optax
from flax import traverse_util

from glpi_jax.models.glpi import build
from glpi_jax.training.sharding import make_mesh, to_devices
from glpi_jax.training.state import create_state
from glpi_jax.training.step import compile_train_step

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")


def run(devices: int) -> dict[str, np.ndarray]:
    """Everything that one step yields; SGD, so that parameters show the gradients as they are."""
    mesh = make_mesh(devices)
    model = build("glpi_demo", dropout=0.5)
    shape = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64, 3))))
    paths = traverse_util.flatten_dict(shape["params"], sep="/")
    multipliers = dict.fromkeys(paths, 1.0)
    optimizer = optax.sgd(0.1)
    state = create_state(model, optimizer, multipliers, seed=0, mesh=mesh)
    step = compile_train_step(model, optimizer, multipliers, mesh)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (16, 64, 64, 3), np.uint8),
        "score": rng.uniform(1, 5, 16).astype(np.float32),
    }
    state, metrics = step(state, to_devices(batch, mesh))
    assert len(metrics["loss"].sharding.device_set) == devices
    flat = traverse_util.flatten_dict(state.variables, sep="/")
    results = {"loss": metrics["loss"], "predictions": metrics["predictions"], **flat}
    return {name: np.asarray(value) for name, value in results.items()}


one, eight = run(1), run(8)
json.dump(
    {
        name: [float(np.abs(one[name] - eight[name]).max()), float(np.abs(one[name]).max())]
        for name in one
    },
    sys.stdout,
)
