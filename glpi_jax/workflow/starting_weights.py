"""The weights that a run starts from: of another run, an official checkpoint, or its backbones."""

import functools
import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.models.glpi import GLPI
from glpi_jax.training.checkpoint import BestCheckpoint
from glpi_jax.training.state import abstract_variables, init_variables, key_of, tree_differences
from glpi_jax.weights.backbones import (
    Backbone,
    load_resnet_backbone,
    load_vit_backbone,
    with_gain,
)
from glpi_jax.weights.carried import Carried
from glpi_jax.weights.convert import carried_names, is_count, load_torch
from glpi_jax.weights.download import PublishedFile, download

DOWNLOAD = "download"  # for a path: the published file that the official recipe starts from

# By model size. The paper starts from those of glpi_s16; the other ViTs were trained as that one.
# timm publishes torchvision's resnet50-19c8e357.pth once more, in a form that needs no PyTorch.
# Commits and SHA-256 are as stated by users of these files on GitHub: bkc39/rktorch (ResNet),
# Libre-YOLO/libreyolo, docs/provenance/vit.md (ViT-S, ViT-Ti), and asifuddin01/ViT_reverse,
# configs/vit_base.yaml (ViT-B).
_RESNET_50 = PublishedFile(
    "timm/resnet50.tv_in1k",
    "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
    "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
)
_VITS = {
    "glpi_s16": PublishedFile(
        "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
        "7e2c55630205e1266030f18370f4c6ed1a514b52",
        "79c03c635cdfd798a364a9d8c4e5c0b7255b975ea2c9616046d4f77ab01435aa",
    ),
    "glpi_b16": PublishedFile(
        "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
        "b5b38b8f7dd93ce67d12e356a8771556b95c8cf9",
        "c401d219603ac3e20b6373c7b198c78d3a733f80b755d148bda3bc320ae69800",
    ),
    "glpi_ti16": PublishedFile(
        "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "7d3afdd0cf93ad84d986eb2d6bcc5812ebd0b106",
        "fecf81b492bd13ee7a5297cb74d1d417aac8bf7e1b7d96aed89c4691984587ed",
    ),
}
PUBLISHED = {
    "vit": _VITS,
    "resnet": dict.fromkeys(_VITS, _RESNET_50),
}
_LOADERS: dict[str, Callable[[Path, GLPI], Backbone]] = {
    "vit": load_vit_backbone,
    "resnet": load_resnet_backbone,
}


class StartingWeights(NamedTuple):
    """Weights and where they are from.

    Attributes:
        variables: `params` and `batch_stats`, NumPy float32.
        origin: for the record, fit for JSON: `path`, `sha256` (of a checkpoint's file, of a run's
            arrays) and `selection`, which is how a run selected them and None for a file. Of
            backbones: for `vit` and `resnet` each `path` (where it was published, of a download)
            and `sha256`, or None.
        carried: what of a published ViT never reaches the score, else None.
    """

    variables: dict[str, Any]
    origin: dict[str, Any]
    carried: Carried | None = None


def names_starting_weights(config: ConfigDict) -> bool:
    """Whether a config names weights to start from, by `init_from` or `model.pretrained`."""
    pretrained = config.model.pretrained
    return bool(config.init_from or pretrained.vit or pretrained.resnet)


def load_starting_weights(config: ConfigDict, model: GLPI, mesh: Mesh) -> StartingWeights:
    """Read what a config names: `init_from` if that is set, else `model.pretrained`."""
    if config.init_from:
        return read_starting_weights(config.init_from, model, mesh)
    return read_pretrained(config, model)


def read_pretrained(config: ConfigDict, model: GLPI) -> StartingWeights:
    """Initialise a config's model with published backbones; the rest is as its seed has it.

    In `config.model.pretrained`, `vit` and `resnet` are each a path, "download" or "".

    Raises:
        GlpiError: a size without published files, a download that fails, or a file that is not
            whole or of another network.
    """
    pretrained, name = config.model.pretrained, config.model.name
    flat: dict[tuple[str, ...], Any] = {}
    origin: dict[str, Any] = dict.fromkeys(_LOADERS)
    held: dict[str, np.ndarray] = {}
    for part, load in _LOADERS.items():
        path = pretrained[part]
        if not path:
            continue
        file = _download(part, name) if path == DOWNLOAD else Path(path)
        backbone = load(file, model)
        if part == "vit" and pretrained.vit_gain != 1:
            backbone = with_gain(backbone, pretrained.vit_gain)
        flat |= traverse_util.flatten_dict(backbone.variables)
        held |= backbone.carried
        published = PUBLISHED[part][name].address if path == DOWNLOAD else path
        origin[part] = {"path": published, "sha256": backbone.sha256}
    # Compiled, as without any backbone.
    initial = jax.jit(functools.partial(init_variables, model))(key_of(config.seed))
    flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, initial)) | flat
    carried = None
    if pretrained.vit:  # without it nothing says what blocks behind the last tap should be
        counts = {key: np.zeros((), np.int64) for key in carried_names(model) if is_count(key)}
        carried = Carried(counts | held, 0)
    return StartingWeights(traverse_util.unflatten_dict(flat), origin, carried)


def _download(part: str, name: str) -> Path:
    """The published backbone of a size, from a cache or the network."""
    key = f"config.model.pretrained.{part}"
    if name not in PUBLISHED[part]:
        raise GlpiError(
            f"{key} = '{DOWNLOAD}': nothing is published for {name}, only for"
            f" {', '.join(PUBLISHED[part])}; give a path, or leave it empty"
        )
    return download(PUBLISHED[part][name], key)


def read_starting_weights(path: str, model: GLPI, mesh: Mesh) -> StartingWeights:
    """Read the weights of a workdir or an official checkpoint for a model, all or nothing.

    `path` is `config.init_from`: a workdir, whose selected weights are restored to the mesh, or a
    .pth, .pt or .safetensors file.

    Raises:
        GlpiError: nothing there, nothing trained, unreadable, or of another model; every
            difference is listed.
    """
    source = Path(path)
    target = abstract_variables(model, mesh=mesh)
    if source.is_dir():
        with closing(BestCheckpoint(source, read_only=True)) as best:
            restored, selection = best.restore(target, model_of="config.model")
        variables = jax.tree.map(np.asarray, restored)
        digest = hashlib.sha256()  # of names, shapes and values, whatever files hold them
        for name, array in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        origin = {"path": path, "sha256": digest.hexdigest(), "selection": selection}
        return StartingWeights(variables, origin)
    if not source.is_file():
        raise GlpiError(
            f"config.init_from = {path!r}: neither a workdir nor a checkpoint file (.pth, .pt,"
            " .safetensors)"
        )
    _, variables = load_torch(source)
    problems = tree_differences(variables, target)
    if problems:
        raise GlpiError(
            f"{source}: the checkpoint is of another model than config.model says:"
            f" {'; '.join(problems)}"
        )
    file_digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return StartingWeights(variables, {"path": path, "sha256": file_digest, "selection": None})
