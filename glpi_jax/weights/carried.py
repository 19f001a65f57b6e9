"""Official entries that never reach the score, kept so that an official file can be written.

They are the ViT blocks behind the last tap, the ViT's final norm and classifier, and the counts of
batches in every BatchNorm. No Flax variable holds them: a workdir keeps them in
`carried.safetensors`, beside `run.json`, and training leaves that file alone.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_bytes
from glpi_jax.models.glpi import GLPI
from glpi_jax.weights.convert import (
    IMAGENET_CLASSES,
    carried_names,
    check,
    is_count,
    named_arrays,
    official_shapes,
    read_weights,
)
from glpi_jax.weights.torch_files import CheckpointError, read_state, safetensors_errors, unwrap
from glpi_jax.weights.torch_names import VIT_PREFIX, current_name

CARRIED_FILE = "carried.safetensors"


class Carried(NamedTuple):
    """Entries that never reach the score.

    Attributes:
        arrays: by official name: float32, counts int64.
        step: step of the run at which the counts were taken.
    """

    arrays: Mapping[str, np.ndarray]
    step: int


def write_carried(workdir: Path, carried: Carried) -> None:
    """Put carried entries into a workdir.

    Raises:
        GlpiError: the file cannot be written.
    """
    from safetensors.numpy import save

    content = save(dict(carried.arrays), metadata={"step": str(carried.step)})
    write_bytes(workdir / CARRIED_FILE, content)


def read_carried(workdir: Path) -> Carried | None:
    """Read a workdir's carried entries; None where it has none.

    Raises:
        CheckpointError: the file is damaged.
    """
    from safetensors import safe_open

    path = workdir / CARRIED_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Carried(arrays, int(file.metadata()["step"]))
    except safetensors_errors() as error:
        raise CheckpointError(
            f"{path}: not a readable file of carried weights ({error})"
        ) from error


def hand_on_carried(source: Path, workdir: Path) -> None:
    """Give a run that starts from other weights what those carry.

    The new run's steps count from 0; the counts of batches go on from those that the source keeps.

    Args:
        source: a workdir, which may carry nothing, or an official file.
        workdir: of the new run.

    Raises:
        CheckpointError: the source is damaged.
    """
    if source.is_dir():
        carried = read_carried(source)
    else:
        model, arrays = read_weights(read_state(source), str(source))
        carried = Carried({name: arrays[name] for name in carried_names(model)}, 0)
    if carried is not None:
        write_carried(workdir, carried._replace(step=0))


def read_fill(path: Path, model: GLPI) -> Carried:
    """Take the carried weights of a model's ViT from another file, for a run that has none.

    Args:
        path: .pth, .pt or .safetensors; a timm ViT under its own names, or an official GLPI file.
        model: the network; its counts of batches begin at 0.

    Raises:
        CheckpointError: unreadable, or entries missing, misshapen, of another dtype, not finite.
    """
    arrays, problems = named_arrays(unwrap(read_state(path)), current_name)
    prefix = "" if any(name.startswith(VIT_PREFIX) for name in arrays) else VIT_PREFIX
    named = {f"{prefix}{name}": array for name, array in arrays.items()}
    official = official_shapes(model)
    shapes = {name: official[name] for name in carried_names(model) if not is_count(name)}
    wanted = {name: named[name] for name in shapes if name in named}
    check(wanted, shapes, f"{path}: the part of a ViT that is needed to fill up", problems)
    return Carried(wanted | _zero_counts(model), 0)


def constant_carried(model: GLPI) -> Carried:
    """Carried entries from nothing: weights of norms 1, everything else 0.

    A ViT block of zeros is the identity, and the classifier gives 0 for every class.
    """
    shapes = official_shapes(model, IMAGENET_CLASSES)
    arrays = {
        name: np.full(shapes[name], bool(re.search(r"norm\d?\.weight$", name)), np.float32)
        for name in carried_names(model)
        if not is_count(name)
    }
    return Carried(arrays | _zero_counts(model), 0)


def carried_at(carried: Carried, step: int, model: GLPI, label: str) -> dict[str, np.ndarray]:
    """The entries at a step of the run: each BatchNorm has counted the steps since.

    Raises:
        GlpiError: the step is from before they were taken.
    """
    since = step - carried.step
    if since < 0:
        raise GlpiError(
            f"{label}: step {step} is from before step {carried.step} of {CARRIED_FILE}"
        )
    return {
        name: np.asarray(array + since, array.dtype) if _counts(name, model) else array
        for name, array in carried.arrays.items()
    }


def _counts(name: str, model: GLPI) -> bool:
    """Whether an entry is the count of a BatchNorm that sees batches in training."""
    if not is_count(name):
        return False
    layer = re.search(r"\.(layer\d+)\.", name)
    return (layer[1] if layer else "stem") not in model.batch_norm_inference_stages


def _zero_counts(model: GLPI) -> dict[str, np.ndarray]:
    return {name: np.zeros((), np.int64) for name in carried_names(model) if is_count(name)}
