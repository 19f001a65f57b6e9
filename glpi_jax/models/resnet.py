"""Convolutional branch's backbone: torchvision's ResNet (V1, bottleneck) up to layer3.

Source: torchvision `resnet.py` (`resnet50`), stem and the first three stages.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from glpi_jax.models.layers import BatchNorm, Conv1x1, Dtype

EXPANSION = 4
_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, kernel: int, stride: int, dtype: Dtype, name: str) -> nn.Conv:
    """Square convolution without bias, padded as torch pads (SAME differs when stride is 2)."""
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=kernel // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=_conv_init,
        name=name,
    )


def _max_pool(x: jax.Array) -> jax.Array:
    """torch's MaxPool2d(3, stride 2, padding 1) over NHWC, as maxima of strided slices.

    On the CPU its gradient is five times faster than that of `nn.max_pool`. Only where values tie
    do the gradients differ (shared instead of given to the first); after a ReLU ties are zeros,
    whose gradient the ReLU drops.
    """
    height, width = x.shape[1:3]  # even: crops are multiples of the patch
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    columns = [x[:, :, i : i + width : 2] for i in range(3)]
    x = jnp.maximum(jnp.maximum(columns[0], columns[1]), columns[2])
    rows = [x[:, i : i + height : 2] for i in range(3)]
    return jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])


class Bottleneck(nn.Module):
    """Bottleneck residual block; the stride sits on the 3×3 convolution (torchvision's V1.5)."""

    width: int
    stride: int
    project: bool
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, use_batch_statistics: bool) -> jax.Array:
        """Map x (B, H, W, C) to (B, H/stride, W/stride, 4·width)."""
        features = EXPANSION * self.width
        y = Conv1x1(self.width, 1, self.dtype, _conv_init, name="conv1")(x)
        y = nn.relu(BatchNorm(name="bn1")(y, use_batch_statistics)).astype(self.dtype)
        y = _conv(self.width, 3, self.stride, self.dtype, "conv2")(y)
        y = nn.relu(BatchNorm(name="bn2")(y, use_batch_statistics)).astype(self.dtype)
        y = Conv1x1(features, 1, self.dtype, _conv_init, name="conv3")(y)
        y = BatchNorm(name="bn3")(y, use_batch_statistics)
        if self.project:
            x = Conv1x1(features, self.stride, self.dtype, _conv_init, name="downsample_conv")(x)
            x = BatchNorm(name="downsample_bn")(x, use_batch_statistics)
        return nn.relu(x.astype(jnp.float32) + y).astype(self.dtype)


class ResNet(nn.Module):
    """ResNet stem and stages layer1, layer2, layer3 (strides 4, 8 and 16).

    Attributes:
        stem: channels after the stem.
        widths: bottleneck width of each stage; a stage outputs 4 times as many channels.
        blocks: blocks in each stage.
        inference_stages: parts (`stem`, `layer1`, …) whose BatchNorm keeps its running statistics
            also in training.
        dtype: compute dtype (BatchNorm is always float32).
    """

    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    inference_stages: tuple[str, ...]
    dtype: Dtype

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run on normalised images (B, H, W, 3).

        Returns:
            layer3's output, and all stage outputs `layer1`, `layer2`, `layer3`, NHWC.
        """
        statistics = train and "stem" not in self.inference_stages
        x = _conv(self.stem, 7, 2, self.dtype, "conv1")(images)
        x = nn.relu(BatchNorm(name="bn1")(x, statistics)).astype(self.dtype)
        x = _max_pool(x)

        taps = {}
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 1):
            statistics = train and f"layer{stage}" not in self.inference_stages
            for i in range(blocks):
                stride = 2 if stage > 1 and i == 0 else 1
                name = f"layer{stage}_{i}"
                x = Bottleneck(width, stride, i == 0, self.dtype, name=name)(x, statistics)
            taps[f"layer{stage}"] = x
        return x, taps
