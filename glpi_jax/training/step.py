"""One training step, pure, and its compilation over the mesh."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from glpi_jax.models.glpi import GLPI
from glpi_jax.training.optimizer import FlatParams, merge_params, split_params
from glpi_jax.training.sharding import batch_sharding, replicated
from glpi_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


def normalise(images: jax.Array) -> jax.Array:
    """Map uint8 pixels to float32 in [-1, 1]: (x/255 − 0.5)/0.5, as the official transform."""
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def train_step(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    state: TrainState,
    images: jax.Array,
    scores: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Take one step on the L1 loss.

    Only the trainable parameters are differentiated, so that nothing is computed for frozen ones.

    Args:
        model, optimizer, multipliers: as given to `create_state`.
        state: before the step.
        images: (B, crop, crop, 3) float32, normalised.
        scores: (B,) float32 labels.

    Returns:
        The next state, and `loss` (mean absolute error), `grad_norm` (trainable parameters) and
        `predictions` (B,).
    """
    trainable, frozen = split_params(state.params, multipliers)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.dropout_key), state.step)

    def loss_fn(trainable: FlatParams) -> tuple[jax.Array, tuple[jax.Array, dict]]:
        (predictions, _), updated = model.apply(
            {"params": merge_params(trainable, frozen), "batch_stats": state.batch_stats},
            images,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return jnp.mean(jnp.abs(predictions - scores)), (predictions, updated["batch_stats"])

    (loss, (predictions, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
        trainable
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, trainable)
    trainable = optax.apply_updates(trainable, updates)
    next_state = state.replace(
        step=state.step + 1,
        params=merge_params(trainable, frozen),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    metrics = {
        "loss": loss,
        "grad_norm": optax.tree.norm(gradients),
        "predictions": predictions,
    }
    return next_state, metrics


def compile_train_step(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    mesh: Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Jit `train_step` over the mesh for batches {"image": uint8, "score": float32}.

    The state is donated and stays replicated; the batch is split over the data axis.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        images = normalise(batch["image"])
        return train_step(model, optimizer, multipliers, state, images, batch["score"])

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, split),
        out_shardings=(whole, {"loss": whole, "grad_norm": whole, "predictions": whole}),
        donate_argnums=0,
    )
