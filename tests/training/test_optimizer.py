import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.training.optimizer import (
    cosine_schedule,
    learning_rate_multipliers,
    make_optimizer,
    merge_params,
    split_params,
)

PARAMS = {"a": {"kernel": jnp.ones(2), "bias": jnp.zeros(1)}, "b": jnp.full(3, 2.0)}
PATHS = ["a/kernel", "a/bias", "b"]


def test_first_rule_that_matches_holds():
    rules = (("a/bias", None), ("a/.*", 0.5), (".*", 1.0))
    assert learning_rate_multipliers(PATHS, rules) == {"a/bias": None, "a/kernel": 0.5, "b": 1.0}


def test_rules_match_whole_paths():
    with pytest.raises(GlpiError, match="cover no parameter named a/bias, b"):
        learning_rate_multipliers(PATHS, (("a/kernel", 1.0),))


def test_rule_without_a_parameter_is_an_error():
    with pytest.raises(GlpiError, match=r"no parameter matches 'vgfe/.*'"):
        learning_rate_multipliers(PATHS, (("vgfe/.*", None), (".*", 1.0)))


def test_split_and_merge():
    multipliers = {"a/kernel": 1.0, "a/bias": None, "b": 1.0}
    trainable, frozen = split_params(PARAMS, multipliers)
    assert sorted(trainable) == ["a/kernel", "b"]
    assert sorted(frozen) == ["a/bias"]
    assert merge_params(trainable, frozen).keys() == PARAMS.keys()


def test_schedule_is_the_cyclic_cosine():
    """Back at the top after 60 steps, zero at 30, half at 15 and 45."""
    schedule = cosine_schedule(1e-5, 30, 0)
    rates = [float(schedule(t)) for t in (0, 15, 30, 45, 60)]
    np.testing.assert_allclose(rates, [1e-5, 5e-6, 0, 5e-6, 1e-5], rtol=1e-5, atol=1e-12)


def test_warmup_scales_the_first_steps():
    schedule = cosine_schedule(1.0, 10**9, 4)
    rates = [float(schedule(t)) for t in range(6)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-5)


def adam_steps(weight_decay, multiplier, gradients):
    """torch.optim.Adam, written out."""
    x, m, v = 2.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        g = gradient + weight_decay * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x -= 0.1 * multiplier * step
    return x


@pytest.mark.parametrize("multiplier", [1.0, 0.25])
def test_adam_adds_decay_to_the_gradient(multiplier):
    section = get_config().optimizer
    section.weight_decay = 0.5
    optimizer = make_optimizer(section, lambda step: 0.1, {"x": multiplier, "frozen": None})
    params = {"x": jnp.array([2.0])}
    state = optimizer.init(params)
    gradients = [0.3, -0.7, 0.1]
    for gradient in gradients:
        updates, state = optimizer.update({"x": jnp.array([gradient])}, state, params)
        params = {"x": params["x"] + updates["x"]}
    expected = adam_steps(0.5, multiplier, gradients)
    np.testing.assert_allclose(params["x"], expected, rtol=1e-5)


def test_optimizer_of_optax_takes_schedule_arguments_and_multipliers():
    """AdamW, written out: the decay is added to the step, not to the gradient."""
    section = get_config().optimizer
    section.name, section.arguments.weight_decay = "adamw", 0.5
    optimizer = make_optimizer(section, lambda step: 0.1 / (step + 1), {"x": 0.25, "frozen": None})
    params = {"x": jnp.array([2.0])}
    state = optimizer.init(params)
    x, m, v = 2.0, 0.0, 0.0
    for t, g in enumerate([0.3, -0.7, 0.1], 1):
        updates, state = optimizer.update({"x": jnp.array([g])}, state, params)
        params = {"x": params["x"] + updates["x"]}
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x -= 0.1 / t * 0.25 * (step + 0.5 * x)
    np.testing.assert_allclose(params["x"], x, rtol=1e-5)
