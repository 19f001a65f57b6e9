"""Published backbones, timm's ViT and torchvision's ResNet, for the Flax networks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from glpi_jax.models.glpi import GLPI
from glpi_jax.models.resnet import EXPANSION, ResNet
from glpi_jax.weights.convert import (
    COUNT,
    IMAGENET_CLASSES,
    MEAN,
    Entry,
    carried_names,
    check,
    entries_of,
    flax_entries,
    is_count,
    named_arrays,
    to_variables,
)
from glpi_jax.weights.torch_files import CheckpointError, read_state, sha256_of
from glpi_jax.weights.torch_names import RESNET_PREFIX, VIT_PREFIX, without_ddp
from glpi_jax.weights.vit_files import read_vit

# What a ViT adds to its residual stream: paths in Flax, and official names of the rest.
_ADDED = re.compile(r"vgfe/(cls_token|pos_embed|patch_embed/.*|blocks_\d+/(attn/proj|mlp/fc2)/.*)$")
_ADDED_CARRIED = re.compile(r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.\w+$")


class ResNetSize(NamedTuple):
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
        CheckpointError: as `glpi_jax.weights.vit_files.read_vit`.
    """
    file = Path(path)
    sha256 = sha256_of(file)
    arrays = read_vit(file, model)
    carried = {name: arrays[name] for name in carried_names(model) if name.startswith(VIT_PREFIX)}
    return Backbone(_part(arrays, model, VIT_PREFIX), carried, sha256)


def with_gain(vit: Backbone, gain: float) -> Backbone:
    """Multiply the tokens of every block of a ViT by a factor, without changing what it computes.

    Everything that is added to the residual stream is multiplied; each block normalises the stream
    before it reads it, so that only LayerNorm's epsilon (1e-6) tells the two apart. The last norm
    and the classifier stay.

    Args:
        vit: from `load_vit_backbone`.
        gain: above 0.
    """

    def scaled(flat: Mapping[str, np.ndarray], added: re.Pattern[str]) -> dict[str, np.ndarray]:
        return {
            name: array * np.float32(gain) if added.search(name) else array
            for name, array in flat.items()
        }

    variables = scaled(traverse_util.flatten_dict(vit.variables, sep="/"), _ADDED)
    carried = scaled(vit.carried, _ADDED_CARRIED)
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
    part = ResNetSize(whole.stem, whole.widths[:stages], whole.blocks[:stages])
    if part != (size.stem, size.widths, size.blocks):
        raise CheckpointError(
            f"{file}: a {name} of blocks {whole.blocks} and widths {whole.widths}, where the model"
            f" has the stages {size.blocks} and {size.widths}"
        )
    counts = {
        count: arrays.get(count, np.zeros((), np.int64))
        for count in carried_names(model)
        if is_count(count)
    }
    return Backbone(_part(arrays, model, RESNET_PREFIX), counts, sha256)


def load_resnet(path: str | Path) -> LoadedResNet:
    """Load torchvision's ResNet-50 or ResNet-101 (V1); which of them follows from the names.

    Args:
        path: a state dict: .pth or .pt (which need PyTorch) or .safetensors. A .pth file that is
            named as torchvision names them, resnet101-5d3b4d8f.pth, must have the SHA-256 that
            begins with these eight digits. The classifier `fc` is checked and left out.

    Raises:
        CheckpointError: unreadable file, another SHA-256 than the name says, another network, or
            entries that `check` refuses.
    """
    file = Path(path)
    sha256 = _checked_sha256(file)
    name, variables = resnet_variables(read_state(file), str(file))
    return LoadedResNet(_module(name), variables, name, sha256)


def resnet_variables(state: Mapping[str, Any], label: str) -> tuple[str, dict[str, Any]]:
    """Turn a torchvision state dict into a key of `RESNETS` and the Flax variables.

    Raises:
        CheckpointError: as `load_resnet`, which see; `label` begins the message.
    """
    name, arrays = _resnet_arrays(state, label)
    return name, to_variables(arrays, _resnet_entries(name))


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every entry of torchvision's file of a ResNet, a key of `RESNETS`, and its shape.

    Without the counts of batches, which files of 2016 do not have.
    """
    return {
        **{
            entry.torch_name.removeprefix(RESNET_PREFIX): entry.torch_shape
            for entry in _resnet_entries(name)
        },
        "fc.weight": (IMAGENET_CLASSES, EXPANSION * RESNETS[name].widths[-1]),
        "fc.bias": (IMAGENET_CLASSES,),
    }


def _resnet_arrays(state: Mapping[str, Any], label: str) -> tuple[str, dict[str, np.ndarray]]:
    """Check a torchvision state dict; gives its key of `RESNETS` and its arrays by GLPI's names."""
    arrays, problems = named_arrays(state, without_ddp)
    name = _infer_name(arrays, label)
    shapes: dict[str, tuple[int | None, ...]] = dict(torchvision_shapes(name))
    # Of any number of classes.
    shapes |= {"fc.weight": (None, *shapes["fc.weight"][1:]), "fc.bias": (None,)}
    counts = [f"{entry.removesuffix(MEAN)}{COUNT}" for entry in shapes if entry.endswith(MEAN)]
    shapes |= {entry: () for entry in counts if entry in arrays}  # files of 2016 have none
    check(arrays, shapes, f"{label} ({name})", problems)
    return name, {f"{RESNET_PREFIX}{entry}": array for entry, array in arrays.items()}


def _part(arrays: Mapping[str, np.ndarray], model: GLPI, prefix: str) -> dict[str, Any]:
    """The variables of a backbone of GLPI."""
    entries = [entry for entry in flax_entries(model) if entry.torch_name.startswith(prefix)]
    return to_variables(arrays, entries)


def _module(name: str) -> ResNet:
    return ResNet(**RESNETS[name]._asdict(), inference_stages=(), dtype=jnp.float32)


def _resnet_entries(name: str) -> Sequence[Entry]:
    return entries_of(_module(name), side=32, inside="clfe/backbone/")


def _infer_name(arrays: Mapping[str, np.ndarray], label: str) -> str:
    """The ResNet with as many blocks in each stage as the names count."""
    found = [re.match(r"layer(\d+)\.(\d+)\.", name) for name in arrays]
    last: dict[int, int] = {}
    for stage, block in sorted((int(match[1]), int(match[2])) for match in found if match):
        last[stage] = block
    blocks = tuple(block + 1 for block in last.values())
    for name, size in RESNETS.items():
        if blocks == size.blocks:
            return name
    known = ", ".join(f"{name} {size.blocks}" for name, size in RESNETS.items())
    raise CheckpointError(
        f"{label}: blocks {blocks} in its stages layer1, layer2, … are none of {known}"
    )


def _checked_sha256(path: Path) -> str:
    """A file's SHA-256, which must be the one that torchvision puts into a name."""
    sha256 = sha256_of(path)
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not sha256.startswith(promised[1]):
        raise CheckpointError(
            f"{path}: its SHA-256 begins with {sha256[:8]}, its name says {promised[1]}: download"
            " it again, or rename it if it is another file"
        )
    return sha256
