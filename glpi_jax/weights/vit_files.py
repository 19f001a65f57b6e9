"""Vision transformers as they are published: timm's state dicts, DINOv2, original augreg files.

Sources: the names of timm's `vision_transformer.py`, its resampling of position embeddings, and the
variables of google-research/vision_transformer, which the .npz files hold.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from glpi_jax.models.glpi import GLPI, Size
from glpi_jax.weights.convert import check, named_arrays, official_shapes
from glpi_jax.weights.dinov2 import is_dinov2, to_plain_vit
from glpi_jax.weights.torch_files import CheckpointError, read_state, unwrap
from glpi_jax.weights.torch_names import (
    AXES,
    VIT_PREFIX,
    renamed,
    to_flax_name,
    to_official_layout,
    without_ddp,
)

# Modules of an augreg file and of timm, `{}` stands for a number. An augreg file has the three
# projections of an attention one by one, as `query`, `key` and `value`; they are joined first.
_BLOCK, _ATTENTION = "Transformer/encoderblock_{}", "MultiHeadDotProductAttention_1"
_MODULES = {
    "embedding": "patch_embed.proj",
    f"{_BLOCK}/LayerNorm_0": "blocks.{}.norm1",
    f"{_BLOCK}/{_ATTENTION}/qkv": "blocks.{}.attn.qkv",
    f"{_BLOCK}/{_ATTENTION}/out": "blocks.{}.attn.proj",
    f"{_BLOCK}/LayerNorm_2": "blocks.{}.norm2",
    f"{_BLOCK}/MlpBlock_3/Dense_0": "blocks.{}.mlp.fc1",
    f"{_BLOCK}/MlpBlock_3/Dense_1": "blocks.{}.mlp.fc2",
    "Transformer/encoder_norm": "norm",
    "head": "head",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_ARRAYS = {"cls": "cls_token", "Transformer/posembed_input/pos_embedding": "pos_embed"}


def read_vit(path: Path, model: GLPI) -> dict[str, np.ndarray]:
    """Read a published ViT for a model, with the position embeddings of the model's crop.

    Args:
        path: .safetensors, .pth or .pt with timm's names, the state dict perhaps under
            `state_dict` or `model`; a DINOv2 in one of these, with timm's names or those of
            Hugging Face's `Dinov2Model`; or .npz with the names of the augreg files.
        model: the network whose ViT it becomes.

    Returns:
        All entries of the ViT by official name, `vgfe.backbone.…`, float32.

    Raises:
        CheckpointError: unreadable file, another ViT than the model's, or entries that `check`
            refuses.
    """
    if path.suffix == ".npz":
        arrays, problems = _from_augreg(_read_npz(path), model.size)
    else:
        arrays, problems = named_arrays(unwrap(read_state(path)), without_ddp)
        if is_dinov2(arrays):
            arrays, unfit = to_plain_vit(arrays, model.size.patch)
            problems += unfit
    size, label = model.size, str(path)
    found = arrays.get("cls_token")
    if found is not None and found.shape[-1:] != (size.vit_dim,):
        raise CheckpointError(
            f"{label}: a ViT of width {found.shape[-1] if found.ndim else 1}, where the model has"
            f" {size.vit_dim}: take the file of that size, or another config.model.name"
        )
    shapes: dict[str, tuple[int | None, ...]] = {
        name.removeprefix(VIT_PREFIX): shape
        for name, shape in official_shapes(model).items()
        if name.startswith(VIT_PREFIX)
    }
    head = arrays.get("head.weight")
    if head is not None and head.ndim == 2:  # ImageNet-21k has more classes
        shapes |= {"head.weight": (head.shape[0], size.vit_dim), "head.bias": (head.shape[0],)}
    shapes["pos_embed"] = (1, None, size.vit_dim)
    check(arrays, shapes, label, problems)
    arrays["pos_embed"] = resample_positions(arrays["pos_embed"], size.crop // size.patch, label)
    return {f"{VIT_PREFIX}{name}": arrays[name] for name in shapes}


def resample_positions(pos_embed: np.ndarray, side: int, label: str) -> np.ndarray:
    """Fit position embeddings to another crop, as timm does: bicubic and antialiased.

    Args:
        pos_embed: (1, 1 + n², d) float32, that of the class token first, then a square grid.
        side: patches along a side of the crop.
        label: what an error calls the file.

    Returns:
        (1, 1 + side², d) float32; the class token's is kept, and all of them if n is `side`.

    Raises:
        CheckpointError: the grid is not square.
    """
    _, positions, dim = pos_embed.shape
    old = round(max(positions - 1, 0) ** 0.5)
    if old**2 != positions - 1 or not old:
        raise CheckpointError(
            f"{label}: pos_embed has {positions} positions, which are no class token and square"
            " grid of patches"
        )
    if old == side:
        return pos_embed
    grid = pos_embed[0, 1:].reshape(old, old, dim)
    # Its cubic is that of torch's antialiased bicubic (a = -0.5), which has -0.75 without.
    resized = jax.image.resize(grid, (side, side, dim), "cubic", antialias=True)
    return np.concatenate([pos_embed[:, :1], np.asarray(resized).reshape(1, side**2, dim)], 1)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint file") from error
    # np.load gives an array, which has no `with`, for a file of one.
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a readable .npz file of arrays ({error})") from error


def _from_augreg(
    arrays: Mapping[str, np.ndarray], size: Size
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an augreg file with timm's names and axes, and what is wrong with them.

    What a ViT does not have keeps its name.
    """
    joined, problems = _join_heads(arrays, size)
    named = {}
    for name, array in joined.items():
        timm = _timm_name(name)
        if timm is None:
            named[name] = array
            continue
        _, _, layout = to_flax_name(f"{VIT_PREFIX}{timm}")
        # Of other axes it is misshapen, which is told with everything else.
        fits = array.ndim == len(AXES.get(layout, array.shape))
        named[timm] = to_official_layout(array, layout) if fits else array
    return named, problems


