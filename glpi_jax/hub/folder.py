"""The hub folder: `config.json`, `model.safetensors` and `README.md`, complete in themselves.

The weights have the names and the layout of the official PyTorch state dict, so that whoever uses
the authors' code can read them too, with `load_state_dict(..., strict=False)`: entries that never
reach the score are left out. `glpi_jax.weights.torch_names` is the table of names. What a changed
model has besides goes by its Flax path, such as `params/quality_head/extra/kernel`, in Flax's
layout.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from glpi_jax import __version__
from glpi_jax.core.config import flatten
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import staging_folder, write_bytes
from glpi_jax.data.preprocessing import ASSUMED, RESIZE_FORMS, Preprocessing, is_resize
from glpi_jax.data.transforms import RESIZE_METHODS
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.hub.weights_file import decode_weights, encode_weights
from glpi_jax.models.glpi import GLPI, Size
from glpi_jax.weights.convert import all_entries, check, official_arrays, to_variables

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
LIBRARY = "glpi_jax"
FORMAT = 2  # 1 has no preprocessing and no scale and shift of the labels; it is still read

_Check = Callable[[Any], bool]


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder is meant to be one: it has the weights, or a config of this library."""
    return (folder / WEIGHTS_FILE).is_file() or _has_own_config(folder)


