import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from glpi_jax.models.integration import _l2_normalize
from glpi_jax.models.layers import (
    BatchNorm,
    Conv1x1,
    Dropout,
    PatchEmbedding,
    gelu,
    max_pool,
    torch_dense,
)


def test_batch_norm_follows_torch():
    """Biased variance normalises, the unbiased one moves the running variance by 0.1."""
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 4, 5)).astype(np.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, False)
    y, updated = norm.apply(variables, x, True, mutable=["batch_stats"])
    flat = x.reshape(-1, 5).astype(np.float64)
    expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 5), expected, atol=1e-5)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_uses_running_statistics_in_inference():
    x = np.ones((1, 2, 2, 1), np.float32)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x, False)
    variables["batch_stats"] = {"mean": jnp.array([3.0]), "var": jnp.array([4.0])}
    np.testing.assert_allclose(norm.apply(variables, x, False), -1.0, atol=1e-5)


@pytest.mark.parametrize("plain", [False, True])
def test_batch_norms_gradient_is_that_of_its_formula(plain):
    """Against JAX's own derivative of mean, variance and the rest."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 2, (2, 3, 4, 5)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=5), jnp.float32) for _ in range(2))
    stats = {"mean": jnp.zeros(5), "var": jnp.ones(5)}

    def ours(x, scale, bias):
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
        y, _ = BatchNorm(plain=plain).apply(variables, x, True, mutable=["batch_stats"])
        return jnp.sum(y * weights)

    def formula(x, scale, bias):
        mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        y = (x - mean[None, None, None]) / jnp.sqrt(var + 1e-5)[None, None, None]
        return jnp.sum((y * scale[None, None, None] + bias[None, None, None]) * weights)

    found, expected = (jax.grad(f, (0, 1, 2))(x, scale, bias) for f in (ours, formula))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    of_half = jax.grad(ours)(x.astype(jnp.bfloat16), scale, bias)
    assert of_half.dtype == jnp.bfloat16


def test_gelu_is_the_exact_one():
    x = jnp.linspace(-6, 6, 1001)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)


@pytest.mark.parametrize("plain", [False, True])
def test_patch_embedding_equals_a_strided_convolution(plain):
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    layer = PatchEmbedding(
        features=5,
        patch=4,
        dtype=jnp.float32,
        kernel_init=nn.initializers.normal(1.0),
        bias_init=nn.initializers.ones,
        plain=plain,
    )
    variables = layer.init(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (4, 4, 3, 5)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer.apply(variables, x), expected.reshape(2, 6, 5) + 1, atol=1e-4)


def drop(rate, x, examples):
    rngs = {"dropout": jax.random.key(3)}
    return np.asarray(Dropout(rate).apply({}, x, jnp.asarray(examples), rngs=rngs))


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_dropout_drops_its_share_and_scales_the_rest(rate):
    x = jnp.ones((4, 50, 100))
    dropped = drop(rate, x, [0, 1, 2, 3])
    assert set(np.unique(dropped)) == {0, np.float32(1 / (1 - rate))}
    # The standard deviation of the share over 20,000 values is 0.0035.
    assert abs(np.mean(dropped == 0) - rate) < 0.015
    assert len({mask.tobytes() for mask in dropped}) == 4
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, None), x)


def test_dropout_goes_by_the_examples_number_alone():
    x = jnp.ones((4, 6, 7))
    whole = drop(0.5, x, [0, 1, 2, 3])
    np.testing.assert_array_equal(drop(0.5, x[:2], [3, 1]), whole[[3, 1]])


def test_max_pool_and_its_gradient_are_those_of_the_windowed_maximum():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 12, 3)), jnp.float32)
    expected = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    gradients = []
    for plain in (False, True):
        np.testing.assert_array_equal(max_pool(x, plain=plain), expected)
        gradients.append(jax.grad(lambda x, p=plain: jnp.square(max_pool(x, plain=p)).sum())(x))
    np.testing.assert_allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("plain", [False, True])
def test_conv1x1_equals_a_strided_convolution(plain):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    layer = Conv1x1(
        features=5,
        stride=2,
        dtype=jnp.float32,
        kernel_init=nn.initializers.normal(1.0),
        plain=plain,
    )
    variables = layer.init(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_l2_normalize_is_torchs_also_at_zero():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(_l2_normalize(x), [[0.6, 0.8], [0, 0]], atol=1e-7)
    gradient = jax.grad(lambda x: _l2_normalize(x).sum())(x)
    assert np.isfinite(gradient).all()


def test_dense_starts_like_torch():
    """U(±1/sqrt(fan_in)) for weights and biases."""
    fan_in = 400
    params = torch_dense(
        300, fan_in=fan_in, dtype=jnp.float32, param_dtype=jnp.float32, name="fc"
    ).init(jax.random.key(0), jnp.zeros((1, fan_in)))["params"]
    for leaf in jax.tree.leaves(params):
        assert np.abs(leaf).max() <= fan_in**-0.5
        np.testing.assert_allclose(leaf.std(), fan_in**-0.5 / np.sqrt(3), rtol=0.1)
