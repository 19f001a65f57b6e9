"""Official checkpoint files: reading without running their code, writing in one step.

Source of the format: the authors' `save_checkpoint`, a `torch.save` of the dictionary `epoch`,
`state_dict`, `best_srocc` and, while training, `optimizer`.
"""

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import check_output, replacing

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
NO_TORCH = "needs PyTorch: pip install 'glpi_jax[torch]'"


class CheckpointError(GlpiError):
    """A checkpoint that is not what it should be; the message lists every difference."""


class OfficialCheckpoint(NamedTuple):
    """What an official file holds.

    Attributes:
        state: the state dict by current name, in official order.
        epoch: finished epochs.
        best_srocc: the highest SROCC so far, None before the first.
        optimizer: `torch.optim.Adam.state_dict()` with arrays for tensors, None without one.
    """

    state: Mapping[str, np.ndarray]
    epoch: int = 0
    best_srocc: float | None = None
    optimizer: Mapping[str, Any] | None = None


def read_state(path: Path) -> dict[str, Any]:
    """Read the top-level mapping of a .pth, .pt or .safetensors file without running its code.

    Raises:
        CheckpointError: no such file, not readable, code in it, or PyTorch is missing.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        try:
            return dict(load_file(path))
        except safetensors_errors() as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if path.suffix not in TORCH_SUFFIXES:
        raise CheckpointError(f"{path}: expected a .pth, .pt or .safetensors file")
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading .pth files {NO_TORCH}, or convert the file to .safetensors"
        ) from error
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise nearly anything on damaged files
        raise CheckpointError(
            f"{path}: not a readable PyTorch checkpoint ({_why(error)})"
        ) from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    return dict(loaded)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def safetensors_errors() -> tuple[type[Exception], ...]:
    """What safetensors raises on a file that it cannot turn into arrays."""
    from safetensors import SafetensorError

    # The last four: a dtype that NumPy does not have, such as one of 8 bits.
    return (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError)


def unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict of a file's mapping: under `state_dict`, under `model`, or the mapping."""
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            return state[key]
    return state


def check_checkpoint_output(path: Path, *, force: bool) -> None:
    """Raise a GlpiError unless a checkpoint can be written at a path."""
    if path.suffix not in SUFFIXES:
        raise GlpiError(f"{path}: must end in {', '.join(SUFFIXES)}")
    check_output(path, force=force)
    if path.suffix in TORCH_SUFFIXES:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise GlpiError(
                f"{path}: writing .pth files {NO_TORCH}, or name a .safetensors file"
            ) from error


def write_checkpoint(path: Path, checkpoint: OfficialCheckpoint, *, force: bool) -> None:
    """Write an official file, whole or not at all.

    A .pth file has all entries. A .safetensors file has the weights, and `epoch` and `best_srocc`
    as text in its metadata; it cannot hold the optimizer.

    Raises:
        GlpiError: see `check_checkpoint_output`; or the file cannot be written.
    """
    check_checkpoint_output(path, force=force)
    best = -math.inf if checkpoint.best_srocc is None else checkpoint.best_srocc
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            facts = {"epoch": str(checkpoint.epoch), "best_srocc": repr(best)}
            save_file(dict(checkpoint.state), temporary, metadata=facts)
            return
        import torch

        entries = {
            "epoch": checkpoint.epoch,
            "state_dict": OrderedDict(_to_tensors(checkpoint.state)),
            "best_srocc": best,
        }
        if checkpoint.optimizer is not None:
            entries["optimizer"] = _to_tensors(checkpoint.optimizer)
        torch.save(entries, temporary)


def _to_tensors(tree: Any) -> Any:
    """A tree with tensors for its arrays."""
    import torch

    if isinstance(tree, Mapping):
        return {key: _to_tensors(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_to_tensors(value) for value in tree]
    return torch.from_numpy(np.array(tree)) if isinstance(tree, np.ndarray) else tree


def _numpy_scalars() -> list[Any]:
    """What a NumPy number in a file is made of, such as a `best_srocc` straight from SciPy."""
    construct = np.float64(0).__reduce__()[0]  # its module has another name in NumPy 1
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)]
    return [construct, (construct, "numpy.core.multiarray.scalar"), np.dtype, *dtypes]


def _why(error: BaseException) -> str:
    """An error in a line; of torch's long refusal, what it refused."""
    text = " ".join(str(error).split())
    refusal = re.search(r"WeightsUnpickler error: (.*?)(\. Please use|\. If|Check the doc|$)", text)
    if refusal:
        return f"it holds more than weights: {refusal[1].strip()}"
    if isinstance(error, LookupError | ValueError | TypeError | AttributeError):
        return "its bytes are no checkpoint"  # the unpickler's own words tell nobody anything
    return str(error).strip().splitlines()[0] if text else type(error).__name__
