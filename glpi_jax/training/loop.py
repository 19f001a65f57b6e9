"""The training loop: batches in, checkpoints and metrics out; it resumes where it stopped."""

import functools
import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.core.compilation import compiler_options
from glpi_jax.core.errors import Terminated
from glpi_jax.core.progress import progress_bar
from glpi_jax.core.signals import stop_between_steps
from glpi_jax.data.on_the_fly import distorting_of
from glpi_jax.data.pipeline import BatchIterator, to_iterator, training_dataset
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database
from glpi_jax.distributed.mesh import (
    check_batch_size,
    place_in_round,
    replicated,
    round_sharding,
    rounds_to_devices,
    run_each_round,
    to_devices,
)
from glpi_jax.distributed.ranks import is_first
from glpi_jax.models.glpi import GLPI
from glpi_jax.models.pixels import normalise
from glpi_jax.training.bookkeeping import Bookkeeping, Numbers, RunSetup
from glpi_jax.training.loss import Loss, loss_of
from glpi_jax.training.optimizer import cosine_schedule, learning_rate_multipliers, make_optimizer
from glpi_jax.training.profile import profiled_steps
from glpi_jax.training.state import TrainState, abstract_state, abstract_variables, create_state
from glpi_jax.training.step import Batch, Metrics, compile_train_step, train_step


class Recipe(NamedTuple):
    """The schedule, the learning-rate multipliers by path, the optimizer and loss of a config."""

    schedule: optax.Schedule
    multipliers: dict[str, float | None]
    optimizer: optax.GradientTransformation
    loss: Loss


class Stepped(NamedTuple):
    """What a step gives of one run: outputs of `train_step`, and a way to its next state."""

    outputs: Numbers
    state: Callable[[], TrainState]


def fit(setup: RunSetup, *, model: GLPI, mesh: Mesh, profile: Path | None = None) -> bool:
    """Train to the last step of the config, from the newest checkpoint in the workdir if any.

    Every `evaluation.every_epochs` epochs, and at the end, `validate` is called. The weights with
    the highest value so far are kept as the run's best, or the last ones alone, as
    `evaluation.select` says.

    Args:
        setup: data and workdir.
        model, mesh: what to train and where.
        profile: receives a trace of a few steps, if given.

    Returns:
        False if the run was finished already and nothing was done.

    Raises:
        GlpiError: numbers that do not fit together, an unreadable image or checkpoint, or a loss
            that is not finite.
        Terminated: after SIGTERM, when the state of the last step is saved.
    """
    config, train = setup.config, setup.config.train
    check_batch_size(train.batch_size, mesh, "config.train.batch_size", parts=train.accumulation)
    recipe = make_recipe(config, model, mesh)
    with Bookkeeping(setup, recipe.schedule) as record:
        if record.finished:
            return False
        step = compile_train_step(
            model,
            recipe.optimizer,
            recipe.multipliers,
            mesh,
            loss=recipe.loss,
            fsdp_rules=config.mesh.fsdp_rules,
            accumulation=train.accumulation,
        )
        batches = make_batches(config, model, setup.database, setup.rows)
        state = start_run(record, batches, recipe, model, mesh)

        def take_step(_: Sequence[bool]) -> list[Stepped]:
            nonlocal state
            state, outputs = step(state, to_devices(next(batches), mesh))
            return [Stepped(outputs, lambda: state)]

        take_steps([record], take_step, description="train", profile=profile)
    return True


def start_run(
    record: Bookkeeping, batches: BatchIterator, recipe: Recipe, model: GLPI, mesh: Mesh
) -> TrainState:
    """Return the state that a run begins or resumes from, with `batches` put to its step."""
    parts = (model, recipe.optimizer, recipe.multipliers)
    setup, rules = record.setup, record.setup.config.mesh.fsdp_rules

    def create() -> TrainState:
        variables = setup.starting_weights() if setup.starting_weights else None
        return create_state(
            *parts, seed=setup.config.seed, mesh=mesh, variables=variables, fsdp_rules=rules
        )

    def target() -> TrainState:
        return abstract_state(*parts, mesh=mesh, fsdp_rules=rules)

    return record.start(batches, create, target)