def _join_heads(
    arrays: Mapping[str, np.ndarray], size: Size
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Attention with one `qkv`, all heads side by side, and what is wrong with it."""
    heads, width = size.heads, size.vit_dim // size.heads
    inner = {"kernel": (size.vit_dim, heads, width), "bias": (heads, width)}
    joined, problems = dict(arrays), []
    begin = re.compile(_BLOCK.format(r"(\d+)") + "/")
    blocks = {found[1] for name in arrays if (found := begin.match(name))}

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        array = joined.pop(name, None)
        if array is not None and array.shape == shape:
            return array
        found = "missing" if array is None else f"{array.shape} instead of {shape}"
        problems.append(f"{name} {found}")
        return None

    for block in sorted(blocks, key=int):
        attention = f"{_BLOCK.format(block)}/{_ATTENTION}"
        out = take(f"{attention}/out/kernel", (heads, width, size.vit_dim))
        if out is not None:
            joined[f"{attention}/out/kernel"] = out.reshape(size.vit_dim, size.vit_dim)
        for leaf, shape in inner.items():
            parts = [
                take(f"{attention}/{part}/{leaf}", shape) for part in ("query", "key", "value")
            ]
            flat = [part.reshape(*shape[:-2], size.vit_dim) for part in parts if part is not None]
            if len(flat) == len(parts):
                joined[f"{attention}/qkv/{leaf}"] = np.concatenate(flat, -1)
    return joined, problems


def _timm_name(name: str) -> str | None:
    """timm's name of an augreg array, None if it has none."""
    module, _, leaf = name.rpartition("/")
    timm = renamed(module, _MODULES) if leaf in _LEAVES else None
    return _ARRAYS.get(name) or (timm and f"{timm}.{_LEAVES[leaf]}")
