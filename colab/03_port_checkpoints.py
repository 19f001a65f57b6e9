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
# # PyTorch checkpoints, both ways
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/glpi-jax/glpi_jax/blob/v0.1.0/colab/03_port_checkpoints.ipynb)
#
# In a few minutes you get
#
# - an official PyTorch checkpoint as a JAX model that scores photographs,
# - the way back: a `.pth` file from a JAX run, **bit-equal** to the one you began with,
# - the table of names between the two.
#
# Give the authors' file by its path or URL. Without one, the notebook writes a small model with
# random weights under the official names, and takes that file for the official one. Its scores mean
# nothing, but every step is that of a trained checkpoint.

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
    glpi_jax = "glpi_jax[demo,torch] @ git+https://github.com/glpi-jax/glpi_jax@v0.1.0"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", glpi_jax, jax], check=True)

# %% tags=["parameters"]
short = False  # @param {type:"boolean"}
checkpoint = ""  # @param {type:"string"}
upload = False  # @param {type:"boolean"}
torch_repo = ""  # @param {type:"string"}

# %% [markdown]
# `checkpoint` is a path or URL of a `.pth` or `.safetensors` file; `upload` asks for one (in
# Colab). `torch_repo` is a clone of the authors' code: with it the two models are also run side
# by side.

# %% [markdown]
# ## The official file
#
# It is a `torch.save` of a dictionary. It is read with `weights_only=True`: no code in it is run.

# %%
import logging
import urllib.request
from pathlib import Path

import torch
from IPython.display import Markdown, display

import glpi_jax

logging.getLogger("absl").setLevel(logging.ERROR)  # of checkpoints, line by line
official = Path("official.pth")
if upload:
    from google.colab import files

    official = Path(next(iter(files.upload())))
elif checkpoint.startswith(("http://", "https://")):
    official = Path(checkpoint.rpartition("/")[2])
    urllib.request.urlretrieve(checkpoint, official)
elif checkpoint:
    official = Path(checkpoint)
else:
    import functools

    import jax

    from glpi_jax.models.glpi import GLPI, SIZES
    from glpi_jax.training.state import init_variables, key_of
    from glpi_jax.weights.carried import constant_carried
    from glpi_jax.weights.convert import to_official
    from glpi_jax.weights.torch_files import OfficialCheckpoint, write_checkpoint

    small = GLPI(SIZES["glpi_demo"], dropout=0.0)
    drawn = jax.jit(functools.partial(init_variables, small))(key_of(seed=0))
    unused = constant_carried(small).arrays  # what never reaches the score
    state = to_official(jax.device_get(drawn), unused, small, "random weights")
    write_checkpoint(official, OfficialCheckpoint(state), force=True)
    print("No official file was given: RANDOM weights stand in for it. Their scores mean nothing.")

state_dict = torch.load(official, map_location="cpu", weights_only=True)["state_dict"]
count = sum(tensor.numel() for tensor in state_dict.values())
print(f"{official}: {len(state_dict)} entries, {count / 1e6:.2f} million numbers")

# %% [markdown]
# ## PyTorch to JAX
#
# A torch linear layer holds its matrix as (out, in), Flax as (in, out); a torch convolution holds
# (out, in, height, width), Flax (height, width, in, out). A porting tool that gets one of these
# wrong may still load, if the matrix is square. So every entry is checked: names, shapes and
# dtypes, all mismatches in one error.

# %%
model, variables = glpi_jax.load_torch(official)
print(f"crops of {model.size.crop} × {model.size.crop}, {model.size.dim} wide tokens")

# %% [markdown]
# Some entries side by side:

# %%
from glpi_jax.weights.convert import flax_entries

rows = ["| official name | shape in torch | path in Flax | layout |", "|---|---|---|---|"]
for entry in flax_entries(model)[:: 60 if short else 25]:
    path = "/".join(entry.path)
    rows.append(f"| `{entry.torch_name}` | {entry.torch_shape} | `{path}` | {entry.layout} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# It scores at once. The file does not say which labels it was trained on, so that the scale of its
# scores is not known.

# %%
from glpi_jax.data.demo_database import photograph_path

crops = 4 if short else 25
photographs = [photograph_path(name) for name in ("coffee", "cat", "rocket")]
before = glpi_jax.load(official, crops=crops).score(photographs)
for one in before:
    print(f"{Path(one.image).name}: score {one.score:.4f} ± {one.standard_error:.4f}")

# %% [markdown]
# ## JAX to PyTorch
#
# A checkpoint becomes a *workdir*, as training makes it, and a workdir a checkpoint. The official
# file also holds weights that never reach the score (later ViT blocks, a classifier); a workdir
# carries them along, so that the way back is whole.

# %%
import shutil

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.interop.from_torch import from_torch
from glpi_jax.interop.to_torch import to_torch

workdir, back = Path("runs/official"), Path("back.pth")
shutil.rmtree(workdir, ignore_errors=True)
config = load_config(shipped_config("base"))
notes = from_torch(
    official, workdir, config, size_from_file=True, weights_only=False, lower_is_better=False
)
notes += to_torch(workdir, back, fill=None, weights_only=False, force=True)
print("\n".join(notes) or "nothing to remark")

# %% [markdown]
# ## Are they the same?
#
# Not close: the same bits, under the same names, in the same order.

# %%
returned = torch.load(back, map_location="cpu", weights_only=True)["state_dict"]
assert list(returned) == list(state_dict)
equal = [
    returned[name].numpy().tobytes() == tensor.numpy().tobytes()
    for name, tensor in state_dict.items()
]
print(f"{sum(equal)} of {len(equal)} entries are bit-equal")
assert all(equal)

# %% [markdown]
# `glpi port verify` compares a workdir with an official file; with a clone of the authors' code it
# runs both and compares every stage.

# %%
from glpi_jax.interop.verify import (
    AUTHORS_CLASS,
    compare_stages,
    compare_weights,
    crops_to_compare,
    open_pair,
)

pair = open_pair(official, workdir)
compared = compare_weights(pair)
print(f"{compared.equal} weights equal, {len(compared.different)} different")
if torch_repo:
    images = crops_to_compare(photographs, model.size.crop)
    for stage in compare_stages(pair, Path(torch_repo), AUTHORS_CLASS, images):
        print(f"{stage.name:12} {stage.relative:.1e} standard deviations")

# %% [markdown]
# And the scores of the returned file are those of the first:

# %%
after = glpi_jax.load(back, crops=crops).score(photographs)
differences = [abs(a.score - b.score) for a, b in zip(after, before, strict=True)]
print(f"largest difference of a score: {max(differences):g}")
assert max(differences) == 0

# %% [markdown]
# ## On the command line
#
# ```bash
# glpi port from-torch official.pth runs/official
# glpi port to-torch runs/official back.pth
# glpi port verify official.pth runs/official --torch-repo GlintIQA --images photo.jpg
# ```
