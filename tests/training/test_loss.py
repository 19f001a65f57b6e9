import jax
import jax.numpy as jnp
import numpy as np

from configs.base import get_config
from glpi_jax.training.loss import LOSSES, loss_of, plcc


def test_losses_are_those_of_numpy():
    rng = np.random.default_rng(0)
    predictions, scores = rng.uniform(1, 5, (2, 64)).astype(np.float32)
    error = np.abs(predictions - scores)
    expected = {
        "l1": error.mean(),
        "mse": (error**2).mean(),
        "huber": np.where(error < 0.5, error**2 / 2, 0.5 * (error - 0.25)).mean(),
        "plcc": 1 - np.corrcoef(predictions, scores)[0, 1],
    }
    assert expected.keys() == LOSSES.keys()
    config = get_config()
    config.train.huber_delta = 0.5
    for name, value in expected.items():
        config.train.loss = name
        np.testing.assert_allclose(loss_of(config)(predictions, scores), value, rtol=1e-5)


def test_plcc_of_a_constant_is_one_and_leads_out_of_it():
    varied, constant = jnp.arange(4.0), jnp.full(4, 2.0)
    loss, gradient = jax.value_and_grad(plcc)(constant, varied)
    assert loss == 1
    assert plcc(constant - 0.1 * gradient, varied) < 0.01
    loss, gradient = jax.value_and_grad(plcc)(varied, constant)
    assert loss == 1
    np.testing.assert_array_equal(gradient, 0)
