"""Between official state dicts and Flax variables, strictly, in NumPy."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from glpi_jax.models.glpi import GLPI, NO_REMAT, SIZES, Size
from glpi_jax.weights import torch_names
from glpi_jax.weights.torch_files import CheckpointError, read_state, unwrap

OFFICIAL_DROPOUT = 0.5
IMAGENET_CLASSES = 1000
COUNT = ".num_batches_tracked"
MEAN = ".running_mean"  # of every BatchNorm that counts its batches

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A Flax variable and its official counterpart.

    One that has none is not `official`: its name is its Flax path, its layout Flax's.
    """

    collection: str
    path: tuple[str, ...]
    torch_name: str
    torch_shape: Shape
    layout: str
    official: bool = True


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
        CheckpointError: unreadable file, no known size, an installed package whose GLPI has other
            variables than the official one, or entries that `check` refuses.
    """
    if isinstance(source, Mapping):
        model, arrays = read_weights(source, "state dict")
    else:
        model, arrays = read_weights(read_state(Path(source)), str(source))
    return model, to_variables(arrays, flax_entries(model))


def read_weights(source: Mapping[str, Any], label: str) -> tuple[GLPI, dict[str, np.ndarray]]:
    """Check an official state dict, whatever its container and prefixes.

    Args:
        source: see `load_torch`.
        label: what an error calls it.

    Returns:
        The model, with the official dropout, and all entries by current name in official order,
        float32 (half precision widened) or int64 (`num_batches_tracked`).

    Raises:
        CheckpointError: as `load_torch`.
    """
    arrays, problems = named_arrays(unwrap(source), torch_names.current_name)
    model = GLPI(_infer_size(arrays, label), OFFICIAL_DROPOUT)
    check_names(model, label)
    shapes = official_shapes(model, _classes(arrays))
    check(arrays, shapes, label, problems)
    return model, {name: arrays[name] for name in shapes}


def named_arrays(
    state: Mapping[str, Any], current_name: Callable[[str], str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a state dict by `current_name` of their names, and what is wrong with it."""
    arrays: dict[str, np.ndarray] = {}
    problems, others = [], []
    for original, value in state.items():
        name = current_name(str(original))
        if name in arrays:
            problems.append(f"twice under old and new names: {name}")
        try:
            arrays[name] = to_numpy(value)
        except (TypeError, ValueError, RuntimeError):
            others.append(name)
    if others:
        problems.append(f"not an array: {', '.join(others)}")
    return arrays, problems


def flax_entries(model: GLPI) -> Sequence[Entry]:
    """Every variable of a model that has an official name, with name, shape and layout."""
    return tuple(entry for entry in all_entries(model) if entry.official)


def all_entries(model: GLPI) -> Sequence[Entry]:
    """Every variable of a model, those without an official name included."""
    # Neither changes a shape, and cuDNN's attention cannot be traced without its GPU.
    return entries_of(model.clone(attention="matmul", remat=NO_REMAT), model.size.crop)


def check_names(model: GLPI, label: str) -> None:
    """Raise a CheckpointError unless every variable of a model has an official name."""
    others = [f"{e.collection}/{'/'.join(e.path)}" for e in all_entries(model) if not e.official]
    if others:
        more = f" and {len(others) - 1} more have" if others[1:] else " has"
        raise CheckpointError(
            f"{label}: {others[0]}{more} no name in official PyTorch files"
            " (glpi_jax/weights/torch_names.py); a hub folder (glpi push) and StableHLO"
            " (glpi export) hold such a model"
        )


@functools.lru_cache(maxsize=8)
def entries_of(module: nn.Module, side: int, inside: str = "") -> Sequence[Entry]:
    """Every variable of GLPI, or of a module that has a part's names: `clfe/backbone/`, say."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    initialise = functools.partial(module.init, train=False)
    variables = jax.eval_shape(initialise, jax.random.key(0), image)
    entries = []
    for (collection, *path), leaf in traverse_util.flatten_dict(variables).items():
        own, official = "/".join(path), True
        try:
            name, layout = torch_names.to_torch_name(collection, inside + own)
        except KeyError:
            name, layout, official = f"{collection}/{own}", torch_names.SAME, False
        order = np.argsort(torch_names.AXES.get(layout, range(len(leaf.shape))))
        shape = tuple(leaf.shape[axis] for axis in order)
        entries.append(Entry(collection, tuple(path), name, shape, layout, official))
    return tuple(entries)


def official_shapes(model: GLPI, classes: int = IMAGENET_CLASSES) -> dict[str, Shape]:
    """Every official name of a model and its shape, in the order of the official file."""
    size, vit, first = model.size, torch_names.VIT_PREFIX, f"{torch_names.VIT_PREFIX}blocks.0."
    shapes = {entry.torch_name: entry.torch_shape for entry in flax_entries(model)}
    for name, shape in tuple(shapes.items()):
        if name.startswith(first):  # the blocks behind the last tap are like it
            for i in range(max(size.taps) + 1, size.depth):
                shapes[f"{vit}blocks.{i}.{name.removeprefix(first)}"] = shape
        if name.endswith(MEAN):
            shapes[name.removesuffix(MEAN) + COUNT] = ()
    shapes |= {f"{vit}norm.{leaf}": (size.vit_dim,) for leaf in ("weight", "bias")}
    shapes |= {f"{vit}head.weight": (classes, size.vit_dim), f"{vit}head.bias": (classes,)}
    return {name: shapes[name] for name in torch_names.in_official_order(shapes)}


def carried_names(model: GLPI) -> list[str]:
    """Official names of what no Flax variable holds, in official order."""
    held = {entry.torch_name for entry in flax_entries(model)}
    return [name for name in official_shapes(model) if name not in held]


def is_count(name: str) -> bool:
    """Whether an official entry counts a BatchNorm's batches: int64, no parameter."""
    return name.endswith(COUNT)


