"""Rounds trained side by side: one program, in which each group of devices has rounds of its own.

The mesh's axis `round` divides the devices into groups. Rounds do not talk to each other while they
train; a validation takes a round's weights to all devices. Folders, checkpoints and results are
those of rounds trained one by one, so that either way goes on where the other stopped.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from glpi_jax.core.compilation import compiler_options
from glpi_jax.core.errors import Terminated
from glpi_jax.core.progress import progress_bar
from glpi_jax.core.signals import stop_between_steps
from glpi_jax.data.pipeline import BatchIterator
from glpi_jax.distributed.mesh import (
    place_in_round,
    replicated,
    round_sharding,
    rounds_to_devices,
    run_each_round,
)
from glpi_jax.distributed.ranks import is_first
from glpi_jax.models.glpi import GLPI
from glpi_jax.models.pixels import normalise
from glpi_jax.training.bookkeeping import Bookkeeping, RunSetup
from glpi_jax.training.loop import Recipe, make_batches, make_recipe, start_run
from glpi_jax.training.metric_writer import MetricWriter
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
    recipe = make_recipe(rounds[0].config, model, mesh)
    with ExitStack() as stack:
        records = [
            stack.enter_context(closing(Bookkeeping(one, recipe.schedule))) for one in rounds
        ]
        places = [place_in_round(number, len(rounds), mesh) for number in range(len(rounds))]
        batches = [
            make_batches(one.config, model, one.database, one.rows, place=place or (0, 1))
            for one, place in zip(rounds, places, strict=True)
        ]
        for each in batches:
            stack.enter_context(closing(each))
        if not all(record.finished for record in records):
            _fit(rounds, records, batches, places, recipe, model, mesh)


def _fit(
    rounds: Sequence[RunSetup],
    records: Sequence[Bookkeeping],
    batches: Sequence[BatchIterator],
    places: Sequence[tuple[int, int] | None],
    recipe: Recipe,
    model: GLPI,
    mesh: Mesh,
) -> None:
    train = rounds[0].config.train
    states = [
        start_run(one, record, own, recipe, model, mesh)
        for one, record, own in zip(rounds, records, batches, strict=True)
    ]
    steps = [int(state.step) for state in states]
    together = jax.jit(_stacked, out_shardings=round_sharding(mesh))(*states)
    del states
    take_step = _compile_step(model, recipe, mesh, train.accumulation)
    state_of = jax.jit(_taken, out_shardings=replicated(mesh))
    bar = progress_bar(
        sum(record.total_steps for record in records) * train.batch_size,
        unit="image",
        description=f"train {len(rounds)} rounds",
        initial=sum(steps) * train.batch_size,
        enabled=is_first(),
    )
    with ExitStack() as stack:
        stop = stack.enter_context(stop_between_steps())
        writers = [
            stack.enter_context(MetricWriter(one.workdir, step, enabled=is_first()))
            for one, step in zip(rounds, steps, strict=True)
        ]
        progress = stack.enter_context(bar)
        terminated = False
        while any(unfinished := [s < r.total_steps for s, r in zip(steps, records, strict=True)]):
            own = [
                _next(one, place, unfinished[number], train.batch_size, model.size.crop)
                for number, (one, place) in enumerate(zip(batches, places, strict=True))
            ]
            together, outputs = take_step(together, *rounds_to_devices(own, unfinished, mesh))
            terminated = stop.save_and_end()
            for number in [n for n, going in enumerate(unfinished) if going]:
                steps[number] += 1
                news = records[number].after_step(
                    steps[number],
                    {name: _Element(values, number) for name, values in outputs.items()},
                    functools.partial(state_of, together, number),
                    batches[number],
                    writers[number],
                    terminated=terminated,
                )
                if jax.process_count() > 1:  # one save at a time, or their barriers could cross
                    records[number].checkpoints.wait()
                progress.advance(train.batch_size)
                progress.note(**news)
            if terminated:
                break
            stop.raise_if_interrupted()
        for record in records:
            record.checkpoints.wait()
        if terminated or stop.save_and_end():  # heard in the last validation; all is saved
            raise Terminated


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
