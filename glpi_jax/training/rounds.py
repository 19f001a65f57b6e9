"""Rounds trained side by side: one program, in which each group of devices has rounds of its own.

The mesh's axis `round` divides the devices into groups. Rounds do not talk to each other while they
train; a validation takes a round's weights to all devices. Folders, checkpoints and results are
those of rounds trained one by one, so that either way goes on where the other stopped.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from glpi_jax.core.compilation import compiler_options
from glpi_jax.data.pipeline import BatchIterator
from glpi_jax.distributed.mesh import (
    place_in_round,
    replicated,
    round_sharding,
    rounds_to_devices,
    run_each_round,
)
from glpi_jax.models.glpi import GLPI
from glpi_jax.models.pixels import normalise
from glpi_jax.training.bookkeeping import Bookkeeping, RunSetup
from glpi_jax.training.loop import (
    Recipe,
    Stepped,
    make_batches,
    make_recipe,
    start_run,
    take_steps,
)
from glpi_jax.training.state import TrainState
from glpi_jax.training.step import Batch, Metrics, train_step


def fit_rounds(rounds: Sequence[RunSetup], *, model: GLPI, mesh: Mesh) -> None:
    """Train each round to its last step, from its newest checkpoint if it has any.

    Args:
        rounds: as many as the mesh's groups, or a multiple; a group takes its own in turn. Their
            configs differ in seed and split alone.
        model, mesh: what to train and where.

    Raises:
        GlpiError: numbers that do not fit the mesh, and whatever `fit` raises.
        Terminated: after SIGTERM, when every round is saved.
    """
    train = rounds[0].config.train
    recipe = make_recipe(rounds[0].config, model, mesh)
    with ExitStack() as stack:
        records = [stack.enter_context(Bookkeeping(one, recipe.schedule)) for one in rounds]
        places = [place_in_round(number, len(rounds), mesh) for number in range(len(rounds))]
        if all(record.finished for record in records):
            return
        batches = [
            make_batches(one.config, model, one.database, one.rows, place=place or (0, 1))
            for one, place in zip(rounds, places, strict=True)
        ]
        states = [
            start_run(record, own, recipe, model, mesh)
            for record, own in zip(records, batches, strict=True)
        ]
        together = jax.jit(_stacked, out_shardings=round_sharding(mesh))(*states)
        del states
        step_together = _compile_step(model, recipe, mesh, train.accumulation)
        state_of = jax.jit(_taken, out_shardings=replicated(mesh))

        def take_step(active: Sequence[bool]) -> list[Stepped]:
            nonlocal together
            own = [
                _next(*each, train.batch_size, model.size.crop)
                for each in zip(batches, places, active, strict=True)
            ]
            together, outputs = step_together(together, *rounds_to_devices(own, active, mesh))
            return [
                Stepped(
                    {name: _Element(values, number) for name, values in outputs.items()},
                    functools.partial(state_of, together, number),
                )
                for number in range(len(rounds))
            ]

        take_steps(records, take_step, description=f"train {len(rounds)} rounds")


def _compile_step(
    model: GLPI, recipe: Recipe, mesh: Mesh, accumulation: int
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]:
    """Jit a step of all rounds: trees as `train_step` has them, with an axis of rounds in front.

    A round that is not `active` (R,) bool stays as it is. Losses and norms of gradients come back
    on all devices; nothing else leaves its group.
    """

    def step(state: TrainState, batch: Batch, active: jax.Array) -> tuple[TrainState, Metrics]:
        images = normalise(batch["image"])
        moved, metrics = train_step(
            model,
            recipe.optimizer,
            recipe.multipliers,
            state,
            images,
            batch["score"],
            batch["example"],
            loss=recipe.loss,
            accumulation=accumulation,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(active, new, old), moved, state)
        return kept, {name: metrics[name] for name in ("loss", "grad_norm")}

    return jax.jit(
        run_each_round(step, mesh),
        out_shardings=(round_sharding(mesh), replicated(mesh)),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )


def _next(
    batches: BatchIterator, place: tuple[int, int] | None, active: bool, batch_size: int, crop: int
) -> dict[str, np.ndarray] | None:
    """This process's part of a round's next batch; None if its devices have no part in it."""
    if place is None:
        if active:
            batches.skip()
        return None
    if active:
        return next(batches)
    count = batch_size // place[1]
    return {
        "image": np.zeros((count, crop, crop, 3), np.uint8),
        "score": np.zeros(count, np.float32),
        "example": np.zeros(count, np.int32),
    }


def _stacked(*states: TrainState) -> TrainState:
    return jax.tree.map(lambda *x: jnp.stack(x), *states)


def _taken(states: TrainState, number: jax.Array) -> TrainState:
    return jax.tree.map(lambda x: x[number], states)


class _Element:
    """A number of an array that is on its way; it is waited for when it is asked for."""

    def __init__(self, values: jax.Array, number: int):
        self._values, self._number = values, number

    def __float__(self) -> float:
        return float(np.asarray(self._values)[self._number])
