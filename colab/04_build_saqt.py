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
# # A training set from plain photographs (SAQT)
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/glpi-jax/glpi_jax/blob/v0.1.0/colab/04_build_saqt.ipynb)
#
# Rated photographs are few: people have to look at each. *Semantic-aligned quality transfer*
# (SAQT) makes a training set from photographs that nobody rated. Each is distorted in 125 ways,
# and takes the scores that people gave to the same distortions of a photograph that looks like
# it.
#
# In a few minutes you get
#
# - all 125 distorted forms of a photograph as one sheet,
# - the retrieval: for each photograph the reference that is most like it,
# - the label tables, with the authors' columns,
# - a rendered set, checked against its manifest.
#
# Two things are needed that cannot be shipped: KADID-10k (4 GB) and torchvision's ResNet-101.
# Without them the notebook makes **stand-ins**, so that every step runs. The matches and labels
# are then no real ones.

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
photographs = ""  # @param {type:"string"}
kadid10k = ""  # @param {type:"string"}
resnet = ""  # @param {type:"string"}

# %% [markdown]
# - `photographs`: a folder of pictures; empty takes those of scikit-image.
# - `kadid10k`: KADID-10k's folder, with `images` and `dmos.csv`.
# - `resnet`: a path or URL of torchvision's weights; the official file is
#   `https://download.pytorch.org/models/resnet101-5d3b4d8f.pth`.

# %%
import urllib.request
from pathlib import Path

import numpy as np
from IPython.display import Markdown, display
from PIL import Image

from glpi_jax.data.demo_database import photograph_path
from glpi_jax.saqt.stand_in import write_random_resnet, write_stand_in_references

work = Path("saqt-short" if short else "saqt")
work.mkdir(exist_ok=True)
scenes = ["coffee", "cat", "rocket", "motorcycle", "hubble", "astronaut"]

if not photographs:
    photographs = work / "photographs"
    photographs.mkdir(exist_ok=True)
    for scene in scenes[: 2 if short else 4]:
        picture = Image.open(photograph_path(scene)).convert("RGB")
        width, height = picture.size  # a part of it: no photograph is a reference itself
        picture = picture.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4))
        picture.thumbnail((96, 96) if short else (256, 256))
        picture.save(photographs / f"{scene}.png")
if not kadid10k:
    kadid10k = write_stand_in_references(work / "kadid10k", scenes[: 3 if short else 6])
    print("Stand-in for KADID-10k: the demo's photographs, with mean scores. No real labels.")
if resnet.startswith(("http://", "https://")):
    resnet, _ = urllib.request.urlretrieve(resnet, work / resnet.rpartition("/")[2])
elif not resnet:
    size = "resnet50" if short else "resnet101"
    resnet = write_random_resnet(work / "random-resnet.safetensors", name=size)
    print(f"Stand-in for the ResNet: {size} with RANDOM weights. No real matches.")

# %% [markdown]
# ## Distort
#
# KADID-10k's 25 types are in seven groups: blur, colour, compression, noise, brightness, spatial
# distortions, sharpness and contrast. Here is one photograph under each, level 1 to 5. The number
# below is KADID-10k's mean human score, from 5 (not to be seen) to 1 (very annoying).

# %%
from glpi_jax.data.images import list_images, read_image
from glpi_jax.saqt.preview import distortion_sheet

first = list_images([Path(photographs)])[0]
pixels = read_image(first, apply_orientation=True)
distortion_sheet(pixels, name=first.name, seed=0, cell=96 if short else 144)

# %% [markdown]
# ## Retrieve
#
# "Looks like it" is the cosine between two *semantic vectors*: what a ResNet-101 that was trained
# on ImageNet has in its last layer, pooled over the picture. With random weights the cosines
# follow colour and contrast more than what is in a picture, and lie close together.

# %%
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.saqt.retrieval import list_photographs, list_references, retrieve, write_matches
from glpi_jax.weights.backbones import load_resnet

network = load_resnet(resnet)
matches = retrieve(
    list_photographs(Path(photographs)),
    list_references(Path(kadid10k) / "images"),
    network.module,
    network.variables,
    make_mesh(),
    weights={"name": network.name, "sha256": network.sha256},
    folder=work / "features",
    top=2,
    batch_size=1 if short else 8,
    max_pixels=None,
    skip_bad=False,
    threads=2,
    tell=print,
)
write_matches(work / "similarity.csv", matches, columns="new")

# %%
rows = ["| photograph | best reference | cosine | second | cosine |", "|---|---|---|---|---|"]
for match in matches:
    pairs = zip(match.references, match.similarities, strict=True)
    cells = " | ".join(f"{reference.name} | {cosine:.4f}" for reference, cosine in pairs)
    rows.append(f"| {match.photograph.name} | {cells} |")
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## Label
#
# A photograph's form of type *t* at level *l* gets the score of its reference's form of the same
# type and level. The official labels go from 0 to 9; higher is better.

# %%
from glpi_jax.saqt.labels import read_matches, read_reference_scores, transfer, write_label_tables

pairs = read_matches(work / "similarity.csv")
scores = read_reference_scores(Path(kadid10k) / "dmos.csv")
labels = transfer(pairs, scores, scale="0-9", references=1)
tables = write_label_tables(pairs, labels, work / "labels", columns="new")
print(f"labels (photographs, types, levels) {labels.shape}, from {labels.min():.2f} to", end=" ")
print(f"{labels.max():.2f}; mean by level: {np.round(labels.mean((0, 1)), 2)}")
print("\n".join(tables[0].read_text().splitlines()[:4]))

# %% [markdown]
# ## Render, and verify
#
# Training can distort photographs as it reads them (`configs/saqt_pretrain.py`), without any of
# these files. Rendering is for those who want them: the seed and the name of a photograph decide
# the pixels, so that a killed run ends with the same bytes.

# %%
from glpi_jax.distortions import LEVELS
from glpi_jax.saqt.render import render_photographs
from glpi_jax.saqt.render_photograph import RenderSettings
from glpi_jax.saqt.selection import select_labelled
from glpi_jax.saqt.verify_rendered import verify_rendered

settings = RenderSettings(
    types=(1, 10) if short else (1, 3, 9, 10, 11, 16, 19, 24),
    levels=LEVELS,
    seed=0,
    dncnn=None,
    format_name="webp",
    arrayrecord=False,
    apply_orientation=False,
)
made = render_photographs(
    select_labelled(Path(photographs), work / "labels", skip_bad=False),
    work / "rendered",
    settings,
    shard=(1, 1),
    processes=1,
    skip_bad=False,
    progress=False,
)
checked = verify_rendered(work / "rendered", fast=False, threads=2, progress=False)
print(f"rendered {made.images} images of {made.photographs} photographs")
print(f"verified {checked.images} images: {len(checked.problems)} problems")

# %% [markdown]
# A byte that changes is found:

# %%
victim = next((work / "rendered").rglob("*.webp"))
content = victim.read_bytes()
victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
print(*verify_rendered(work / "rendered", fast=False, threads=2, progress=False).problems)
_ = victim.write_bytes(content)

# %% [markdown]
# ## Train on it
#
# ```bash
# glpi train --config configs/saqt_pretrain.py --workdir runs/pretrained \
#     --config.data.root=PHOTOGRAPHS --config.data.labels=saqt/labels \
#     --config.split.train_fraction=0.8 --config.split.validation_fraction=0.2
# ```
