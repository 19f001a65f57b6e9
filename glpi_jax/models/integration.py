"""Progressive integration: patch embedding of CNN taps, CWSA, SIEM, the stack and the head.

Source: arXiv 2408.03885, section III, and the authors' PyTorch implementation.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from glpi_jax.models.layers import (
    Dropout,
    Layer,
    PatchEmbedding,
    gelu,
    layer_norm,
    torch_bias_init,
    torch_dense,
    torch_kernel_init,
    types_of,
)
from glpi_jax.models.resnet import ResNet

CWSA_NORM_EPSILON = 1e-5
L2_EPSILON = 1e-12


def scramble(y: jax.Array) -> jax.Array:
    """Transpose y (B, C, N) to (B, N, C) and read its memory again as (B, C, N).

    Not a transpose back: the authors' code reshapes, and their checkpoints are trained with it.
    """
    return y.transpose(0, 2, 1).reshape(y.shape)


def _l2_normalize(x: jax.Array) -> jax.Array:
    """torch.nn.functional.normalize over the last axis, in float32."""
    x = x.astype(jnp.float32)
    # The square root has no gradient at zero: take it of a positive number there.
    squared = jnp.sum(jnp.square(x), -1, keepdims=True)
    norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return x / jnp.maximum(norm, L2_EPSILON)


class CWSA(Layer, kw_only=True):
    """Channel-wise self-attention: channels attend to channels, each described by its N tokens."""

    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, examples: jax.Array | None) -> jax.Array:
        """Map x (B, C, N) to (B, C, N); with dropout if `examples` numbers them."""
        tokens = x.shape[-1]
        types = types_of(self)
        dense = functools.partial(torch_dense, tokens, fan_in=tokens, **types)
        q = _l2_normalize(dense(name="c_q")(x)).astype(self.dtype)
        k = _l2_normalize(dense(name="c_k")(x)).astype(self.dtype)
        v = dense(name="c_v")(x)
        logits = (q @ k.swapaxes(-1, -2)).astype(jnp.float32) * tokens**-0.5  # (B, C, C)
        y = nn.softmax(logits).astype(self.dtype) @ v  # (B, C, N)
        y = Dropout(self.dropout, name="dropout")(scramble(y), examples)
        norm = layer_norm(epsilon=CWSA_NORM_EPSILON, param_dtype=self.param_dtype, name="norm")
        return x + norm(y).astype(self.dtype)


class SIEM(Layer, kw_only=True):
    """Spatial integration: one 3×3 convolution over the token grid, nothing else."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (B, C, N), N tokens of a square grid, to tokens (B, N, features)."""
        batch, channels, tokens = x.shape
        side = round(tokens**0.5)
        grid = x.transpose(0, 2, 1).reshape(batch, side, side, channels)
        y = nn.Conv(
            self.features,
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=torch_kernel_init,
            name="conv",
        )(grid)
        return y.reshape(batch, tokens, self.features)


class CLFE(Layer, kw_only=True):
    """CNN local features: three ResNet stages, each embedded into the ViT's token grid."""

    dim: int
    patch: int
    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    inference_stages: tuple[str, ...]
    remat: str = "none"
    plain: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> list[jax.Array]:
        """Map normalised images (B, H, W, 3) to one token matrix (B, N, d) for each stage."""
        types = types_of(self)
        resnet = ResNet(
            stem=self.stem,
            widths=self.widths,
            blocks=self.blocks,
            inference_stages=self.inference_stages,
            remat=self.remat,
            plain=self.plain,
            name="backbone",
            **types,
        )
        _, stages = resnet(images, train)
        embedded = []
        for i, features in enumerate(stages.values(), 1):
            kernel = self.patch // (2 ** (i + 1))  # stage strides 4, 8, 16: kernels 4, 2, 1
            embedding = PatchEmbedding(
                features=self.dim,
                patch=kernel,
                kernel_init=torch_kernel_init,
                bias_init=torch_bias_init(kernel * kernel * features.shape[-1]),
                plain=self.plain,
                name=f"patch_embed{i}",
                **types,
            )
            embedded.append(embedding(features))
        return embedded


class QualityHead(Layer, kw_only=True):
    """Regression of the pooled feature to one score."""

    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, examples: jax.Array | None) -> jax.Array:
        """Map x (B, d) to scores (B,), float32; with dropout if `examples` numbers them."""
        dim = x.shape[-1]
        types = types_of(self)
        x = gelu(torch_dense(dim, fan_in=dim, name="fc1", **types)(x))
        x = Dropout(self.dropout, name="dropout")(x, examples)
        return torch_dense(1, fan_in=dim, name="fc2", **types)(x)[:, 0].astype(jnp.float32)
