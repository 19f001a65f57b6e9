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
# # Score your photo
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/glpi-jax/glpi_jax/blob/v0.1.0/colab/01_score_your_photo.ipynb)
#
# How good does a photograph look to people? GLPI tells it from the pixels alone, without an
# undistorted original to compare with: *no-reference image quality assessment* (IQA).
#
# In a few minutes you get
#
# - a score for a photograph of yours, with its standard error,
# - a *quality map*: where in the picture it is good or bad,
# - a *distortion ladder*: the picture under rising blur, noise and compression, with each score.
#
# The weights that come with the package score on a scale of 0 to 100, higher is better. They reduce
# a larger photograph to 384 pixels on its shorter side, and judge it as people judged the phone
# photographs of CLIVE, a database for IQA. You may name a model of your own below.

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
photograph = "coffee"  # @param ["astronaut", "cat", "coffee", "motorcycle", "rocket"]
upload = False  # @param {type:"boolean"}
model = ""  # @param {type:"string"}

# %% [markdown]
# `upload` asks for a photograph of yours (in Colab); otherwise one of scikit-image's is taken.
# `model` is a workdir of `glpi train`, a checkpoint, or `hf://owner/name`; empty takes the weights
# of the package. `short` is a quick look with fewer pictures.

# %%
import io

from IPython.display import Image, Markdown, display
from PIL import Image as Pictures
from PIL import ImageOps

import glpi_jax
from glpi_jax.data.demo_database import photograph_path

if upload:
    from google.colab import files

    photograph, content = next(iter(files.upload().items()))
else:
    content = photograph_path(photograph).read_bytes()

picture = ImageOps.exif_transpose(Pictures.open(io.BytesIO(content))).convert("RGB")
picture.thumbnail((1024, 1024))  # large photographs take long, not more insight
picture

# %% [markdown]
# ## A score, and how sure it is
#
# The network sees crops of a fixed size. A photograph is preprocessed as in the model's training:
# the weights of the package reduce it. Then crops are cut on a regular grid, and the score is their
# mean. What the reduction removes, such as fine noise of a large photograph, does not count.
#
# The **standard error** says how far the mean may lie from that of other crops of the same picture.
# It does not say how wrong the model is: two models may both be sure, and disagree. A difference of
# a few points between two photographs means nothing.

# %%
scorer = glpi_jax.load(model or None)
result = scorer.score(picture)
print(f"{photograph}: score {result.score:.2f} ± {result.standard_error:.2f}")
print(f"scale: {scorer.scale}; mean of {result.crops} crops of {scorer.crop} × {scorer.crop}")
print(f"before the crops: {scorer.preprocessing.words}")

# %% [markdown]
# One number means little alone. Here are other photographs on the same scale:

# %%
from glpi_jax.scoring.contact_sheet import contact_sheet

samples = ["astronaut", "cat", "coffee", "motorcycle", "rocket", "hubble"][: 3 if short else 6]
results = scorer.score([photograph_path(sample) for sample in samples])
ranked = sorted(results, key=lambda one: one.score, reverse=scorer.higher_is_better is not False)
contact_sheet([("best first", ranked)], columns=3, cell=280)

# %% [markdown]
# ## Where is it good, where is it bad?
#
# Overlapping crops are scored one by one; a pixel's value is the mean over the crops that hold it.
# The colours span this photograph's own scores. They tell where it is better, not how good it is:
# for that, read the numbers at the bar. The map is that of the reduced photograph, and a crop is a
# large part of it: it tells one side from the other, not one leaf from the next.
#
# Smooth parts (sky, out-of-focus background) may get low scores: the model sees little detail in
# them and cannot know that it was never there.

# %%
from glpi_jax.scoring.map_picture import map_picture

quality = scorer.quality_map(picture, stride=None if short else scorer.crop // 8)
display(Image(map_picture(quality, scale=scorer.scale, title=photograph), width=1000))

# %% [markdown]
# ## A distortion ladder
#
# KADID-10k is a database of 81 photographs, each under 25 types of distortion at five levels,
# rated by people. `glpi_jax.distortions` makes the same distortions. A good model's score falls
# from rung to rung.
#
# Look at a type where it does not fall: the model has not learned it, or the reduction removes the
# distortion.

# %%
from glpi_jax.scoring.ladder import ladder_picture, score_ladders

types = ["gaussian_blur", "white_noise", "jpeg", "color_diffusion", "darken"][: 2 if short else 5]
smaller = picture.copy()
smaller.thumbnail((512, 512))
ladders = score_ladders(scorer, smaller, types)
display(Image(ladder_picture(ladders, scale=scorer.scale), width=1100))

# %%
rows = [f"| {x.name} | " + " | ".join(f"{s:.2f}" for s in x.scores) + " |" for x in ladders]
header = (
    "| type | untouched | level 1 | level 2 | level 3 | level 4 | level 5 |\n" + "|---" * 7 + "|"
)
display(Markdown("\n".join([header, *rows])))

# %% [markdown]
# ## On your own machine
#
# ```bash
# glpi score photo.jpg holiday/        # scores of files and folders
# glpi map photo.jpg --out map.png     # the quality map
# glpi serve                           # a page to drop photographs on
# ```
#
# Next: [02_train_and_benchmark](02_train_and_benchmark.ipynb) trains a model of your own.
