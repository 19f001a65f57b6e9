"""Layers with torch's semantics that Flax does not offer as they are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

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


class Layer(nn.Module, kw_only=True):
    """A module that computes in `dtype`, on parameters of `param_dtype`."""

    dtype: Dtype
    param_dtype: Dtype = jnp.float32


def types_of(module: Any) -> dict[str, Any]:
    """Return the `dtype` and `param_dtype` of a module, as keywords for the modules in it."""
    return {"dtype": module.dtype, "param_dtype": module.param_dtype}


def torch_dense(
    features: int, *, fan_in: int, dtype: Dtype, param_dtype: Dtype, name: str
) -> nn.Dense:
    """Dense layer that starts as `torch.nn.Linear(fan_in, features)` does."""
    return nn.Dense(
        features,
        dtype=dtype,
        param_dtype=param_dtype,
        kernel_init=torch_kernel_init,
        bias_init=torch_bias_init(fan_in),
        name=name,
    )


# LayerNorm computed in float32, the variance from centred values as torch does.
layer_norm = functools.partial(nn.LayerNorm, dtype=jnp.float32, use_fast_variance=False)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU by erf, as torch computes it; `jax.nn` takes erfc, much slower on the CPU."""
    return x * (0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5))


REMATERIALIZATIONS = ("none", "dots", "full")


def rematerialized(module: type[nn.Module], what: str, *, static: int | None) -> type[nn.Module]:
    """A module that computes its intermediates again for the gradient, to hold fewer of them.

    Args:
        module: the class of a block.
        what: "none" holds everything, "dots" what matrix products without a batch dimension give
            (no attention weights), "full" only what goes into a block.
        static: the argument of `__call__`, counted from 1, that is a Python value, if there is one.
    """
    if what == "none":
        return module
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if what == "dots" else None
    static_argnums = () if static is None else (static + 1,)  # 0 and 1 are the module and x
    return nn.remat(module, policy=policy, static_argnums=static_argnums)


class Dropout(nn.Module):
    """Dropout whose mask of an example depends on the rng `dropout` and the example's number alone.

    So neither the other examples of a call nor the devices and processes that share a batch change
    it. A rate that is a multiple of 1/256 costs a random byte for each value, another one four.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, examples: jax.Array | None) -> jax.Array:
        """Drop values of x (B, …) for the examples (B,) int32; None leaves x as it is."""
        if examples is None or self.rate == 0:
            return x
        dtype = jnp.uint8 if (self.rate * 256).is_integer() else jnp.uint32
        threshold = round(self.rate * 2 ** (8 * jnp.dtype(dtype).itemsize))
        key = self.make_rng("dropout")

        def drawn(example: jax.Array) -> jax.Array:
            return jax.random.bits(jax.random.fold_in(key, example), x.shape[1:], dtype)

        kept = jax.vmap(drawn)(examples) >= jnp.array(threshold, dtype)
        return jnp.where(kept, x / (1 - self.rate), 0)


def _normalize_plainly(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise x (B, H, W, C) by its own mean and biased variance, which are returned as well."""
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, (0, 1, 2))
    var = jnp.mean(jnp.square(x - mean[None, None, None]), (0, 1, 2))
    multiplier = scale * jax.lax.rsqrt(var + epsilon)
    y = (x - mean[None, None, None]) * multiplier[None, None, None] + bias[None, None, None]
    return y, mean, var


# With the gradient written out, which reads x twice; JAX's own does so seven times on the CPU. None
# flows through the returned statistics, which only move the running ones.
_normalize_by_batch = jax.custom_vjp(_normalize_plainly, nondiff_argnums=(3,))


def _normalize_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, ...]]:
    y, mean, var = _normalize_by_batch(x, scale, bias, epsilon)
    return (y, mean, var), (x, scale, mean, jax.lax.rsqrt(var + epsilon))


