"""Run by test_changed_model.py in a copy of the package: train, publish and export a changed model.

The arguments are a database and the overrides of the training. Everything is written to the working
directory, what was found to `found.json`.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from PIL import Image
from safetensors.numpy import save_file

import glpi_jax
from glpi_jax.cli.main import main
from glpi_jax.hub import read_model
from glpi_jax.models.glpi import build
from glpi_jax.weights.backbones import RESNETS, ResNetSize, torchvision_shapes
from glpi_jax.weights.convert import official_shapes
from glpi_jax.weights.torch_names import VIT_PREFIX

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def write_backbones():
    """A ViT under timm's names and a ResNet under torchvision's, of glpi_demo's sizes."""
    model = build("glpi_demo", dropout=0.0)
    size = model.size
    RESNETS["demo"] = ResNetSize(size.stem, (*size.widths, 64), (*size.blocks, 1))
    rng = np.random.default_rng(0)
    shapes = official_shapes(model)
    vit = {n.removeprefix(VIT_PREFIX): s for n, s in shapes.items() if n.startswith(VIT_PREFIX)}
    for name, entries in (("vit", vit), ("resnet", torchvision_shapes("demo"))):
        arrays = {n: rng.uniform(0.01, 0.1, s).astype(np.float32) for n, s in entries.items()}
        save_file(arrays, f"{name}.safetensors")


def command(*words):
    """Exit code and stderr of a command."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([*words])
    return {"code": code, "stderr": err.getvalue()}


def run(database, overrides):
    write_backbones()
    found = {}
    given = (f"--config.data.root={database}", *overrides)
    found["train"] = command("train", "--workdir", "run", "--config", "configs/demo.py", *given)
    found["push"] = command("push", "run", "published")
    found["export"] = command("export", "run", "model.stablehlo")
    found["port"] = command("port", "to-torch", "run", "model.safetensors")
    # One crop is the whole image, so that the program takes the same pixels.
    crop = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(crop).save("crop.png")
    for name in ("run", "published"):
        (result,) = glpi_jax.load(name).score(["crop.png"])
        found[f"score of {name}"] = result.score
    program = export.deserialize(bytearray(Path("model.stablehlo").read_bytes()))
    found["score of program"] = float(program.call(crop[None])[0])
    params = read_model("run").variables["params"]
    np.savez(
        "weights.npz",
        extra=params["quality_head"]["extra"]["kernel"],
        patch_embed=params["vgfe"]["patch_embed"]["kernel"],
    )
    Path("found.json").write_text(json.dumps(found))


run(sys.argv[1], sys.argv[2:])
