"""Rounds trained side by side: one program, in which each group of devices has rounds of its own.

The mesh's axis `round` divides the devices into groups. Rounds do not talk to each other while they
train; a validation takes a round's weights to all devices. Folders, checkpoints and results are
those of rounds trained one by one, so that either way goes on where the other stopped.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.core.compilation import compiler_options
from glpi_jax.core.errors import Terminated
from glpi_jax.core.progress import progress_bar
from glpi_jax.core.signals import stop_between_steps
from glpi_jax.data.pipeline import BatchIterator
from glpi_jax.data.sources import Database
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
from glpi_jax.training.bookkeeping import Bookkeeping, NotFinite, Validate
from glpi_jax.training.loop import Recipe, make_batches, make_recipe
from glpi_jax.training.metric_writer import MetricWriter
from glpi_jax.training.state import TrainState, abstract_state, create_state
from glpi_jax.training.step import Batch, Metrics, train_step


@dataclass(frozen=True)
class RoundSetup:
    """What `fit` takes for one run, of several that are trained together.

    The configs differ in seed and split alone.
    """

    config: ConfigDict
    database: Database
    rows: Sequence[int]
    workdir: Path
    validate: Validate
    criterion: str
    starting_weights: Callable[[], Mapping[str, Any]] | None


def fit_rounds(rounds: Sequence[RoundSetup], *, model: GLPI, mesh: Mesh) -> None:
    """Train each round to its last step, from its newest checkpoint if it has any.

    Args:
        rounds: as many as the mesh's groups, or a multiple; a group takes its own in turn.
        model, mesh: what to train and where.

    Raises:
        GlpiError: numbers that do not fit the mesh, and whatever `fit` raises.
        Terminated: after SIGTERM, when every round is saved.
    """
    config = rounds[0].config
    recipe = make_recipe(config, model, mesh)
    records = [
        Bookkeeping(
            one.config,
            database=one.database,
            rows=one.rows,
            workdir=one.workdir,
            validate=one.validate,
            criterion=one.criterion,
            schedule=recipe.schedule,
        )
        for one in rounds
    ]
    places = [place_in_round(number, len(rounds), mesh) for number in range(len(rounds))]
    batches = [
        make_batches(one.config, model, one.database, one.rows, place=place or (0, 1))
        for one, place in zip(rounds, places, strict=True)
    ]
    try:
        if not all(record.finished for record in records):
            _fit(rounds, records, batches, places, recipe, model, mesh)
    finally:
        for each in batches:
            each.close()
        for record in records:
            record.close()


def _fit(
    rounds: Sequence[RoundSetup],
    records: Sequence[Bookkeeping],
    batches: Sequence[BatchIterator],
    places: Sequence[tuple[int, int] | None],
    recipe: Recipe,
    model: GLPI,
    mesh: Mesh,
) -> None:
    config = rounds[0].config
    batch_size = config.train.batch_size
    states = [
        _start(one, record, own, recipe, model, mesh)
        for one, record, own in zip(rounds, records, batches, strict=True)
    ]
    steps = [int(state.step) for state in states]
    together = jax.jit(_stacked, out_shardings=round_sharding(mesh))(*states)
    del states
    take_step = _compile_step(model, recipe, mesh, config.train.accumulation)
    state_of = jax.jit(_taken, out_shardings=replicated(mesh))
    bar = progress_bar(
        sum(record.total_steps for record in records) * batch_size,
        unit="image",
        description=f"train {len(rounds)} rounds",
        initial=sum(steps) * batch_size,
        enabled=is_first(),
    )
    with ExitStack() as stack:
        stop = stack.enter_context(stop_between_steps())
        writers = [
            stack.enter_context(MetricWriter(one.workdir, step, enabled=is_first()))
            for one, step in zip(rounds, steps, strict=True)
        ]
        progress = stack.enter_context(bar)
        while any(unfinished := [s < r.total_steps for s, r in zip(steps, records, strict=True)]):
            own = [
                _next(one, place, unfinished[number], batch_size, model.size.crop)
                for number, (one, place) in enumerate(zip(batches, places, strict=True))
            ]
            together, outputs = take_step(together, *rounds_to_devices(own, unfinished, mesh))
            terminated = stop.save_and_end()
            for number in [n for n, going in enumerate(unfinished) if going]:
                steps[number] += 1
                record = records[number]
                try:
                    news = record.after_step(
                        steps[number],
                        {name: _Element(values, number) for name, values in outputs.items()},
                        functools.partial(state_of, together, number),
                        batches[number],
                        writers[number],
                        terminated=terminated,
                    )
                except NotFinite as error:
                    raise record.diverged(error) from error
                if jax.process_count() > 1:  # one save at a time, or their barriers could cross
                    record.checkpoints.wait()
                progress.advance(batch_size)
                progress.note(**news)
            if terminated:
                for record in records:
                    record.checkpoints.wait()
                raise Terminated
            stop.raise_if_interrupted()
        for record in records:
            record.checkpoints.wait()
        if stop.save_and_end():  # heard in the last validation; all is saved
            raise Terminated


def _start(
    one: RoundSetup,
    record: Bookkeeping,
    batches: BatchIterator,
    recipe: Recipe,
    model: GLPI,
    mesh: Mesh,
) -> TrainState:
    """A round's state to go on from, whole on every device."""
    parts = (model, recipe.optimizer, recipe.multipliers)
    weights = one.starting_weights

    def create() -> TrainState:
        variables = weights() if weights else None
        return create_state(*parts, seed=one.config.seed, mesh=mesh, variables=variables)

    def target() -> TrainState:
        return abstract_state(*parts, mesh=mesh)

    return record.start(batches, create, target, save_at_once=weights is not None)


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
