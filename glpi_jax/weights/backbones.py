"""Published backbones, timm's ViT and torchvision's ResNet, for the Flax networks."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from glpi_jax.models.glpi import GLPI
from glpi_jax.models.resnet import EXPANSION, ResNet
from glpi_jax.weights import torch_names
from glpi_jax.weights.convert import (
    IMAGENET_CLASSES,
    Entry,
    carried_names,
    check,
    flax_entries,
    is_count,
    to_flax_layout,
    to_variables,
)
from glpi_jax.weights.torch_files import CheckpointError, read_state
from glpi_jax.weights.vit_files import PREFIX as VIT_PREFIX
from glpi_jax.weights.vit_files import numeric, read_vit

# What a ViT adds to its residual stream: paths in Flax, and official names of the rest.
_ADDED = re.compile(r"vgfe/(cls_token|pos_embed|patch_embed/.*|blocks_\d+/(attn/proj|mlp/fc2)/.*)$")
_ADDED_CARRIED = re.compile(r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.\w+$")
RESNET_PREFIX = "clfe.backbone."  # of torchvision's names in an official GLPI checkpoint


@dataclasses.dataclass(frozen=True)
class ResNetSize:
    """The numbers of a bottleneck ResNet; see `glpi_jax.models.resnet.ResNet`."""

    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]


RESNETS: dict[str, ResNetSize] = {
    "resnet50": ResNetSize(64, (64, 128, 256, 512), (3, 4, 6, 3)),
    "resnet101": ResNetSize(64, (64, 128, 256, 512), (3, 4, 23, 3)),
}


class LoadedResNet(NamedTuple):
    """A ResNet with published weights.

    Attributes:
        module: the network up to its last stage, float32.
        variables: `params` and `batch_stats`, NumPy float32.
        name: key of `RESNETS`.
        sha256: of the file, in hexadecimal digits.
    """

    module: ResNet
    variables: dict[str, Any]
    name: str
    sha256: str


class Backbone(NamedTuple):
    """A published backbone inside of GLPI.

    Attributes:
        variables: its part of `params` and `batch_stats`, NumPy float32.
        carried: its entries that never reach the score, by official name; see
            `glpi_jax.weights.carried`.
        sha256: of the file, in hexadecimal digits.
    """

    variables: dict[str, Any]
    carried: dict[str, np.ndarray]
    sha256: str


def load_vit_backbone(path: str | Path, model: GLPI) -> Backbone:
    """Load a published ViT as the ViT of a GLPI network.

    Args:
        path: timm's .safetensors, .pth or .pt (which need PyTorch), or an original augreg .npz.
        model: the network. Position embeddings are resampled where its crop is another.

    Raises:
        CheckpointError: unreadable file, another ViT than the model's, or names missing,
            unexpected, misshapen, of another dtype or not finite: all of them in one message.
    """
    file = Path(path)
    sha256 = _sha256(file)
    arrays = read_vit(file, model)
    carried = {name: arrays[name] for name in carried_names(model) if name.startswith(VIT_PREFIX)}
    return Backbone(to_variables(arrays, _entries(model, VIT_PREFIX)), carried, sha256)


def with_gain(vit: Backbone, gain: float) -> Backbone:
    """Multiply the tokens of every block of a ViT by a factor, without changing what it computes.

    Everything that is added to the residual stream is multiplied; each block normalises the stream
    before it reads it, so that only LayerNorm's epsilon (1e-6) tells the two apart. The last norm
    and the classifier stay.

    Args:
        vit: from `load_vit_backbone`.
        gain: above 0.
    """
    flat = traverse_util.flatten_dict(vit.variables, sep="/")
    variables = {
        path: array * np.float32(gain) if _ADDED.search(path) else array
        for path, array in flat.items()
    }
    carried = {
        name: array * np.float32(gain) if _ADDED_CARRIED.search(name) else array
        for name, array in vit.carried.items()
    }
    return Backbone(traverse_util.unflatten_dict(variables, sep="/"), carried, vit.sha256)


def load_resnet_backbone(path: str | Path, model: GLPI) -> Backbone:
    """Load torchvision's ResNet-50 (V1) as the ResNet of a GLPI network, up to layer3.

    Args:
        path: as `load_resnet`, which checks layer4 and `fc` too.
        model: the network.

    Raises:
        CheckpointError: as `load_resnet`; or another ResNet than the model's.
    """
    file = Path(path)
    sha256 = _checked_sha256(file)
    name, arrays = _resnet_arrays(read_state(file), str(file))
    whole, size = RESNETS[name], model.size
    stages = len(size.widths)
    if (whole.stem, whole.widths[:stages], whole.blocks[:stages]) != (
        size.stem,
        size.widths,
        size.blocks,
    ):
        raise CheckpointError(
            f"{file}: a {name} of blocks {whole.blocks} and widths {whole.widths}, where the model"
            f" has the stages {size.blocks} and {size.widths}"
        )
    named = {f"{RESNET_PREFIX}{name}": array for name, array in arrays.items()}
    counts = {
        name: named.get(name, np.zeros((), np.int64))  # files of 2016 have none
        for name in carried_names(model)
        if is_count(name)
    }
    return Backbone(to_variables(named, _entries(model, RESNET_PREFIX)), counts, sha256)


def load_resnet(path: str | Path) -> LoadedResNet:
    """Load torchvision's ResNet-50 or ResNet-101 (V1); which of them follows from the names.

    Args:
        path: a state dict: .pth or .pt (which need PyTorch) or .safetensors. A .pth file that is
            named as torchvision names them, resnet101-5d3b4d8f.pth, must have the SHA-256 that
            begins with these eight digits. The classifier `fc` is checked and left out.

    Raises:
        CheckpointError: unreadable file, another SHA-256 than the name says, another network, or
            names missing, unexpected, misshapen or not numeric: all of them in one message.
    """
    file = Path(path)
    sha256 = _checked_sha256(file)
    name, variables = resnet_variables(read_state(file), str(file))
    return LoadedResNet(_module(RESNETS[name]), variables, name, sha256)


def resnet_variables(state: Mapping[str, Any], label: str) -> tuple[str, dict[str, Any]]:
    """Turn a torchvision state dict into a key of `RESNETS` and the Flax variables.

    Raises:
        CheckpointError: as `load_resnet`, which see; `label` begins the message.
    """
    name, arrays = _resnet_arrays(state, label)
    flat = {}
    for path in _targets(RESNETS[name]):
        entry, layout = _torch_name(path)
        flat[path] = to_flax_layout(arrays[entry], layout)
    return name, traverse_util.unflatten_dict(flat)


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every entry of torchvision's file of a ResNet, a key of `RESNETS`, and its shape.

    Without the counts of batches, which files of 2016 do not have.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in _targets(RESNETS[name]).items():
        entry, layout = _torch_name(path)
        shape = leaf.shape
        if layout == torch_names.CONV:
            shape = (shape[3], shape[2], shape[0], shape[1])
        shapes[entry] = shape
    shapes["fc.weight"] = (IMAGENET_CLASSES, EXPANSION * RESNETS[name].widths[-1])
    shapes["fc.bias"] = (IMAGENET_CLASSES,)
    return shapes


def _resnet_arrays(state: Mapping[str, Any], label: str) -> tuple[str, dict[str, np.ndarray]]:
    """Check a torchvision state dict; gives its key of `RESNETS` and its arrays by name."""
    arrays, problems = numeric(state)
    name = _infer_name(arrays, label)
    shapes: dict[str, tuple[int | None, ...]] = dict(torchvision_shapes(name))
    # Of any number of classes.
    shapes |= {"fc.weight": (None, *shapes["fc.weight"][1:]), "fc.bias": (None,)}
    for entry in tuple(shapes):
        counter = entry.removesuffix("running_mean") + "num_batches_tracked"
        if entry.endswith("running_mean") and counter in arrays:  # files of 2016 have none
            shapes[counter] = ()
    check(arrays, shapes, f"{label} ({name})", problems)
    return name, arrays


def _targets(size: ResNetSize) -> dict[tuple[str, ...], Any]:
    """Collection and path of every variable of a ResNet, with its shape."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    targets = jax.eval_shape(lambda x: _module(size).init(jax.random.key(0), x, False), image)
    return traverse_util.flatten_dict(targets)


