"""Layers with torch's semantics that Flax does not offer as they are."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = jnp.dtype | type

# torch's default for Linear and Conv2d: kaiming_uniform(a=sqrt(5)), that is U(±1/sqrt(fan_in)).
torch_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias_init(fan_in: int) -> Callable[..., jax.Array]:
    """Initialiser of torch's Linear and Conv2d biases: U(±1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_dense(features: int, fan_in: int, dtype: Dtype, name: str) -> nn.Dense:
    """Dense layer that starts as `torch.nn.Linear(fan_in, features)` does."""
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=torch_kernel_init,
        bias_init=torch_bias_init(fan_in),
        name=name,
    )


def layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    """LayerNorm computed in float32, the variance from centred values as torch does."""
    return nn.LayerNorm(epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d` over NHWC, in float32.

    In training the biased batch variance normalises while the unbiased one moves the running
    variance, and `momentum` weighs the new value (torch's 0.1 is Flax's 0.9). Under `jax.jit` with
    a batch sharded over devices the statistics are those of the global batch.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, use_batch_statistics: bool) -> jax.Array:
        """Normalise x (B, H, W, C); returns float32 of the same shape."""
        features = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)

        x = x.astype(jnp.float32)
        if use_batch_statistics:
            mean = jnp.mean(x, (0, 1, 2))
            var = jnp.mean(jnp.square(x - mean[None, None, None]), (0, 1, 2))
            if not self.is_initializing():
                count = x.size // features
                unbiased = var * (count / (count - 1))
                running_mean.value += self.momentum * (mean - running_mean.value)
                running_var.value += self.momentum * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        multiplier = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x - mean[None, None, None]) * multiplier[None, None, None] + bias[None, None, None]


class Conv1x1(nn.Module):
    """1×1 convolution without bias as a matrix product, much faster than XLA's convolution on CPU.

    The kernel keeps the convolution's shape (1, 1, C_in, C_out).
    """

    features: int
    stride: int
    dtype: Dtype
    kernel_init: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (B, H, W, C_in) to (B, ceil(H/stride), ceil(W/stride), features)."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = x[:, :: self.stride, :: self.stride].astype(self.dtype)
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0].astype(self.dtype))
