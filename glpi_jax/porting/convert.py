"""From an official PyTorch checkpoint to a Flax model and its variables, strictly."""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from glpi_jax.errors import GlpiError
from glpi_jax.models.glpi import GLPI, SIZES, Size
from glpi_jax.porting import torch_names

OFFICIAL_DROPOUT = 0.5


class CheckpointError(GlpiError):
    """A checkpoint that is not what it should be; the message lists every difference."""


def load_torch(source: str | Path | Mapping[str, Any]) -> tuple[GLPI, dict[str, Any]]:
    """Turn an official state dict into a Flax model and its variables.

    Args:
        source: a file (.pth and .pt, which need PyTorch, or .safetensors), or a mapping from
            official names to arrays. The state dict may sit under `state_dict` or `model`, its
            names may have the prefix `module.` or the older prefixes. The model's size follows
            from the shapes.

    Returns:
        `(model, variables)`: `model.apply(variables, images)` scores; `variables` has the
        collections `params` and `batch_stats`, NumPy float32. Weights that never reach the score
        (ViT blocks behind the last tap, final norm, classifier) are checked and left out.

    Raises:
        CheckpointError: unreadable file, no known size, or names missing, unexpected, misshapen or
            not numeric: all of them in one message.
    """
    if isinstance(source, Mapping):
        label, state = "state dict", _unwrap(source)
    else:
        label, state = str(source), _unwrap(read_state(Path(source)))

    arrays: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for original, value in state.items():
        name = torch_names.current_name(str(original))
        if name in arrays:
            problems.append(f"twice under old and new names: {name}")
        try:
            arrays[name] = _to_numpy(value)
        except (TypeError, ValueError):
            problems.append(f"not an array: {name}")
    if problems:
        raise CheckpointError(f"{label}: {'; '.join(problems)}")

    size = _infer_size(arrays, label)
    model = GLPI(size, OFFICIAL_DROPOUT)
    targets = flax_entries(model)
    shapes = _carried_shapes(size) | {entry.torch_name: entry.torch_shape for entry in targets}
    _check(arrays, shapes, label)

    flat = {
        (entry.collection, *entry.path): _to_flax_layout(arrays[entry.torch_name], entry.layout)
        for entry in targets
    }
    return model, traverse_util.unflatten_dict(flat)


def read_state(path: Path) -> dict[str, Any]:
    """Read the top-level mapping of a .pth, .pt or .safetensors file without running its code."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if path.suffix not in (".pth", ".pt"):
        raise CheckpointError(f"{path}: expected a .pth, .pt or .safetensors file")
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading .pth files needs PyTorch: pip install 'glpi_jax[torch]', "
            "or convert the file to .safetensors"
        ) from error
    import pickle

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint ({reason})") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, expected a state dict")
    return dict(loaded)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A Flax variable and its official counterpart."""

    collection: str
    path: tuple[str, ...]
    torch_name: str
    torch_shape: tuple[int, ...]
    layout: str


def flax_entries(model: GLPI) -> list[Entry]:
    """Every variable of a model with its official name, shape and layout."""
    crop = model.size.crop
    image = jax.ShapeDtypeStruct((1, crop, crop, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    entries = []
    for (collection, *path), leaf in traverse_util.flatten_dict(variables).items():
        name, layout = torch_names.to_torch_name(collection, "/".join(path))
        shape = tuple(leaf.shape)
        if layout == torch_names.LINEAR:
            shape = shape[::-1]
        elif layout == torch_names.CONV:
            shape = (shape[3], shape[2], shape[0], shape[1])
        entries.append(Entry(collection, tuple(path), name, shape, layout))
    return entries


def _unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            return state[key]
    return state


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(array.dtype)
    return array


def _infer_size(arrays: dict[str, np.ndarray], label: str) -> Size:
    """The known size whose ViT width and ResNet match; the crop follows from `pos_embed`."""
    position = arrays.get("vgfe.backbone.pos_embed")
    stem = arrays.get("clfe.backbone.conv1.weight")
    if position is None or position.ndim != 3 or stem is None or stem.ndim != 4:
        raise CheckpointError(
            f"{label}: not a GLPI checkpoint: vgfe.backbone.pos_embed or "
            "clfe.backbone.conv1.weight is missing or misshapen"
        )
    _, positions, dim = position.shape
    side = round((positions - 1) ** 0.5)
    for size in SIZES.values():
        if size.dim == dim and size.stem == stem.shape[0] and side**2 == positions - 1:
            return dataclasses.replace(size, crop=side * size.patch)
    known = ", ".join(f"{name} (width {size.dim})" for name, size in SIZES.items())
    raise CheckpointError(
        f"{label}: vgfe.backbone.pos_embed has shape {position.shape}, which fits no known size: "
        f"{known}"
    )


def _carried_shapes(size: Size) -> dict[str, tuple[int | None, ...]]:
    """Shapes of official entries that never reach the score; None fits any length."""
    dim, hidden = size.dim, size.mlp_hidden
    block = {
        "norm1.weight": (dim,),
        "norm1.bias": (dim,),
        "attn.qkv.weight": (3 * dim, dim),
        "attn.qkv.bias": (3 * dim,),
        "attn.proj.weight": (dim, dim),
        "attn.proj.bias": (dim,),
        "norm2.weight": (dim,),
        "norm2.bias": (dim,),
        "mlp.fc1.weight": (hidden, dim),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (dim, hidden),
        "mlp.fc2.bias": (dim,),
    }
    shapes: dict[str, tuple[int | None, ...]] = {
        f"vgfe.backbone.blocks.{i}.{name}": shape
        for i in range(max(size.taps) + 1, size.depth)
        for name, shape in block.items()
    }
    shapes["vgfe.backbone.norm.weight"] = shapes["vgfe.backbone.norm.bias"] = (dim,)
    shapes["vgfe.backbone.head.weight"] = (None, dim)
    shapes["vgfe.backbone.head.bias"] = (None,)
    norms = ["clfe.backbone.bn1"]
    for stage, blocks in enumerate(size.blocks, 1):
        for i in range(blocks):
            prefix = f"clfe.backbone.layer{stage}.{i}"
            norms += [f"{prefix}.bn{k}" for k in (1, 2, 3)]
            if i == 0:
                norms.append(f"{prefix}.downsample.1")
    return shapes | {f"{norm}.num_batches_tracked": () for norm in norms}


def _check(
    arrays: dict[str, np.ndarray], shapes: Mapping[str, tuple[int | None, ...]], label: str
) -> None:
    """Raise one error with every missing, unexpected, misshapen and non-finite entry."""
    missing = sorted(shapes.keys() - arrays.keys())
    unexpected = sorted(arrays.keys() - shapes.keys())
    misshapen, non_finite = [], []
    for name in sorted(shapes.keys() & arrays.keys()):
        shape, wanted = arrays[name].shape, shapes[name]
        fits = len(shape) == len(wanted) and all(
            w is None or s == w for s, w in zip(shape, wanted, strict=True)
        )
        if not fits:
            misshapen.append(f"{name} {shape} instead of {wanted}")
        elif not np.isfinite(arrays[name].astype(np.float32)).all():
            non_finite.append(name)
    problems = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
            ("not finite", non_finite),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{label} does not fit the model: {'; '.join(problems)}")


def _to_flax_layout(array: np.ndarray, layout: str) -> np.ndarray:
    array = np.asarray(array, np.float32)
    if layout == torch_names.LINEAR:
        array = array.T
    elif layout == torch_names.CONV:
        array = array.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(array)