def _normalize_backward(
    epsilon: float,
    saved: tuple[jax.Array, ...],
    cotangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse = saved
    dy, *_ = cotangents
    count = x.size // x.shape[-1]
    normalized = (x.astype(jnp.float32) - mean[None, None, None]) * inverse[None, None, None]
    d_bias = jnp.sum(dy, (0, 1, 2))
    d_scale = jnp.sum(dy * normalized, (0, 1, 2))
    common = d_bias[None, None, None] + normalized * d_scale[None, None, None]
    dx = (scale * inverse)[None, None, None] * (dy - common / count)
    return dx.astype(x.dtype), d_scale, d_bias


_normalize_by_batch.defvjp(_normalize_forward, _normalize_backward)


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm2d` over NHWC, in float32.

    In training the biased batch variance normalises while the unbiased one moves the running
    variance, and `momentum` weighs the new value (torch's 0.1 is Flax's 0.9). Under `jax.jit` with
    a batch sharded over devices the statistics are those of the global batch. `plain` leaves the
    gradient to JAX.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    param_dtype: Dtype = jnp.float32
    plain: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, use_batch_statistics: bool) -> jax.Array:
        """Normalise x (B, H, W, C); returns float32 of the same shape."""
        features = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (features,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), self.param_dtype)
        scale, bias = scale.astype(jnp.float32), bias.astype(jnp.float32)

        if use_batch_statistics:
            normalize = _normalize_plainly if self.plain else _normalize_by_batch
            y, mean, var = normalize(x, scale, bias, self.epsilon)
            if not self.is_initializing():
                count = x.size // features
                unbiased = var * (count / (count - 1))
                running_mean.value += self.momentum * (mean - running_mean.value)
                running_var.value += self.momentum * (unbiased - running_var.value)
            return y
        multiplier = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
        centred = x.astype(jnp.float32) - running_mean.value[None, None, None]
        return centred * multiplier[None, None, None] + bias[None, None, None]


def _convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's convolution of x (B, H, W, C) without padding."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class PatchEmbedding(Layer, kw_only=True):
    """Convolution with kernel = stride and a bias, as a product of each patch with a matrix.

    On the CPU that is faster than XLA's convolution, above all its gradient, which `plain` takes.
    The kernel has the convolution's shape (patch, patch, C, features).
    """

    features: int
    patch: int
    kernel_init: Callable[..., jax.Array]
    bias_init: Callable[..., jax.Array]
    plain: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (B, H, W, C), sides multiples of the patch, to tokens (B, N, features)."""
        batch, height, width, channels = x.shape
        patch = self.patch
        kernel = self.param(
            "kernel", self.kernel_init, (patch, patch, channels, self.features), self.param_dtype
        )
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.plain:
            tokens = _convolve(x, kernel, patch).reshape(batch, -1, self.features)
        else:
            x = x.reshape(batch, height // patch, patch, width // patch, patch, channels)
            patches = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)
            tokens = patches @ kernel.reshape(-1, self.features)
        return tokens + bias.astype(self.dtype)[None, None]


class Conv1x1(Layer, kw_only=True):
    """1×1 convolution without bias as a matrix product, much faster than XLA's convolution on CPU.

    `plain` takes the convolution. The kernel has its shape (1, 1, C_in, C_out).
    """

    features: int
    stride: int
    kernel_init: Callable[..., jax.Array]
    plain: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x (B, H, W, C_in) to (B, ceil(H/stride), ceil(W/stride), features)."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.plain:
            return _convolve(x, kernel, self.stride)
        return jnp.einsum("bhwc,cd->bhwd", x[:, :: self.stride, :: self.stride], kernel[0, 0])


def max_pool(x: jax.Array, *, plain: bool) -> jax.Array:
    """torch's MaxPool2d(3, stride 2, padding 1) over NHWC, as maxima of strided slices.

    On the CPU its gradient is five times faster than that of `nn.max_pool`, which `plain` takes.
    Only where values tie do the gradients differ (shared instead of given to the first); after a
    ReLU ties are zeros, whose gradient the ReLU drops. Sides may be odd: (B, H, W, C) to
    (B, ⌈H/2⌉, ⌈W/2⌉, C).
    """
    if plain:
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    columns = [x[:, :, i : i + width : 2] for i in range(3)]
    x = jnp.maximum(jnp.maximum(columns[0], columns[1]), columns[2])
    rows = [x[:, i : i + height : 2] for i in range(3)]
    return jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])
