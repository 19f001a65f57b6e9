"""Vision Transformer branch (VGFE): timm's pre-norm ViT, up to the last block that is used.

Source: timm `vision_transformer.py` (`vit_small_patch16_224`), as the authors' VGFE calls it: the
outputs of chosen blocks, class token dropped, without the final norm.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from glpi_jax.models.layers import (
    Layer,
    PatchEmbedding,
    gelu,
    layer_norm,
    rematerialized,
    types_of,
)

LAYER_NORM_EPSILON = 1e-6
_dense = functools.partial(nn.Dense, kernel_init=nn.initializers.truncated_normal(0.02))

ATTENTIONS = ("matmul", "xla", "cudnn")


class SelfAttention(Layer, kw_only=True):
    """Multi-head self-attention with one fused qkv projection; the softmax in float32.

    `attention` says what computes it: "matmul" spells it out, "xla" and "cudnn" are the
    implementations of `jax.nn.dot_product_attention`. The last needs an NVIDIA GPU and bfloat16.
    """

    heads: int
    attention: Any  # of `ATTENTIONS`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens x (B, T, d) to (B, T, d)."""
        batch, tokens, dim = x.shape
        head_dim = dim // self.heads
        qkv = _dense(3 * dim, name="qkv", **types_of(self))(x)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, head_dim)
        if self.attention == "matmul":
            q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, heads, T, head_dim)
            logits = (q * head_dim**-0.5) @ k.swapaxes(-1, -2)  # (B, heads, T, T)
            weights = nn.softmax(logits.astype(jnp.float32)).astype(self.dtype)
            y = (weights @ v).transpose(0, 2, 1, 3)
        else:
            q, k, v = (qkv[:, :, i] for i in range(3))  # each (B, T, heads, head_dim)
            y = jax.nn.dot_product_attention(q, k, v, implementation=self.attention)
        y = y.reshape(batch, tokens, dim)
        return _dense(dim, name="proj", **types_of(self))(y)


class MLP(Layer, kw_only=True):
    """Two dense layers with an exact (erf) GELU between them."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens x (B, T, d) to (B, T, d)."""
        dim = x.shape[-1]
        x = gelu(_dense(self.hidden, name="fc1", **types_of(self))(x))
        return _dense(dim, name="fc2", **types_of(self))(x)


class Block(Layer, kw_only=True):
    """Pre-norm transformer block."""

    heads: int
    mlp_hidden: int
    attention: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map tokens x (B, T, d) to (B, T, d)."""
        types = types_of(self)
        norm = functools.partial(
            layer_norm, epsilon=LAYER_NORM_EPSILON, param_dtype=self.param_dtype
        )
        y = norm(name="norm1")(x).astype(self.dtype)
        x = x + SelfAttention(heads=self.heads, attention=self.attention, name="attn", **types)(y)
        y = norm(name="norm2")(x).astype(self.dtype)
        return x + MLP(hidden=self.mlp_hidden, name="mlp", **types)(y)


class ViT(Layer, kw_only=True):
    """ViT trunk that stops after the last tapped block.

    Attributes:
        dim, heads, mlp_hidden, patch: see `glpi_jax.models.glpi.Size`.
        taps: blocks (counted from 0) whose outputs are returned.
        attention: see `SelfAttention`.
        remat: of the blocks, see `rematerialized`.
        plain: see `PatchEmbedding`.
    """

    dim: int
    heads: int
    mlp_hidden: int
    patch: int
    taps: tuple[int, ...]
    attention: str = "matmul"
    remat: str = "none"
    plain: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run on normalised images (B, H, W, 3).

        Returns:
            The last tap, and all taps `block_<i>`; each (B, N, d), N patches in row-major order.
        """
        batch = images.shape[0]
        types = types_of(self)
        x = PatchEmbedding(
            features=self.dim,
            patch=self.patch,
            kernel_init=nn.initializers.lecun_normal(),
            bias_init=nn.initializers.zeros,
            plain=self.plain,
            name="patch_embed",
            **types,
        )(images)
        cls_token = self.param(
            "cls_token", nn.initializers.normal(1e-6), (1, 1, self.dim), self.param_dtype
        )
        position = self.param(
            "pos_embed",
            nn.initializers.normal(0.02),
            (1, x.shape[1] + 1, self.dim),
            self.param_dtype,
        )
        cls = jnp.broadcast_to(cls_token, (batch, 1, self.dim)).astype(self.dtype)
        x = jnp.concatenate([cls, x], axis=1) + position.astype(self.dtype)

        taps = {}
        block = rematerialized(Block, self.remat, static=None)
        for i in range(max(self.taps) + 1):
            x = block(
                heads=self.heads,
                mlp_hidden=self.mlp_hidden,
                attention=self.attention,
                name=f"blocks_{i}",
                **types,
            )(x)
            if i in self.taps:
                taps[f"block_{i}"] = x[:, 1:]
        return x[:, 1:], taps