def _entries(model: GLPI, prefix: str) -> list[Entry]:
    """The variables of a backbone of GLPI."""
    return [entry for entry in flax_entries(model) if entry.torch_name.startswith(prefix)]


def _module(size: ResNetSize) -> ResNet:
    return ResNet(
        stem=size.stem,
        widths=size.widths,
        blocks=size.blocks,
        inference_stages=(),
        dtype=jnp.float32,
    )


def _torch_name(path: tuple[str, ...]) -> tuple[str, str]:
    """Torch name and layout of an entry; GLPI's table has the ResNet inside of its own network."""
    collection, *rest = path
    entry, layout = torch_names.to_torch_name(collection, "/".join(["clfe", "backbone", *rest]))
    return entry.removeprefix(RESNET_PREFIX), layout


def _infer_name(arrays: Mapping[str, np.ndarray], label: str) -> str:
    """The ResNet with as many blocks in each stage as the names count."""
    counts: dict[int, int] = {}
    for name in arrays:
        block = re.match(r"layer(\d+)\.(\d+)\.", name)
        if block:
            stage = int(block[1])
            counts[stage] = max(counts.get(stage, 0), int(block[2]) + 1)
    blocks = tuple(counts[stage] for stage in sorted(counts))
    for name, size in RESNETS.items():
        if blocks == size.blocks:
            return name
    known = ", ".join(f"{name} {size.blocks}" for name, size in RESNETS.items())
    raise CheckpointError(
        f"{label}: blocks {blocks} in its stages layer1, layer2, … are none of {known}"
    )


def _checked_sha256(path: Path) -> str:
    """A file's SHA-256, which must be the one that torchvision puts into a name."""
    sha256 = _sha256(path)
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not sha256.startswith(promised[1]):
        raise CheckpointError(
            f"{path}: its SHA-256 begins with {sha256[:8]}, its name says {promised[1]}: download"
            " it again, or rename it if it is another file"
        )
    return sha256


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
