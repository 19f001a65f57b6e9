"""`model.safetensors` of a hub folder: arrays by name, in one of three forms.

`load_state_dict(..., strict=False)` of the authors' code takes float32 and float16. int8 is a
quarter of float32: each large kernel is int8 with one scale for each row of outputs, so that a
weight is off by at most half of 1/127 of its row's largest; everything else is float32.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.weights.torch_files import safetensors_errors

FORMS = ("float32", "float16", "int8")
_SCALE_SUFFIX = ".int8_scale"
_SMALLEST_KERNEL = 10_000  # weights; smaller ones gain nothing
_STEPS = 127  # of int8, on either side of zero


def encode_weights(arrays: Mapping[str, np.ndarray], form: str) -> bytes:
    """Encode finite float32 arrays, by official name, as a safetensors file in one of `FORMS`.

    Of a kernel the first axis is the output. The same arrays give the same bytes.

    Raises:
        GlpiError: an unknown form, or a number that float16 cannot hold.
    """
    from safetensors.numpy import save

    if form not in FORMS:
        raise GlpiError(f"weights {form!r}: choose one of {', '.join(FORMS)}")
    stored = dict(arrays)
    if form == "float16":
        for name, array in arrays.items():
            with np.errstate(over="ignore"):
                stored[name] = array.astype(np.float16)
            if not np.isfinite(stored[name]).all():
                raise GlpiError(f"{name}: holds numbers beyond float16; take --weights float32")
    elif form == "int8":
        for name, array in arrays.items():
            if array.ndim > 1 and array.size >= _SMALLEST_KERNEL:
                stored[name], stored[f"{name}{_SCALE_SUFFIX}"] = _to_int8(array)
    # One key: safetensors writes several in any order. "pt": names and layout are PyTorch's.
    return bytes(save(stored, metadata={"format": "pt"}))


def decode_weights(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read a file of any form: arrays by official name, and the file's SHA-256.

    They are float32 unless the file holds something else.

    Raises:
        GlpiError: the file is missing, or no readable safetensors file.
    """
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        stored = load(content)
    except OSError as error:
        raise GlpiError(f"{path}: cannot be read ({error.strerror})") from error
    except safetensors_errors() as error:
        raise GlpiError(f"{path}: not a readable safetensors file ({error})") from error
    int8_scales = {f"{name}{_SCALE_SUFFIX}" for name in stored if stored[name].dtype == np.int8}
    arrays = {}
    for name, array in stored.items():
        scale = stored.get(f"{name}{_SCALE_SUFFIX}")
        if array.dtype == np.int8 and scale is not None and scale.shape == array.shape[:1]:
            wide = array.astype(np.float32)
            arrays[name] = wide * scale.reshape(-1, *[1] * (array.ndim - 1))
        elif array.dtype == np.float16:
            arrays[name] = array.astype(np.float32)
        elif name not in int8_scales:
            arrays[name] = array
    return arrays, hashlib.sha256(content).hexdigest()


def _to_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the int8 kernel and its scale (rows,) float32."""
    largest = np.abs(kernel).reshape(len(kernel), -1).max(1)
    scale = (np.where(largest > 0, largest, 1) / _STEPS).astype(np.float32)
    steps = np.rint(kernel / scale.reshape(-1, *[1] * (kernel.ndim - 1)))
    return np.clip(steps, -_STEPS, _STEPS).astype(np.int8), scale
