"""One training step, pure, and its compilation over the mesh."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh

from glpi_jax.core.compilation import compiler_options
from glpi_jax.distributed.mesh import FSDP_AXIS, FsdpRules, batch_sharding, replicated
from glpi_jax.models.glpi import GLPI
from glpi_jax.models.pixels import normalise
from glpi_jax.training.loss import Loss
from glpi_jax.training.optimizer import FlatParams, merge_params, split_params
from glpi_jax.training.state import TrainState, abstract_state, shardings_of

Metrics = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]
Rows = tuple[jax.Array, jax.Array, jax.Array]  # images, scores and examples of `train_step`


class Gradients(NamedTuple):
    """What a batch gives: loss, scores (B,), moved statistics, and the gradients by path."""

    loss: jax.Array
    predictions: jax.Array
    batch_stats: dict[str, Any]
    of_params: FlatParams


def train_step(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    state: TrainState,
    images: jax.Array,
    scores: jax.Array,
    examples: jax.Array | None = None,
    *,
    loss: Loss,
    accumulation: int = 1,
    shardings: TrainState | None = None,
) -> tuple[TrainState, Metrics]:
    """Take one step on a loss.

    Only the trainable parameters are differentiated, so that nothing is computed for frozen ones.

    Args:
        model, optimizer, multipliers: as given to `create_state`.
        state: before the step.
        images: (B, crop, crop, 3) float32, normalised.
        scores: (B,) float32 labels.
        examples: (B,) int32, the places of the images in the batch, which dropout goes by; 0 … B −
            1 when None.
        loss: of predictions (B,) and scores (B,), from `loss_of`.
        accumulation: parts that the batch is computed in, one after the other; see
            `_accumulated_gradients`. Above 1 the loss must be a mean over examples.
        shardings: of the state where parameters are split; they are put together for the step.

    Returns:
        The next state, and `loss`, `grad_norm` (of the trainable parameters) and `predictions`
        (B,), all float32.
    """
    if examples is None:
        examples = jnp.arange(len(images))
    trainable, frozen = split_params(state.params, multipliers)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.dropout_key), state.step)
    whole = functools.partial(_constrained, shardings=shardings, whole=True)
    of_batch = _gradients
    if accumulation > 1:
        of_batch = functools.partial(_accumulated_gradients, parts=accumulation)
    rows = (images, scores, examples)
    found = of_batch(model, loss, whole(trainable), whole(frozen), state.batch_stats, rows, key)
    gradients = _constrained(found.of_params, shardings=shardings, whole=False)
    updates, opt_state = optimizer.update(gradients, state.opt_state, trainable)
    trainable = optax.apply_updates(trainable, updates)
    next_state = state.replace(
        step=state.step + 1,
        params=merge_params(trainable, frozen),
        batch_stats=found.batch_stats,
        opt_state=opt_state,
    )
    norm = optax.tree.norm(gradients)
    return next_state, {"loss": found.loss, "grad_norm": norm, "predictions": found.predictions}


def _gradients(
    model: GLPI,
    loss: Loss,
    trainable: FlatParams,
    frozen: FlatParams,
    batch_stats: dict[str, Any],
    rows: Rows,
    key: jax.Array,
) -> Gradients:
    images, scores, examples = rows

    def loss_fn(trainable: FlatParams) -> tuple[jax.Array, tuple[jax.Array, dict[str, Any]]]:
        (predictions, _), updated = model.apply(
            {"params": merge_params(trainable, frozen), "batch_stats": batch_stats},
            images,
            train=True,
            examples=examples,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return loss(predictions, scores), (predictions, updated["batch_stats"])

    (value, (predictions, moved)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(trainable)
    return Gradients(value, predictions, moved, gradients)


def _accumulated_gradients(
    model: GLPI,
    loss: Loss,
    trainable: FlatParams,
    frozen: FlatParams,
    batch_stats: dict[str, Any],
    rows: Rows,
    key: jax.Array,
    *,
    parts: int,
) -> Gradients:
    """What `_gradients` gives for a mean over examples, but for rounding, with less memory.

    BatchNorm's statistics are those of the whole batch, so the CNN branch, of which little is held
    for the gradient, computes it at once. The rest, which holds nine tenths and knows no batch,
    takes it in parts.
    """
    of_cnn = {path: x for path, x in trainable.items() if path.startswith("clfe/")}
    of_rest = {path: x for path, x in trainable.items() if path not in of_cnn}

    def local_features(of_cnn: FlatParams) -> tuple[list[jax.Array], dict[str, Any]]:
        params = merge_params(of_cnn, frozen)["clfe"]
        variables = {"params": params, "batch_stats": batch_stats["clfe"]}
        features, updated = model.make_clfe().apply(
            variables, rows[0].astype(model.dtype), True, mutable=["batch_stats"]
        )
        return features, {"clfe": updated["batch_stats"]}

    def in_parts(x: jax.Array) -> jax.Array:
        # Every part has rows of every device.
        return x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def add_part(
        total: tuple[jax.Array, FlatParams], part: tuple[Any, ...]
    ) -> tuple[tuple[jax.Array, FlatParams], tuple[jax.Array, list[jax.Array]]]:
        images, scores, examples, features_of = part

        def loss_fn(of_rest: FlatParams, features: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
            predictions, _ = model.apply(
                {"params": merge_params(of_rest, frozen)},
                images,
                train=True,
                examples=examples,
                local_features=features,
                rngs={"dropout": key},
            )
            return loss(predictions, scores) / parts, predictions

        (value, predictions), (gradients, of_features) = jax.value_and_grad(
            loss_fn, (0, 1), has_aux=True
        )(of_rest, features_of)
        total = jax.tree.map(jnp.add, total, (value, gradients))
        return total, (predictions, of_features)

    features, pull_back, moved = jax.vjp(local_features, of_cnn, has_aux=True)
    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, of_rest))
    batch = jax.tree.map(in_parts, (*rows, features))
    (value, gradients), (predictions, of_features) = jax.lax.scan(add_part, nothing, batch)

    def together(x: jax.Array) -> jax.Array:
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    (gradients_of_cnn,) = pull_back(jax.tree.map(together, of_features))
    return Gradients(value, together(predictions), moved, gradients | gradients_of_cnn)


def _constrained(params: FlatParams, *, shardings: TrainState | None, whole: bool) -> FlatParams:
    """Put split parameters together, or split their gradients, where the mesh splits them."""
    if shardings is None:
        return params
    flat = traverse_util.flatten_dict(shardings.params, sep="/")
    targets = {path: replicated(flat[path].mesh) if whole else flat[path] for path in params}
    return jax.lax.with_sharding_constraint(params, targets)


def compile_train_step(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    mesh: Mesh,
    *,
    loss: Loss,
    fsdp_rules: FsdpRules = (),
    accumulation: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Jit `train_step` over the mesh.

    The state is donated and stays as `abstract_state` places it. The batch, {"image": (B, crop,
    crop, 3) uint8, "score": (B,) float32, "example": (B,) int32}, is split over the devices.
    """
    target = abstract_state(model, optimizer, multipliers, mesh=mesh, fsdp_rules=fsdp_rules)
    shardings = shardings_of(target)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return train_step(
            model,
            optimizer,
            multipliers,
            state,
            normalise(batch["image"]),
            batch["score"],
            batch["example"],
            loss=loss,
            accumulation=accumulation,
            shardings=shardings if mesh.shape[FSDP_AXIS] > 1 else None,
        )

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, split),
        out_shardings=(shardings, {"loss": whole, "grad_norm": whole, "predictions": whole}),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )
