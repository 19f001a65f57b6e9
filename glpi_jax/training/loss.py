"""The losses of `config.train.loss`; a new one is a function here, and its name in `LOSSES`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError

# Predictions (B,) and scores (B,), both float32, to a float32 scalar.
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def l1(predictions: jax.Array, scores: jax.Array) -> jax.Array:
    """Return the mean absolute error."""
    return jnp.mean(jnp.abs(predictions - scores))


def mse(predictions: jax.Array, scores: jax.Array) -> jax.Array:
    """Return the mean squared error."""
    return jnp.mean(jnp.square(predictions - scores))


def huber(predictions: jax.Array, scores: jax.Array, *, delta: float) -> jax.Array:
    """Return the mean Huber loss: error² / 2 up to an error of `delta`, linear beyond it."""
    error = jnp.abs(predictions - scores)
    within = jnp.minimum(error, delta)
    return jnp.mean(within * (error - within / 2))


def plcc(predictions: jax.Array, scores: jax.Array) -> jax.Array:
    """Return 1 − Pearson's correlation over the batch: 1 where either side is constant.

    It is the same for a·predictions + b with a > 0: nothing ties predictions to the scores' units.
    """
    ours, theirs = predictions - jnp.mean(predictions), scores - jnp.mean(scores)
    squared = jnp.sum(jnp.square(ours)) * jnp.sum(jnp.square(theirs))
    # The square root has no gradient at zero: take it of a positive number there.
    norm = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return 1 - jnp.sum(ours * theirs) / norm


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "l1": l1,
    "mse": mse,
    "huber": huber,
    "plcc": plcc,
}
# Means over the examples of a batch, whose gradient is the mean of those of its parts.
MEANS = ("l1", "mse", "huber")


def loss_of(config: ConfigDict) -> Loss:
    """Return the loss of a config, the whole tree.

    Raises:
        GlpiError: an unknown loss, or one that does not split into the parts of
            `config.train.accumulation`.
    """
    name, parts = config.train.loss, config.train.accumulation
    if name not in LOSSES:
        raise GlpiError(f"config.train.loss = {name!r}: choose one of {', '.join(LOSSES)}")
    if parts > 1 and name not in MEANS:
        raise GlpiError(
            f"config.train.loss = {name!r} with config.train.accumulation = {parts}: it is no mean"
            " over examples, so a batch has to be computed at once; set config.train.accumulation"
            " to 1 (config.train.remat saves memory, too)"
        )
    if name == "huber":
        return functools.partial(huber, delta=config.train.huber_delta)
    return LOSSES[name]