def take_steps(
    records: Sequence[Bookkeeping],
    take_step: Callable[[Sequence[bool]], Sequence[Stepped]],
    *,
    description: str,
    profile: Path | None = None,
) -> None:
    """Train runs, whose configs differ in seed and split alone, until each has its last step.

    Args:
        records: of the runs, which are started.
        take_step: takes a step of the runs of which it is given True.
        description: for the progress bar.
        profile: receives a trace of a few steps, if given.

    Raises:
        GlpiError: an unreadable image or checkpoint, or a loss that is not finite.
        Terminated: after SIGTERM, when every run is saved.
    """
    batch_size = records[0].setup.config.train.batch_size
    with ExitStack() as stack:
        stop = stack.enter_context(stop_between_steps())
        profiled = stack.enter_context(profiled_steps(profile, records[0].step))
        bar = progress_bar(
            sum(record.total_steps for record in records) * batch_size,
            unit="image",
            description=description,
            initial=sum(record.step for record in records) * batch_size,
            enabled=is_first(),
        )
        progress = stack.enter_context(bar)
        terminated = False
        while any(unfinished := [record.step < record.total_steps for record in records]):
            with profiled(records[0].step + 1):
                stepped = take_step(unfinished)
            terminated = stop.save_and_end()
            for record, (outputs, state) in itertools.compress(
                zip(records, stepped, strict=True), unfinished
            ):
                news = record.after_step(outputs, state, terminated=terminated)
                if len(records) > 1 and jax.process_count() > 1:
                    record.checkpoints.wait()  # one save at a time, or their barriers could cross
                progress.advance(batch_size)
                progress.note(**news)
            if terminated:
                break
            stop.raise_if_interrupted()
        for record in records:
            record.checkpoints.wait()
        if terminated or stop.save_and_end():  # heard in the last validation; all is saved
            raise Terminated


def make_recipe(config: ConfigDict, model: GLPI, mesh: Mesh) -> Recipe:
    """Return what `config.optimizer` and `config.train.loss` say of a model.

    Raises:
        GlpiError: rules that do not fit the model, an unknown optimizer or loss, or arguments that
            the optimizer does not take.
    """
    section = config.optimizer
    schedule = cosine_schedule(
        section.learning_rate, section.cosine_half_period, section.warmup_steps
    )
    params = abstract_variables(model, mesh=mesh)["params"]
    paths = list(traverse_util.flatten_dict(params, sep="/"))
    multipliers = learning_rate_multipliers(paths, section.rules)
    optimizer = make_optimizer(section, schedule, multipliers)
    return Recipe(schedule, multipliers, optimizer, loss_of(config))


def make_batches(
    config: ConfigDict,
    model: GLPI,
    database: Database,
    rows: Sequence[int],
    *,
    place: tuple[int, int] | None = None,
) -> BatchIterator:
    """Return a process's part of a run's batches.

    `place` is its number among the processes that share them, and their count; None means all.
    """
    index, count = place or (jax.process_index(), jax.process_count())
    dataset = training_dataset(
        database,
        rows,
        crop=model.size.crop,
        batch_size=config.train.batch_size,
        seed=config.seed,
        horizontal_flip=config.data.horizontal_flip,
        vertical_flip=config.data.vertical_flip,
        cache_bytes=config.data.cache_bytes,
        preprocessing=Preprocessing.of_section(config.data, "config.data"),
        distorting=distorting_of(config),
        process_index=index,
        process_count=count,
    )
    return to_iterator(
        dataset,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        workers=config.data.workers,
    )


def fit_rounds(rounds: Sequence[RunSetup], *, model: GLPI, mesh: Mesh) -> None:
    """Train rounds side by side, each to its last step, from its newest checkpoint if it has any.

    They are one program, in which each group of devices, along the mesh's axis `round`, has rounds
    of its own. Rounds do not talk to each other while they train; a validation takes a round's
    weights to all devices. Folders, checkpoints and results are those of rounds trained one by one,
    so that either way resumes where the other stopped.

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
