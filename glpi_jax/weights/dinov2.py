"""DINOv2's ViT as the plain ViT that GLPI has: LayerScale, patch 14 and pixel norm folded away.

Sources: the names of timm's `vit_small_patch14_dinov2`, of Hugging Face's `Dinov2Model`, and of the
authors' own files (arXiv 2304.07193); the pseudo-inverse resize of FlexiViT (arXiv 2212.08013).
"""

import re
from collections.abc import Mapping

import jax
import numpy as np

from glpi_jax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from glpi_jax.weights.convert import IMAGENET_CLASSES
from glpi_jax.weights.torch_names import renamed

# Hugging Face's modules and timm's; `{}` stands for a block's number.
_BLOCK = "encoder.layer.{}"
_MODULES = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    f"{_BLOCK}.norm1": "blocks.{}.norm1",
    f"{_BLOCK}.attention.attention.query": "blocks.{}.attn.q",
    f"{_BLOCK}.attention.attention.key": "blocks.{}.attn.k",
    f"{_BLOCK}.attention.attention.value": "blocks.{}.attn.v",
    f"{_BLOCK}.attention.output.dense": "blocks.{}.attn.proj",
    f"{_BLOCK}.layer_scale1": "blocks.{}.ls1",
    f"{_BLOCK}.norm2": "blocks.{}.norm2",
    f"{_BLOCK}.mlp.fc1": "blocks.{}.mlp.fc1",
    f"{_BLOCK}.mlp.fc2": "blocks.{}.mlp.fc2",
    f"{_BLOCK}.layer_scale2": "blocks.{}.ls2",
    "layernorm": "norm",
}
_ARRAYS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
}
_HUGGING_FACE = re.compile(r"(?:dinov2\.|backbone\.)?(?=embeddings\.|encoder\.|layernorm\.)")
_SCALE = re.compile(r"(blocks\.\d+)\.ls([12])\.gamma")
_BLOCK_NAME = re.compile(r"(blocks\.\d+)\.")
_SCALED = {"1": "attn.proj", "2": "mlp.fc2"}  # the linear layer before each LayerScale


def is_dinov2(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return True if a state dict has DINOv2's LayerScale, under timm's or Hugging Face's names."""
    return any(_SCALE.fullmatch(name) or ".layer_scale" in name for name in arrays)


def to_plain_vit(
    arrays: Mapping[str, np.ndarray], patch: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Turn DINOv2's state dict into that of a plain ViT with the same outputs.

    LayerScale is folded into the linear layer before it, exactly; the pixel normalisation, from
    ImageNet's mean and deviation to (x/255 − 0.5)/0.5, into the patch embedding, exactly; the patch
    kernel is resized by the pseudo-inverse, so that an image whose patches were enlarged linearly
    gives the tokens that the patches gave. The unused mask token is dropped. DINOv2 has no
    classifier, so the result's, which never reaches the score, is zeros.

    Args:
        arrays: float32 arrays, by timm's or Hugging Face's name.
        patch: side of the wanted patch in pixels.

    Returns:
        The arrays by timm's name, and what does not let them fold. An entry that DINOv2 does not
        have keeps its name, for the caller's check.
    """
    named = _join_attention({_timm_name(name): array for name, array in arrays.items()})
    named.pop("mask_token", None)
    folded = {name: array for name, array in named.items() if not _SCALE.fullmatch(name)}
    blocks = {found[1] for name in named if (found := _BLOCK_NAME.match(name))}
    problems = []
    for block in sorted(blocks):
        for which, layer in _SCALED.items():
            scale = named.get(f"{block}.ls{which}.gamma")
            entries = [f"{block}.{layer}.{leaf}" for leaf in ("weight", "bias")]
            rows = [folded[entry].shape[:1] for entry in entries if entry in folded]
            if scale is None:
                problems.append(f"{block}.ls{which}.gamma missing")
            elif set(rows) != {scale.shape}:
                problems.append(f"{block}.ls{which}.gamma {scale.shape} does not fit {entries[0]}")
            else:
                for entry in entries:
                    array = folded.get(entry)
                    if array is not None:
                        folded[entry] = array * scale.reshape(-1, *[1] * (array.ndim - 1))
    kernel, bias = (folded.get(f"patch_embed.proj.{leaf}") for leaf in ("weight", "bias"))
    if kernel is not None and bias is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
        kernel, bias = _fold_normalisation(kernel, bias)
        folded["patch_embed.proj.weight"] = resize_kernel(kernel, patch)
        folded["patch_embed.proj.bias"] = bias
        folded.setdefault("head.weight", np.zeros((IMAGENET_CLASSES, len(bias)), np.float32))
        folded.setdefault("head.bias", np.zeros(IMAGENET_CLASSES, np.float32))
    return folded, problems


def resize_kernel(kernel: np.ndarray, patch: int) -> np.ndarray:
    """Resize a patch embedding's kernel by the pseudo-inverse of the linear resize.

    Args:
        kernel: (d, C, p, p) float32.
        patch: the wanted side.

    Returns:
        (d, C, patch, patch) float32. If `patch` ≥ p, patches enlarged linearly from p give exactly
        what the original kernel gave before.
    """
    side = kernel.shape[-1]
    if side == patch:
        return kernel
    resize = np.asarray(
        jax.image.resize(np.eye(side, dtype=np.float32), (patch, side), "linear", antialias=False)
    ).astype(np.float64)  # (patch, p)
    inverse = np.linalg.pinv(resize.T)  # (patch, p)
    resized = np.einsum("ai,dcij,bj->dcab", inverse, kernel.astype(np.float64), inverse)
    return resized.astype(np.float32)


def _fold_normalisation(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patch embedding of (x/255 − 0.5)/0.5 from that of ImageNet's normalisation."""
    mean = np.array(IMAGENET_MEAN)[None, :, None, None]
    deviation = np.array(IMAGENET_STD)[None, :, None, None]
    wide = kernel.astype(np.float64)
    shift = (wide * (0.5 - mean) / deviation).sum((1, 2, 3))
    return (wide / (2 * deviation)).astype(np.float32), (bias + shift).astype(np.float32)


def _timm_name(name: str) -> str:
    """timm's name of Hugging Face's; others are kept."""
    prefix = _HUGGING_FACE.match(name)
    if not prefix:
        return name
    name = name[prefix.end() :]
    module, _, leaf = name.rpartition(".")
    timm = renamed(module, _MODULES)
    ending = "gamma" if leaf == "lambda1" else leaf
    return _ARRAYS.get(name) or (f"{timm}.{ending}" if timm else name)


def _join_attention(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Query, key and value, one below the other, as timm's `qkv`."""
    joined = dict(arrays)
    for name in arrays:
        if found := re.fullmatch(r"(blocks\.\d+\.attn)\.q\.(weight|bias)", name):
            prefix, leaf = found.groups()
            parts = [f"{prefix}.{part}.{leaf}" for part in "qkv"]
            shapes = {arrays[part].shape if part in arrays else None for part in parts}
            if len(shapes) == 1:
                joined[f"{prefix}.qkv.{leaf}"] = np.concatenate([joined.pop(p) for p in parts])
    return joined
