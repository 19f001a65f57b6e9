# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One program, many devices
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/glpi-jax/glpi_jax/blob/v0.1.0/colab/05_many_devices.ipynb)
#
# In a few minutes you get
#
# - a *mesh*: devices in a grid with named axes,
# - pictures of how batches and parameters lie on it,
# - **FSDP** (fully sharded data parallelism): each device holds a part of the parameters,
# - the same training on every mesh, with the same losses.
#
# No cluster is needed. Where there is no accelerator, JAX pretends that the CPU is eight devices:
# the programs, shardings and results are those of eight real ones. The speed is not.

# %% tags=["install"] cellView="form"
# @title Install glpi_jax (skipped where it is there already)
import glob
import importlib.util
import shutil
import subprocess
import sys

if importlib.util.find_spec("glpi_jax") is None:
    tpu = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    jax = "jax[cuda12]" if shutil.which("nvidia-smi") else "jax[tpu]" if tpu else "jax"
    glpi_jax = "glpi_jax[demo] @ git+https://github.com/glpi-jax/glpi_jax@v0.1.0"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", glpi_jax, jax], check=True)

# %% tags=["parameters"]
short = False  # @param {type:"boolean"}
steps = 10  # @param {type:"integer"}
simulate = False  # @param {type:"boolean"}

# %% [markdown]
# `simulate` uses eight CPU devices though there is an accelerator: a Colab GPU runtime has only
# one.
#
# ## Eight devices
#
# This has to be said before JAX is imported for the first time. (If you have run the cell with
# another choice: restart the runtime.)

# %%
import os

flags = os.environ.get("XLA_FLAGS", "")
flags += " --xla_force_host_platform_device_count=8"  # concerns the CPU alone
os.environ["XLA_FLAGS"] = flags
if simulate:
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from IPython.display import Markdown, display

print(f"{jax.device_count()} devices: {jax.devices()[0].device_kind}")

# %% [markdown]
# ## A mesh
#
# `glpi_jax.distributed.mesh` is the one place of the package that names the axes:
#
# - `data`: devices that share a batch, each with all parameters,
# - `fsdp`: devices that share a batch and split the parameters as well,
# - `round`: groups of devices that train rounds of a benchmark of their own.

# %%
from glpi_jax.distributed.mesh import make_mesh

count = jax.device_count()
meshes = {"one device": make_mesh(1)}
if count > 1 and not short:
    meshes[f"data {count}"] = make_mesh(count)
    meshes[f"fsdp {count}"] = make_mesh(1, fsdp=count)
if count % 2 == 0:
    meshes[f"data {count // 2} × fsdp 2"] = make_mesh(count // 2, fsdp=2)
for name, mesh in meshes.items():
    print(f"{name:20} {dict(mesh.shape)}")

# %% [markdown]
# ## How a batch lies on it
#
# A batch is split along its first axis. Here is one of 16 labels, and one of 16 pictures seen from
# the side (pictures down, values across):

# %%
from glpi_jax.distributed.mesh import to_devices

rng = np.random.default_rng(0)
widest = meshes[list(meshes)[-1]]
batch = to_devices({"score": np.zeros(16), "side": np.zeros((16, 8))}, widest)
jax.debug.visualize_array_sharding(batch["score"])
jax.debug.visualize_array_sharding(batch["side"])

# %% [markdown]
# ## The same training on every mesh
#
# A step is one function, written as if there were one device. `jax.jit` gets the shardings of
# what goes in and comes out, and XLA adds the communication: a sum of gradients for `data`, and
# for `fsdp` also the gathering of parameters before they are used.

# %%
import functools

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.training.loop import make_recipe
from glpi_jax.training.state import create_state, init_variables, key_of
from glpi_jax.training.step import compile_train_step
from glpi_jax.workflow.model import model_of

config = load_config(shipped_config("demo"))
model = model_of(config)
# Random weights, drawn once: every mesh starts from the same.
start = jax.device_get(jax.jit(functools.partial(init_variables, model))(key_of(config.seed)))
crop, size, steps = model.size.crop, 16, 3 if short else steps
batches = [
    {
        "image": rng.integers(0, 256, (size, crop, crop, 3), np.uint8),
        "score": rng.uniform(1, 5, size).astype(np.float32),
        "example": np.arange(size, dtype=np.int32),
    }
    for _ in range(steps)
]


def train_on(mesh):
    """The state and the losses after all batches."""
    recipe = make_recipe(config, model, mesh)
    parts = (model, recipe.optimizer, recipe.multipliers)
    rules = config.mesh.fsdp_rules
    state = create_state(*parts, seed=0, mesh=mesh, fsdp_rules=rules, variables=start)
    step = compile_train_step(*parts, mesh, loss=recipe.loss, fsdp_rules=rules)
    losses = []
    for rows in batches:
        state, metrics = step(state, to_devices(rows, mesh))
        losses.append(float(metrics["loss"]))
    return state, losses


# Products of matrices in full float32, also on a TPU, so that the losses can be compared.
with jax.default_matmul_precision("highest"):
    trained = {name: train_on(mesh) for name, mesh in meshes.items()}

# %%
rows = ["| step | " + " | ".join(meshes) + " |", "|---" * (len(meshes) + 1) + "|"]
for number in range(steps):
    losses = " | ".join(f"{losses[number]:.6f}" for _, losses in trained.values())
    rows.append(f"| {number + 1} | {losses} |")
display(Markdown("\n".join(rows)))

first = np.array(next(iter(trained.values()))[1])
apart = max(np.abs(np.array(losses) / first - 1).max() for _, losses in trained.values())
print(f"largest relative difference of a loss between meshes: {apart:.1e}")
assert apart < 1e-3
print("equal losses on every mesh, up to float32's rounding")

# %% [markdown]
# The last digits differ: a sum over eight devices adds in another order than a sum on one, and
# rounding differs with it.
#
# ## Where the parameters are
#
# One matrix of the ViT on each mesh. A block with several numbers is held by each of these devices.

# %%
for name, (state, _) in trained.items():
    kernel = state.params["vgfe"]["blocks_0"]["mlp"]["fc1"]["kernel"]
    print(f"{name}: {kernel.shape}")
    jax.debug.visualize_array_sharding(kernel)

# %% [markdown]
# ## What a device has to hold
#
# Parameters and Adam's two moments, in bytes of one device. What is small (biases, scales) stays
# whole; so does what no axis of divides evenly.

# %%
rows = ["| mesh | KiB on a device | of one device |", "|---|---|---|"]
held = {
    name: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    for name, (state, _) in trained.items()
}
for name, size in held.items():
    rows.append(f"| {name} | {size / 1024:.0f} | {size / next(iter(held.values())):.0%} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## In a config
#
# ```bash
# glpi train --config configs/demo.py --workdir runs/mine --config.mesh.data=-1 --config.mesh.fsdp=2
# ```
#
# A run may go on with another mesh, on other devices. `config.train.accumulation` and
# `config.train.remat` trade time for memory on any of them.