def _has_own_config(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == LIBRARY


def check_destination(folder: Path, *, force: bool) -> None:
    """Raise a GlpiError unless a folder is missing, empty or, with `force`, a hub folder.

    Its config says that it is one, for many libraries call their weights `model.safetensors`.
    """
    if folder.exists() and not folder.is_dir():
        raise GlpiError(f"{folder}: this is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not _has_own_config(folder):
        raise GlpiError(
            f'{folder}: holds other things than a GLPI model (no "library_name": "{LIBRARY}" in'
            f" {CONFIG_FILE}); name a new folder"
        )
    if not force:
        raise GlpiError(f"{folder}: holds a model already; --force replaces it")


def write_folder(
    trained: TrainedModel, folder: Path, *, card: str, force: bool, form: str = "float32"
) -> None:
    """Write a hub folder, whole or not at all; the same model and card give the same bytes.

    Of an existing one, which takes `force`, the three files are replaced and others, `.git` for
    one, stay. Reading it tells if that was interrupted.

    Args:
        trained: the model.
        folder: missing, empty, or a hub folder.
        card: text of README.md.
        force: replace the model of a hub folder.
        form: of the weights, see `weights_file`.

    Raises:
        GlpiError: see `check_destination`; weights that do not fit the model or are not finite; or
            the folder cannot be written.
    """
    check_destination(folder, force=force)
    entries = all_entries(trained.model)
    arrays = official_arrays(trained.variables, entries)
    check(arrays, {entry.torch_name: entry.torch_shape for entry in entries}, "the trained model")
    weights = encode_weights(arrays, form)
    config = _config_of(trained) | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    files = {
        WEIGHTS_FILE: weights,
        CARD_FILE: card.encode(),
        CONFIG_FILE: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    if _has_own_config(folder):
        for name, content in files.items():
            write_bytes(folder / name, content)
        return
    target = folder.resolve()  # "." has no name
    try:
        with staging_folder(target) as staging:
            for name, content in files.items():
                write_bytes(staging / name, content)
            os.replace(staging, target)
    except OSError as error:
        raise GlpiError(f"{folder}: cannot be written ({error.strerror})") from error


def read_folder(folder: Path) -> TrainedModel:
    """Read a hub folder, strictly.

    Raises:
        GlpiError: a file is missing or unreadable; keys of the config that are missing, unknown or
            have an impossible value: all of them in one message; then weights that are missing,
            unexpected, misshapen, of another dtype, not finite, or not those that the config
            belongs to: again all in one.
    """
    values = _read_config(folder)
    size: dict[str, Any] = {
        field.name: values[f"model.size.{field.name}"] for field in dataclasses.fields(Size)
    }
    size |= {key: tuple(size[key]) for key in ("taps", "widths", "blocks")}
    model = GLPI(
        size=Size(**size),
        dropout=float(values["model.dropout"]),
        batch_norm_inference_stages=tuple(values["model.batch_norm_inference_stages"]),
        dtype=jnp.dtype(values["model.dtype"]),
    )
    path = folder / WEIGHTS_FILE
    arrays, digest = decode_weights(path)
    problems = []
    if digest != values["weights_sha256"]:
        problems.append(
            f"its SHA-256 is not the weights_sha256 of {CONFIG_FILE}: damaged, or of another model"
        )
    entries = all_entries(model)
    check(arrays, {entry.torch_name: entry.torch_shape for entry in entries}, str(path), problems)
    preprocessing = ASSUMED
    if values["format"] != 1:
        names = ("resize", "method", "apply_orientation")
        preprocessing = Preprocessing.from_json({k: values[f"preprocessing.{k}"] for k in names})
    low_high = values["labels.score_range"]
    card = folder / CARD_FILE
    return TrainedModel(
        name=values["model.name"],
        model=model,
        variables=to_variables(arrays, entries),
        preprocessing=preprocessing,
        preprocessing_assumed=values.get("preprocessing.assumed", True),
        crops=values["scoring.crops"],
        batch_size=values["scoring.batch_size"],
        label_scale=float(values.get("labels.scale", 1.0)),
        label_shift=float(values.get("labels.shift", 0.0)),
        score_name=values["labels.score_name"],
        higher_is_better=values["labels.higher_is_better"],
        score_range=None if low_high is None else (float(low_high[0]), float(low_high[1])),
        label_note=values["labels.label_note"],
        card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None,
    )


def _config_of(trained: TrainedModel) -> dict[str, Any]:
    """Everything that is needed to build the network and to score with it."""
    model = trained.model
    return {
        "library_name": LIBRARY,
        "format": FORMAT,
        "package_version": __version__,
        "model": {
            "name": trained.name,
            "dropout": model.dropout,
            "dtype": jnp.dtype(model.dtype).name,
            "batch_norm_inference_stages": list(model.batch_norm_inference_stages),
            "size": dataclasses.asdict(model.size),
        },
        "preprocessing": {
            **trained.preprocessing.to_json(),
            "assumed": trained.preprocessing_assumed,
        },
        "scoring": {
            "crops": trained.crops,
            "placement": "grid",
            "batch_size": trained.batch_size,
        },
        "labels": {
            "score_name": trained.score_name,
            "higher_is_better": trained.higher_is_better,
            "score_range": trained.score_range,
            "scale": trained.label_scale,
            "shift": trained.label_shift,
            "label_note": trained.label_note,
        },
    }


def _read_config(folder: Path) -> dict[str, Any]:
    """The values of the config by the keys of `_KEYS`; format 1 lacks `_KEYS_SINCE_2`."""
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise GlpiError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise GlpiError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("library_name") != LIBRARY:
        raise GlpiError(f'{path}: not the config of a GLPI model (no "library_name": "{LIBRARY}")')
    if config.get("format") not in (1, FORMAT):
        raise GlpiError(f"{path}: format {config.get('format')}, this version reads 1 and {FORMAT}")
    values = flatten(config)
    known = _KEYS.keys() - (_KEYS_SINCE_2 if config["format"] == 1 else set())
    problems = [f"no {key}" for key in sorted(known - values.keys())]
    problems += [f"unknown {key}" for key in sorted(values.keys() - known)]
    problems += [
        f"{key} = {json.dumps(values[key])} must be {what}"
        for key, (what, holds) in _KEYS.items()
        if key in values and not holds(values[key])
    ]
    values.setdefault("model.size.vit_dim", values.get("model.size.dim"))
    if not problems:  # each number is possible by itself
        for number, divisor in (("crop", "patch"), ("vit_dim", "heads")):
            if values[f"model.size.{number}"] % values[f"model.size.{divisor}"]:
                problems.append(f"model.size.{number} must be a multiple of model.size.{divisor}")
        if values["model.size.taps"][-1] >= values["model.size.depth"]:
            problems.append("model.size.taps must be blocks below model.size.depth")
    if problems:
        raise GlpiError(f"{path}: {'; '.join(problems)}")
    return values


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)


def _list_of(holds: _Check, length: int | None = None) -> _Check:
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(map(holds, value))
    )


def _rises(values: list[float]) -> bool:
    return all(low < high for low, high in itertools.pairwise(values))


_TEXT = ("text", lambda value: isinstance(value, str))
_TRUTH = ("true or false", lambda value: isinstance(value, bool))
_COUNT = ("a whole number from 1", lambda value: _is_integer(value) and value >= 1)
_THREE_COUNTS = ("three whole numbers from 1", _list_of(_COUNT[1], 3))
# Every key of the config: what its value must be.
_KEYS: dict[str, tuple[str, _Check]] = {
    "library_name": _TEXT,
    "format": _COUNT,
    "package_version": _TEXT,
    "weights_sha256": _TEXT,
    "model.name": _TEXT,
    "model.dropout": ("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1),
    "model.dtype": ("float32 or bfloat16", lambda v: v in ("float32", "bfloat16")),
    "model.batch_norm_inference_stages": ("a list of text", _list_of(_TEXT[1])),
    **{f"model.size.{field.name}": _COUNT for field in dataclasses.fields(Size)},
    "model.size.patch": ("16", lambda v: _is_integer(v) and v == 16),
    "model.size.taps": (
        "four rising whole numbers from 0",
        lambda v: _list_of(_is_integer, 4)(v) and _rises([-1, *v]),
    ),
    "model.size.widths": _THREE_COUNTS,
    "model.size.blocks": _THREE_COUNTS,
    "preprocessing.resize": (
        RESIZE_FORMS.replace("(", "[").replace(")", "]"),
        lambda v: isinstance(v, list) and is_resize(tuple(v)),
    ),
    "preprocessing.method": (" or ".join(RESIZE_METHODS), lambda v: v in RESIZE_METHODS),
    "preprocessing.apply_orientation": _TRUTH,
    "preprocessing.assumed": _TRUTH,
    "scoring.crops": _COUNT,
    "scoring.placement": ("grid", lambda v: v == "grid"),
    "scoring.batch_size": _COUNT,
    "labels.score_name": _TEXT,
    "labels.higher_is_better": ("true, false or null", lambda v: v is None or isinstance(v, bool)),
    "labels.score_range": (
        "two rising numbers or null",
        lambda v: v is None or (_list_of(_is_number, 2)(v) and _rises(v)),
    ),
    "labels.scale": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "labels.shift": ("a number", _is_number),
    "labels.label_note": _TEXT,
}
_KEYS_SINCE_2 = {key for key in _KEYS if key.startswith("preprocessing.")} | {
    "labels.scale",
    "labels.shift",
    "model.size.vit_dim",  # the same as `dim` before
}
