"""Backbone weights as torchvision publishes them, for the Flax ResNet."""

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

from glpi_jax.models.resnet import EXPANSION, ResNet
from glpi_jax.porting import torch_names
from glpi_jax.porting.convert import (
    CheckpointError,
    _check,
    _to_flax_layout,
    _to_numpy,
    read_state,
)


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
    sha256 = _sha256(file)
    promised = re.search(r"-([0-9a-f]{8})\.pth$", file.name)
    if promised and not sha256.startswith(promised[1]):
        raise CheckpointError(
            f"{file}: its SHA-256 begins with {sha256[:8]}, its name says {promised[1]}: download"
            " it again, or rename it if it is another file"
        )
    name, variables = resnet_variables(read_state(file), str(file))
    return LoadedResNet(_module(RESNETS[name]), variables, name, sha256)


def resnet_variables(state: Mapping[str, Any], label: str) -> tuple[str, dict[str, Any]]:
    """Turn a torchvision state dict into a key of `RESNETS` and the Flax variables.

    Raises:
        CheckpointError: as `load_resnet`, which see; `label` begins the message.
    """
    arrays: dict[str, np.ndarray] = {}
    problems = []
    for original, value in state.items():
        try:
            arrays[str(original).removeprefix("module.")] = _to_numpy(value)
        except (TypeError, ValueError):
            problems.append(str(original))
    if problems:
        raise CheckpointError(f"{label}: not an array: {', '.join(problems)}")

    name = _infer_name(arrays, label)
    size = RESNETS[name]
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    targets = jax.eval_shape(lambda x: _module(size).init(jax.random.key(0), x, False), image)
    shapes: dict[str, tuple[int | None, ...]] = {
        "fc.weight": (None, EXPANSION * size.widths[-1]),
        "fc.bias": (None,),
    }
    flat = {}
    for path, leaf in traverse_util.flatten_dict(targets).items():
        entry, layout = _torch_name(path)
        shape = leaf.shape
        if layout == torch_names.CONV:
            shape = (shape[3], shape[2], shape[0], shape[1])
        shapes[entry] = shape
        counter = entry.removesuffix("running_mean") + "num_batches_tracked"
        if entry.endswith("running_mean") and counter in arrays:  # files of 2016 have none
            shapes[counter] = ()
        flat[path] = (entry, layout)
    _check(arrays, shapes, f"{label} ({name})")
    return name, traverse_util.unflatten_dict(
        {path: _to_flax_layout(arrays[entry], layout) for path, (entry, layout) in flat.items()}
    )


def _module(size: ResNetSize) -> ResNet:
    return ResNet(size.stem, size.widths, size.blocks, (), jnp.float32)


def _torch_name(path: tuple[str, ...]) -> tuple[str, str]:
    """Torch name and layout of an entry; GLPI's table has the ResNet inside of its own network."""
    collection, *rest = path
    entry, layout = torch_names.to_torch_name(collection, "/".join(["clfe", "backbone", *rest]))
    return entry.removeprefix("clfe.backbone."), layout


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


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
