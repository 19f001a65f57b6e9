"""Run by test_topologies.py: ten steps of one batch order on devices and processes of its choice.

The argument is JSON: `mesh` for `make_mesh`, what `compile_train_step` and `build` take besides,
`checkpoint` (a workdir to save to or restore from) with `save_at` or `restore`, and `processes`,
`process` and `port` of several. Process 0 prints a line of JSON: losses, norms of the gradients,
predictions of the last step, and how many bytes of the state one device holds.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from configs.base import get_config
from glpi_jax.distributed.mesh import make_mesh, to_devices
from glpi_jax.models.glpi import Remat, build
from glpi_jax.training.checkpoint import ResumeCheckpoints
from glpi_jax.training.loss import l1
from glpi_jax.training.optimizer import cosine_schedule, learning_rate_multipliers, make_optimizer
from glpi_jax.training.state import abstract_state, create_state
from glpi_jax.training.step import compile_train_step

jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
STEPS, BATCH = 10, 16


def batch_of(step, crop):
    """This process's rows of a step's batch."""
    rng = np.random.default_rng(step)
    batch = {
        "image": rng.integers(0, 256, (BATCH, crop, crop, 3), np.uint8),
        "score": rng.uniform(1, 5, BATCH).astype(np.float32),
        "example": np.arange(BATCH, dtype=np.int32),
    }
    return {key: x[jax.process_index() :: jax.process_count()] for key, x in batch.items()}


def main(told):
    if "processes" in told:
        address = f"127.0.0.1:{told['port']}"
        jax.distributed.initialize(address, told["processes"], told["process"])
    mesh = make_mesh(**told.get("mesh", {}))
    rules = get_config().mesh.fsdp_rules
    model = build(
        "glpi_demo",
        dropout=0.5,
        dtype=told.get("dtype", "float32"),
        attention=told.get("attention", "matmul"),
        remat=Remat(**told.get("remat", {})),
    )
    shape = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64, 3))))
    paths = list(traverse_util.flatten_dict(shape["params"], sep="/"))
    # The official rules: with frozen parameters.
    frozen = ((r"vgfe/patch_embed/.*", None), (r"clfe/backbone/conv1/.*", None), (r".*", 1.0))
    multipliers = learning_rate_multipliers(paths, frozen)
    optimizer = make_optimizer(get_config().optimizer, cosine_schedule(1e-4, 30, 0), multipliers)
    placement = {"mesh": mesh, "fsdp_rules": rules}
    step = compile_train_step(
        model,
        optimizer,
        multipliers,
        mesh,
        loss=l1,
        fsdp_rules=rules,
        accumulation=told.get("accumulation", 1),
    )
    checkpoints = ResumeCheckpoints(Path(told["checkpoint"])) if "checkpoint" in told else None
    if told.get("restore"):
        target = abstract_state(model, optimizer, multipliers, **placement)
        state, _ = checkpoints.restore(target)
    else:
        state = create_state(model, optimizer, multipliers, seed=0, **placement)
    found = {"losses": [], "grad_norms": [], "steps": []}
    while (number := int(state.step)) < STEPS:
        batch = to_devices(batch_of(number, model.size.crop), mesh)
        state, metrics = step(state, batch)
        found["steps"].append(number)
        found["losses"].append(float(metrics["loss"]))
        found["grad_norms"].append(float(metrics["grad_norm"]))
        if int(state.step) == told.get("save_at"):
            checkpoints.save(state, {})
    if checkpoints:
        checkpoints.close()
    # In the order of one process: each has every n-th row.
    order = np.arange(BATCH).reshape(-1, jax.process_count()).T.ravel()
    predictions = np.empty(BATCH)
    predictions[order] = np.asarray(metrics["predictions"])
    found["predictions"] = predictions.tolist()
    found["devices"] = mesh.size
    found["bytes_of_a_device"] = sum(
        x.addressable_shards[0].data.nbytes
        for x in jax.tree.leaves((state.params, state.opt_state))
    )
    if jax.process_index() == 0:
        print(json.dumps(found))


main(json.loads(sys.argv[1]))
