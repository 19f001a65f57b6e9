"""torchvision's ResNet (V1, bottleneck): GLPI's convolutional branch, and semantic vectors.

Source: torchvision `resnet.py` (`resnet50`, `resnet101`). GLPI takes the stem and the first three
stages; SAQT's retrieval takes all four and pools them.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glpi_jax.models.layers import BatchNorm, Conv1x1, Layer, max_pool, rematerialized, types_of

EXPANSION = 4

# Of the photographs that torchvision's weights were trained on; RGB from 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Padding is given in numbers, as torch has it: SAME differs when the stride is 2.
_conv = functools.partial(nn.Conv, use_bias=False, kernel_init=_conv_init)


def _valid(shape: tuple[int, ...], sizes: jax.Array) -> jax.Array:
    """(B, H, W, 1) bool: which positions of a (B, H, W, C) array the sizes (B, 2) cover."""
    rows = jnp.arange(shape[1])[None] < sizes[:, :1]
    columns = jnp.arange(shape[2])[None] < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None])[..., None]


def _zero_beyond(x: jax.Array, sizes: jax.Array | None) -> jax.Array:
    """Zeros outside of each image, as a convolution's own padding would have them there."""
    return x if sizes is None else jnp.where(_valid(x.shape, sizes), x, 0)


def _strided(sizes: jax.Array | None, stride: int) -> jax.Array | None:
    """Sizes behind a convolution or pooling of this stride, padded as torch pads."""
    return sizes if sizes is None else (sizes + stride - 1) // stride


class Bottleneck(Layer, kw_only=True):
    """Bottleneck residual block; the stride sits on the 3×3 convolution (torchvision's V1.5)."""

    width: int
    stride: int
    project: bool
    plain: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, use_batch_statistics: bool, sizes: jax.Array | None = None
    ) -> jax.Array:
        """Map x (B, H, W, C) to (B, ⌈H/stride⌉, ⌈W/stride⌉, 4·width).

        `sizes` is how much of x is image, (B, 2) int32 or None for all; what lies beyond it in the
        result is arbitrary.
        """
        features = EXPANSION * self.width
        types = types_of(self)
        conv1x1 = functools.partial(Conv1x1, kernel_init=_conv_init, plain=self.plain, **types)
        norm = functools.partial(BatchNorm, param_dtype=self.param_dtype, plain=self.plain)
        y = conv1x1(features=self.width, stride=1, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, use_batch_statistics)).astype(self.dtype)
        y = _zero_beyond(y, sizes)  # the only layer here that sees its neighbours comes next
        y = _conv(self.width, (3, 3), self.stride, padding=1, name="conv2", **types)(y)
        y = nn.relu(norm(name="bn2")(y, use_batch_statistics)).astype(self.dtype)
        y = conv1x1(features=features, stride=1, name="conv3")(y)
        y = norm(name="bn3")(y, use_batch_statistics)
        if self.project:
            x = conv1x1(features=features, stride=self.stride, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x, use_batch_statistics)
        return nn.relu(x.astype(jnp.float32) + y).astype(self.dtype)


class ResNet(Layer, kw_only=True):
    """ResNet stem and stages layer1, layer2, … (strides 4, 8, 16, 32), without pooling and fc.

    Attributes:
        stem: channels after the stem.
        widths: bottleneck width of each stage, three stages for GLPI, four for the whole network;
            a stage outputs 4 times as many channels.
        blocks: blocks in each stage.
        inference_stages: parts (`stem`, `layer1`, …) whose BatchNorm keeps its running statistics
            also in training.
        dtype, param_dtype: of the computation (BatchNorm is always float32) and the parameters.
        remat: of the blocks, see `rematerialized`.
        plain: XLA's own convolutions, pooling and gradients; see `BatchNorm`, `Conv1x1`,
            `max_pool`.
    """

    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    inference_stages: tuple[str, ...]
    remat: str = "none"
    plain: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, sizes: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run on normalised images (B, H, W, 3).

        Args:
            images: normalised; sides of any length.
            train: BatchNorm on batch statistics.
            sizes: (B, 2) int32, height and width of each image where the batch pads them below and
                on the right, else None. The results are those of the images without padding.

        Returns:
            The last stage's output, and all stage outputs `layer1`, `layer2`, …, NHWC. With
            `sizes`, only the first ⌈height/stride⌉ rows and ⌈width/stride⌉ columns mean anything.

        Raises:
            ValueError: `sizes` in training, where padding would count in the batch statistics.
        """
        if sizes is not None and train:
            raise ValueError("padded images have no batch statistics: train needs sizes=None")
        images = _zero_beyond(images, sizes)
        statistics = train and "stem" not in self.inference_stages
        types = types_of(self)
        x = _conv(self.stem, (7, 7), 2, padding=3, name="conv1", **types)(images)
        norm = BatchNorm(param_dtype=self.param_dtype, plain=self.plain, name="bn1")
        x = nn.relu(norm(x, statistics)).astype(self.dtype)
        sizes = _strided(sizes, 2)
        x = _zero_beyond(x, sizes)  # behind a ReLU zero never wins a maximum, like torch's -inf
        x = max_pool(x, plain=self.plain)
        sizes = _strided(sizes, 2)

        taps = {}
        bottleneck = functools.partial(
            rematerialized(Bottleneck, self.remat, static=1), plain=self.plain, **types
        )
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 1):
            statistics = train and f"layer{stage}" not in self.inference_stages
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                name = f"layer{stage}_{i}"
                block = bottleneck(width=width, stride=stride, project=i == 0, name=name)
                x = block(x, statistics, sizes)
                sizes = _strided(sizes, stride)
            taps[f"layer{stage}"] = x
        return x, taps


def semantic_vectors(
    resnet: ResNet, variables: Any, images: jax.Array, sizes: jax.Array
) -> jax.Array:
    """Describe whole photographs: the last stage, averaged over the image, at unit length.

    Computed at float32's full precision on every device, so that one table fits all of them.

    Args:
        resnet: whole network; 2048 values come from ResNet-50 and ResNet-101.
        variables: its `params` and `batch_stats`.
        images: (B, H, W, 3) uint8 RGB, padded below and on the right with anything.
        sizes: (B, 2) int32, each image's height and width, at least 1.

    Returns:
        (B, 4·widths[-1]) float32, of L2 norm 1 (0 where every value is 0).
    """
    mean = np.array(IMAGENET_MEAN, np.float32)
    std = np.array(IMAGENET_STD, np.float32)
    scaled = images.astype(jnp.float32) / 255
    normalised = (scaled - mean[None, None, None]) / std[None, None, None]
    with jax.default_matmul_precision("highest"):
        features, taps = resnet.apply(variables, normalised, False, sizes)
    for _ in range(len(taps) + 1):  # one stride of 2 in each stage but the first, two in the stem
        sizes = (sizes + 1) // 2
    total = jnp.sum(_zero_beyond(features.astype(jnp.float32), sizes), (1, 2))
    pooled = total / jnp.prod(sizes, 1)[:, None]
    norm = jnp.linalg.norm(pooled, axis=1, keepdims=True)
    return pooled / jnp.maximum(norm, 1e-12)
