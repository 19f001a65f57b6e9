"""The weights that a run starts from: those of another run, or of an official checkpoint."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from glpi_jax.errors import GlpiError
from glpi_jax.models.glpi import GLPI
from glpi_jax.porting.convert import load_torch
from glpi_jax.training.checkpoint import BestCheckpoint
from glpi_jax.training.state import abstract_variables, tree_differences


class StartingWeights(NamedTuple):
    """Weights and where they are from.

    Attributes:
        variables: `params` and `batch_stats`, NumPy float32.
        origin: for the record, fit for JSON: `path`, `sha256` (of a checkpoint's file, of a run's
            arrays) and `selection`, which is how a run selected them and None for a file.
    """

    variables: dict[str, Any]
    origin: dict[str, Any]


def read_starting_weights(path: str, model: GLPI, mesh: Mesh) -> StartingWeights:
    """Read the weights of a workdir or an official checkpoint for a model, all or nothing.

    Args:
        path: `config.init_from`: a workdir, whose selected weights are taken, or a .pth, .pt or
            .safetensors file.
        model: the network that starts from them.
        mesh: where a workdir's weights are restored to.

    Raises:
        GlpiError: nothing there, nothing trained, unreadable, or of another model; every
            difference is listed.
    """
    source = Path(path)
    target = abstract_variables(model, mesh=mesh)
    if source.is_dir():
        best = BestCheckpoint(source, read_only=True)
        try:
            restored, selection = best.restore(target, model_of="config.model")
        finally:
            best.close()
        variables = jax.tree.map(np.asarray, restored)
        digest = _arrays_sha256(variables)
        return StartingWeights(variables, {"path": path, "sha256": digest, "selection": selection})
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
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return StartingWeights(variables, {"path": path, "sha256": digest, "selection": None})


def _arrays_sha256(variables: dict[str, Any]) -> str:
    """A digest of names, shapes and values, whatever files hold them."""
    digest = hashlib.sha256()
    for name, array in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