def to_variables(arrays: Mapping[str, np.ndarray], entries: Sequence[Entry]) -> dict[str, Any]:
    """Flax variables, NumPy float32, from checked official arrays."""
    flat = {
        (entry.collection, *entry.path): torch_names.to_flax_layout(
            arrays[entry.torch_name], entry.layout
        )
        for entry in entries
    }
    return traverse_util.unflatten_dict(flat)


def to_official(
    variables: Mapping[str, Any], carried: Mapping[str, np.ndarray], model: GLPI, label: str
) -> dict[str, np.ndarray]:
    """The official state dict, in official order.

    Args:
        variables: `params` and `batch_stats` of the model, float32 or bfloat16.
        carried: every entry of `carried_names`, by official name.
        model: the network.
        label: where the variables come from, for an error.

    Raises:
        CheckpointError: a variable without an official name; or entries that `check` refuses.
    """
    check_names(model, label)
    arrays = {**official_arrays(variables, flax_entries(model)), **carried}
    shapes = official_shapes(model, _classes(arrays))
    check(arrays, shapes, label)
    return {name: arrays[name] for name in shapes}


def official_arrays(
    variables: Mapping[str, Any], entries: Sequence[Entry]
) -> dict[str, np.ndarray]:
    """Undo `to_variables`; bfloat16 becomes float32."""
    flat = traverse_util.flatten_dict(variables)
    return {
        entry.torch_name: torch_names.to_official_layout(
            to_numpy(np.asarray(flat[entry.collection, *entry.path])), entry.layout
        )
        for entry in entries
    }


def to_numpy(value: Any) -> np.ndarray:
    """An array of a tensor or an array; half precision becomes float32, which holds all of it.

    Raises:
        TypeError: it is neither.
    """
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if not isinstance(value, np.ndarray | np.generic | int | float):
        raise TypeError(type(value))
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def check(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int | None, ...]],
    label: str,
    problems: Sequence[str] = (),
) -> None:
    """Raise one error with every entry that is missing, unexpected, misshapen, … .

    Args:
        arrays: by torch name.
        shapes: what they should be, None fits any length; `is_count` entries int64, all others
            float32.
        label: what the error calls them.
        problems: found before, for the same error.
    """
    misshapen, other_dtype, not_finite = [], [], []
    for name in sorted(shapes.keys() & arrays.keys()):
        array, dtype = arrays[name], np.dtype(np.int64 if is_count(name) else np.float32)
        if not _fits(array.shape, shapes[name]):
            misshapen.append(f"{name} {array.shape} instead of {shapes[name]}")
        if array.dtype != dtype:
            other_dtype.append(f"{name} {array.dtype} instead of {dtype}")
        elif not np.isfinite(array).all():
            not_finite.append(name)
    found = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (
            ("missing", sorted(shapes.keys() - arrays.keys())),
            ("unexpected", sorted(arrays.keys() - shapes.keys())),
            ("misshapen", misshapen),
            ("of another dtype", other_dtype),
            ("not finite", not_finite),
        )
        if names
    ]
    if found or problems:
        raise CheckpointError(f"{label} does not fit the model: {'; '.join([*problems, *found])}")


def _fits(shape: Shape, wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        w is None or s == w for s, w in zip(shape, wanted, strict=True)
    )


def _infer_size(arrays: Mapping[str, np.ndarray], label: str) -> Size:
    """The known size whose ViT width and ResNet match; the crop follows from `pos_embed`."""
    position = arrays.get("vgfe.backbone.pos_embed")
    stem = arrays.get("clfe.backbone.conv1.weight")
    if position is None or position.ndim != 3 or stem is None or stem.ndim != 4:
        raise CheckpointError(
            f"{label}: not a GLPI checkpoint: vgfe.backbone.pos_embed or "
            "clfe.backbone.conv1.weight is missing or misshapen"
        )
    _, positions, dim = position.shape
    side = round(max(positions - 1, 0) ** 0.5)
    for size in SIZES.values():
        if size.vit_dim == dim and size.stem == stem.shape[0] and side**2 == positions - 1 > 0:
            return dataclasses.replace(size, crop=side * size.patch)
    known = ", ".join(f"{name} (width {size.vit_dim})" for name, size in SIZES.items())
    raise CheckpointError(
        f"{label}: vgfe.backbone.pos_embed has shape {position.shape}, which fits no known size: "
        f"{known}"
    )


def _classes(arrays: Mapping[str, np.ndarray]) -> int:
    """Classes of the ViT's classifier, ImageNet's unless the file has another one."""
    head = arrays.get("vgfe.backbone.head.weight")
    return IMAGENET_CLASSES if head is None or head.ndim != 2 else head.shape[0]
