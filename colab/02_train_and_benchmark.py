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
# # Train a model, and benchmark it
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/glpi-jax/glpi_jax/blob/v0.1.0/colab/02_train_and_benchmark.ipynb)
#
# In about twelve minutes on two CPU cores, fewer on an accelerator, you get
#
# - a small database, rendered from photographs that ship inside Python packages,
# - a GLPI trained on it from scratch, with curves that grow while it trains,
# - its report, on scenes that training never saw,
# - a *benchmark*: the same experiment in several rounds, each with its own split and seed.
#
# The notebook is the same on a CPU, GPU or TPU runtime: JAX uses whatever there is.

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
rounds = 3  # @param {type:"integer"}
epochs = 14  # @param {type:"integer"}
learning_rate = 1e-3  # @param {type:"number"}

# %% [markdown]
# ## Which devices are there?
#
# The batch of a training step is split over all devices that JAX sees. BatchNorm's statistics are
# those of the whole batch, so that the number of devices changes the speed, not the result.

# %%
import html
import logging
from pathlib import Path

import jax
from IPython.display import HTML, Image, Markdown, display

logging.getLogger("absl").setLevel(logging.ERROR)  # of checkpoints, line by line
print(f"JAX {jax.__version__} sees {jax.device_count()} × {jax.devices()[0].device_kind}")
print(f"platform: {jax.default_backend()}")

# %% [markdown]
# ## The data
#
# Real photographs (from scikit-image, scikit-learn and matplotlib), cut into tiles, under types
# of KADID-10k's distortions at five levels each. The label of a picture is KADID-10k's mean human
# score of that type and level, over *other* pictures: people's opinion, but nobody rated these
# very images.

# %%
from glpi_jax.data.demo_database import SCENES, render_demo_database
from glpi_jax.distortions import DISTORTIONS

types = (1,) if short else (1, 3, 10, 11, 16, 24)
data = render_demo_database(
    f"data-{'short' if short else 'full'}",
    types=types,
    scenes=tuple(SCENES)[:6] if short else tuple(SCENES),
    seed=0,
    processes=1 if short else 2,
    progress=True,
)
print("types:", ", ".join(DISTORTIONS[number].name for number in types))

# %%
from glpi_jax.data.sources import load_database

database = load_database("csv", data)
print(f"{len(database.images)} pictures of {len(set(database.references))} scenes")
print(f"labels: {database.score_name}, {database.scores.min():.2f} to {database.scores.max():.2f}")

# %% [markdown]
# ## The experiment
#
# A config is a tree of every number that a paper would list. `configs/demo.py` is the small one;
# single values are changed by the same overrides as on the command line.
#
# The **split** is by reference: all pictures of a scene are in one part. If they were not, the
# model could know a scene by heart, and the test would praise it for that.

# %%
from glpi_jax.core.config import load_config, shipped_config

epochs = 2 if short else epochs
steps = epochs * len(database.images) // 45  # about seven tenths of the pictures, 32 a step
config = load_config(
    shipped_config("demo"),
    [
        f"--config.data.root={data}",
        f"--config.train.epochs={epochs}",
        f"--config.train.log_every_steps={1 if short else 10}",
        f"--config.optimizer.learning_rate={learning_rate}",
        f"--config.optimizer.warmup_steps={max(1, steps // 20)}",
        f"--config.optimizer.cosine_half_period={steps}",  # one descent over the whole run
        "--config.evaluation.every_epochs=2",
        f"--config.evaluation.crops={4 if short else 16}",
    ],
)
print(config.train)

# %% [markdown]
# ## Train, and watch
#
# The run writes its metrics into a file as they come, and a thread draws them here. You should see
# the loss (the mean absolute error of a batch) fall at once, and the SROCC on the validation scene
# rise, unevenly: one scene is little to measure by.
#
# Interrupt the cell and run it again: it resumes where it stopped.

# %%
from glpi_jax.core.compilation import kept_compilations
from glpi_jax.report.live import live_curves
from glpi_jax.workflow.benchmark import round_folder, run_benchmark
from glpi_jax.workflow.runs import train_run

workdir = Path("runs-short" if short else "runs")
first = workdir / round_folder(1)
curves = display(Markdown("compiling the training step …"), display_id=True)
with (
    kept_compilations(workdir / "compilations"),
    live_curves(first, lambda png: curves.update(Image(png, width=1000)), every=1.0),
):
    trained = train_run(config, first)

# %% [markdown]
# ## The report
#
# One self-contained page: metrics with confidence intervals, predictions against labels, each
# distortion by itself, the worst predictions. **SROCC** is the rank correlation between predictions
# and labels (1: the same order), **PLCC** the linear one, **RMSE** is in units of the labels.

# %%
from glpi_jax.report import REPORT_FILE

page = html.escape((first / REPORT_FILE).read_text(encoding="utf-8"))
style = "width: 100%; height: 700px; border: 1px solid #ccc"
display(HTML(f'<div><iframe style="{style}" srcdoc="{page}"></iframe></div>'))

# %% [markdown]
# ## One split is luck
#
# With so few scenes the result depends on which are held out. That is why papers report the median
# over ten rounds, each with a split and a seed of its own. Round 1 is the run from above, which is
# finished, so that only the others are trained.

# %%
rounds = 2 if short else rounds
with kept_compilations(workdir / "compilations"):
    benchmark = run_benchmark(config, workdir, rounds=rounds)

# %%
from glpi_jax.report import rounds_markdown

display(Markdown(rounds_markdown(benchmark)))

# %% [markdown]
# The spread between rounds is what a difference between two models has to beat.
#
# Several devices can also train rounds side by side, a group of devices a round:
# `config.mesh.round = 2` (see [05_many_devices](05_many_devices.ipynb)). Results stay the same.
#
# ## Score a picture with it

# %%
import glpi_jax
from glpi_jax.data.demo_database import photograph_path
from glpi_jax.scoring.ladder import ladder_picture, score_ladders

scorer = glpi_jax.load(first)
ladders = score_ladders(scorer, photograph_path("coffee"), types[:1] if short else types[:4])
display(Image(ladder_picture(ladders, scale=scorer.scale), width=1100))
