"""The training loop: batches in, checkpoints and metrics out; it resumes where it stopped."""

import functools
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import jax
import optax
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.core.errors import Terminated
from glpi_jax.core.progress import progress_bar
from glpi_jax.core.signals import stop_between_steps
from glpi_jax.data.on_the_fly import distorting_of
from glpi_jax.data.pipeline import BatchIterator, to_iterator, training_dataset
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database
from glpi_jax.distributed.mesh import check_batch_size, to_devices
from glpi_jax.distributed.ranks import is_first
from glpi_jax.models.glpi import GLPI
from glpi_jax.training.bookkeeping import Bookkeeping, RunSetup
from glpi_jax.training.loss import Loss, loss_of
from glpi_jax.training.metric_writer import MetricWriter
from glpi_jax.training.optimizer import cosine_schedule, learning_rate_multipliers, make_optimizer
from glpi_jax.training.profile import profiled_steps
from glpi_jax.training.state import TrainState, abstract_state, abstract_variables, create_state
from glpi_jax.training.step import compile_train_step


class Recipe(NamedTuple):
    """The schedule, the learning-rate multipliers by path, the optimizer and loss of a config."""

    schedule: optax.Schedule
    multipliers: dict[str, float | None]
    optimizer: optax.GradientTransformation
    loss: Loss


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
    train = setup.config.train
    check_batch_size(train.batch_size, mesh, "config.train.batch_size", parts=train.accumulation)
    recipe = make_recipe(setup.config, model, mesh)
    with ExitStack() as stack:
        record = stack.enter_context(closing(Bookkeeping(setup, recipe.schedule)))
        if record.finished:
            return False
        batches = make_batches(setup.config, model, setup.database, setup.rows)
        stack.enter_context(closing(batches))
        train_step = compile_train_step(
            model,
            recipe.optimizer,
            recipe.multipliers,
            mesh,
            loss=recipe.loss,
            fsdp_rules=setup.config.mesh.fsdp_rules,
            accumulation=train.accumulation,
        )
        state = start_run(setup, record, batches, recipe, model, mesh)
        start = int(state.step)
        stop = stack.enter_context(stop_between_steps())
        metrics = stack.enter_context(MetricWriter(setup.workdir, start, enabled=is_first()))
        profiled = stack.enter_context(profiled_steps(profile, start))
        bar = progress_bar(
            record.total_steps * train.batch_size,
            unit="image",
            description="train",
            initial=start * train.batch_size,
            enabled=is_first(),
        )
        progress = stack.enter_context(bar)
        for step in range(start + 1, record.total_steps + 1):
            with profiled(step):
                state, outputs = train_step(state, to_devices(next(batches), mesh))
            terminated = stop.save_and_end()
            now = functools.partial(_same, state)
            news = record.after_step(step, outputs, now, batches, metrics, terminated=terminated)
            progress.advance(train.batch_size)
            progress.note(**news)
            if terminated:
                raise Terminated
            stop.raise_if_interrupted()
        record.checkpoints.wait()
        if stop.save_and_end():  # heard in the last validation; all is saved
            raise Terminated
    return True


def start_run(
    setup: RunSetup,
    record: Bookkeeping,
    batches: BatchIterator,
    recipe: Recipe,
    model: GLPI,
    mesh: Mesh,
) -> TrainState:
    """Return the state that a run begins or resumes from, with `batches` put to its step."""
    parts = (model, recipe.optimizer, recipe.multipliers)
    rules = setup.config.mesh.fsdp_rules

    def create() -> TrainState:
        variables = setup.starting_weights() if setup.starting_weights else None
        return create_state(
            *parts, seed=setup.config.seed, mesh=mesh, variables=variables, fsdp_rules=rules
        )

    def target() -> TrainState:
        return abstract_state(*parts, mesh=mesh, fsdp_rules=rules)

    return record.start(batches, create, target)


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
    """A process's part of a run's batches.

    `place` is its number among the processes that share them, and how many these are; None means
    all.
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


def _same(state: TrainState) -> TrainState:
    return state
