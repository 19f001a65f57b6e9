"""The training loop: batches in, checkpoints and metrics out; it goes on where it stopped."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.data.on_the_fly import Distorting
from glpi_jax.data.pipeline import (
    BatchIterator,
    to_iterator,
    training_dataset,
    training_rows,
)
from glpi_jax.data.sources import Database
from glpi_jax.data.transforms import Resize
from glpi_jax.errors import GlpiError, Terminated
from glpi_jax.models.glpi import GLPI
from glpi_jax.progress import progress_bar
from glpi_jax.training.checkpoint import RESUME_FOLDER, BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.interrupt import stop_between_steps
from glpi_jax.training.metric_writer import MetricWriter
from glpi_jax.training.optimizer import (
    cosine_schedule,
    learning_rate_multipliers,
    make_optimizer,
)
from glpi_jax.training.sharding import check_batch_size, to_devices
from glpi_jax.training.state import (
    TrainState,
    abstract_state,
    abstract_variables,
    create_state,
)
from glpi_jax.training.step import Metrics, compile_train_step


class Validation(NamedTuple):
    """Metrics by full name, such as "validation/srocc", and the one that selects the epoch."""

    metrics: Mapping[str, float | None]
    value: float | None


Validate = Callable[[Mapping[str, Any]], Validation]

_NAMED = 32  # images of a batch that a message names at most


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps after which every image was seen once; batches run on over the end of an epoch."""
    return math.ceil(images / batch_size)


def resize_of(section: ConfigDict, where: str) -> Resize | None:
    """The resize of a data section of the config, at `where`; None where images keep their size.

    Raises:
        GlpiError: it is not two positive whole numbers.
    """
    if not section.resize:
        return None
    size = tuple(section.resize)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise GlpiError(f"{where}.resize = {size}: must be (height, width) in pixels, or ()")
    return Resize(*size, section.resize_method)


def distorting_of(config: ConfigDict) -> Distorting:
    """How a config has the images of a database of photographs made.

    Raises:
        GlpiError: a negative seed.
    """
    if config.data.distortion_seed < 0:
        raise GlpiError(f"config.data.distortion_seed = {config.data.distortion_seed}: is negative")
    return Distorting(
        seed=config.data.distortion_seed,
        redraw=config.data.redraw_distortions,
        dncnn=config.data.dncnn,
    )


def fit(
    config: ConfigDict,
    *,
    model: GLPI,
    mesh: Mesh,
    database: Database,
    rows: Sequence[int],
    workdir: Path,
    validate: Validate,
    criterion: str,
    starting_weights: Callable[[], Mapping[str, Any]] | None = None,
) -> bool:
    """Train to the last step of the config, from the newest checkpoint in the workdir if any.

    Every `evaluation.every_epochs` epochs, and at the end, `validate` is called. The weights with
    the highest value so far are kept as the run's best, or the last ones alone, as
    `evaluation.select` says.

    Args:
        config: the whole tree.
        model, mesh: what to train and where.
        database, rows: the labelled images, and which of them train.
        workdir: receives checkpoints, `metrics.csv` and TensorBoard files.
        validate: variables → `Validation`; its value is an SROCC, None where undefined.
        criterion: what selects the weights, in words.
        starting_weights: gives the variables to start from, called if there is no checkpoint yet;
            None initialises them from the seed. They are saved at once as the checkpoint of step 0.

    Returns:
        False if the run was finished already and nothing was done.

    Raises:
        GlpiError: numbers that do not fit together, an unreadable image or checkpoint, or a loss
            that is not finite.
        Terminated: after SIGTERM, when the state of the last step is saved.
    """
    batch_size = config.train.batch_size
    check_batch_size(batch_size, mesh, "config.train.batch_size")
    epoch_steps = steps_per_epoch(len(rows), batch_size)
    total_steps = config.train.epochs * epoch_steps
    checkpoints, best = ResumeCheckpoints(workdir), BestCheckpoint(workdir, read_only=False)
    try:
        damaged = best.damaged_step()
        kept = damaged is None and best.selection() is not None
        if kept and checkpoints.latest_step == total_steps:
            return False
        batches = _batches(config, model, database, rows)
        _fit(
            config,
            model,
            mesh,
            batches,
            workdir,
            validate,
            criterion,
            checkpoints,
            best,
            damaged,
            epoch_steps,
            starting_weights,
        )
    except _NotFinite as error:
        raise _diverged(error, config, database, rows, workdir, checkpoints) from error
    finally:
        best.close()
        checkpoints.close()
    return True


def _fit(
    config: ConfigDict,
    model: GLPI,
    mesh: Mesh,
    batches: BatchIterator,
    workdir: Path,
    validate: Validate,
    criterion: str,
    checkpoints: ResumeCheckpoints,
    best: BestCheckpoint,
    damaged: int | None,
    epoch_steps: int,
    starting_weights: Callable[[], Mapping[str, Any]] | None,
) -> None:
    batch_size, total_steps = config.train.batch_size, config.train.epochs * epoch_steps
    schedule, multipliers, optimizer = _recipe(config, model, mesh)
    train_step = compile_train_step(model, optimizer, multipliers, mesh)
    if checkpoints.latest_step is None:
        state = create_state(
            model,
            optimizer,
            multipliers,
            seed=config.seed,
            mesh=mesh,
            variables=starting_weights() if starting_weights else None,
        )
        if starting_weights:  # from here on the run stands alone
            checkpoints.save(state, batches.get_state())
    else:
        target = abstract_state(model, optimizer, multipliers, mesh=mesh)
        # Damaged selected weights are made again: from before their epoch the same steps lead
        # there, and at its end they are those of the state.
        state, data_state = checkpoints.restore(target, not_after=damaged)
        batches.set_state(data_state)
        checkpoints.remove_after(int(state.step))
    start = int(state.step)
    if damaged is not None and start < damaged:
        best.remove(damaged)
    elif start == damaged or (start == total_steps and best.selection() is None):
        validation = validate(state.variables)
        _keep(best, state, start // epoch_steps, criterion, validation.value)
    first_process = jax.process_index() == 0
    bar = progress_bar(
        total_steps * batch_size,
        unit="image",
        description="train",
        initial=start * batch_size,
        enabled=first_process,
    )
    try:
        with (
            stop_between_steps() as stop,
            MetricWriter(workdir, start, enabled=first_process) as metrics,
            bar as progress,
        ):
            window = _Window(batch_size)
            for step in range(start + 1, total_steps + 1):
                state, outputs = train_step(state, to_devices(next(batches), mesh))
                loss = window.add(step, outputs)
                progress.advance(batch_size)
                if loss is not None:
                    progress.note(loss=loss)

                epoch = step // epoch_steps
                validation_due = step == total_steps or (
                    step % epoch_steps == 0 and epoch % config.evaluation.every_epochs == 0
                )
                terminated = stop.save_and_end(step)
                checkpoint_due = (
                    validation_due or terminated or step % config.train.checkpoint_every_steps == 0
                )
                # A window ends at every checkpoint, so that a resumed run has the same windows.
                if checkpoint_due or step % config.train.log_every_steps == 0:
                    rate = {"train/learning_rate": float(schedule(step - 1))}
                    metrics.write(step, epoch, window.close(step, outputs) | rate)
                if validation_due:
                    checkpoints.wait()  # one save at a time
                    validation = validate(state.variables)
                    metrics.write(step, epoch, validation.metrics)
                    progress.note(srocc=validation.value)
                    if config.evaluation.select == "best":
                        _keep_if_best(best, state, epoch, criterion, validation.value)
                    elif step == total_steps:
                        _keep(best, state, epoch, criterion, validation.value)
                if checkpoint_due:
                    # After the rows and the best weights up to this step: a run that resumes here
                    # makes neither again.
                    metrics.flush()
                    checkpoints.save(state, batches.get_state())
                    window.restart_clock()
                if terminated and step < total_steps:
                    raise Terminated
                stop.raise_if_interrupted()
            checkpoints.wait()
    finally:
        batches.close()


def _recipe(
    config: ConfigDict, model: GLPI, mesh: Mesh
) -> tuple[optax.Schedule, dict[str, float | None], optax.GradientTransformation]:
    """The schedule, the learning-rate multipliers by path, and the optimizer of a config."""
    schedule = cosine_schedule(
        config.optimizer.learning_rate,
        config.optimizer.cosine_half_period,
        config.optimizer.warmup_steps,
    )
    params = abstract_variables(model, mesh=mesh)["params"]
    paths = list(traverse_util.flatten_dict(params, sep="/"))
    multipliers = learning_rate_multipliers(paths, config.optimizer.rules)
    optimizer = make_optimizer(
        schedule,
        beta1=config.optimizer.beta1,
        beta2=config.optimizer.beta2,
        epsilon=config.optimizer.epsilon,
        weight_decay=config.optimizer.weight_decay,
        multipliers=multipliers,
    )
    return schedule, multipliers, optimizer


def _batches(
    config: ConfigDict, model: GLPI, database: Database, rows: Sequence[int]
) -> BatchIterator:
    dataset = training_dataset(
        database,
        rows,
        crop=model.size.crop,
        batch_size=config.train.batch_size,
        seed=config.seed,
        horizontal_flip=config.data.horizontal_flip,
        vertical_flip=config.data.vertical_flip,
        cache_bytes=config.data.cache_bytes,
        resize=resize_of(config.data, "config.data"),
        apply_orientation=config.data.apply_orientation,
        distorting=distorting_of(config),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return to_iterator(
        dataset,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        workers=config.data.workers,
    )


class _NotFinite(Exception):
    """A loss or gradient is NaN or infinite."""

    def __init__(self, what: str, value: float, step: int):
        super().__init__(f"the {what} is {value} at step {step}")
        self.step = step


class _Window:
    """The losses and the time since the last line of metrics."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._last: tuple[int, Metrics] | None = None  # on its way
        self._losses: list[float] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out the time since the window began, as after validation or a save."""
        self._begin = time.monotonic()

    def add(self, step: int, outputs: Metrics) -> float | None:
        """Take in a step; returns the loss of the step before, so that the device never waits.

        Raises:
            _NotFinite: the loss or the gradient of the step before is not finite.
        """
        before, self._last = self._last, (step, outputs)
        if before is None:
            return None
        self._losses.append(_finite_loss(*before))
        return self._losses[-1]

    def close(self, step: int, outputs: Metrics) -> dict[str, float | None]:
        """The window's metrics, its last step's included; a new one begins.

        Raises:
            _NotFinite: the loss or the gradient of that step is not finite.
        """
        self._losses.append(_finite_loss(step, outputs))
        elapsed = time.monotonic() - self._begin
        metrics: dict[str, float | None] = {
            "train/loss": float(np.mean(self._losses)),
            "train/gradient_norm": float(outputs["grad_norm"]),
            "train/images_per_second": len(self._losses) * self._batch_size / elapsed,
        }
        self._last, self._losses = None, []
        self.restart_clock()
        return metrics


def _finite_loss(step: int, outputs: Metrics) -> float:
    """The loss of a step; of a gradient that is not finite the parameters are lost as well."""
    for what, name in (("loss", "loss"), ("gradient", "grad_norm")):
        value = float(outputs[name])
        if not math.isfinite(value):
            raise _NotFinite(what, value, step)
    return float(outputs["loss"])


def _diverged(
    error: _NotFinite,
    config: ConfigDict,
    database: Database,
    rows: Sequence[int],
    workdir: Path,
    checkpoints: ResumeCheckpoints,
) -> GlpiError:
    """What a user needs who looks for the cause: the batch, and the state before it."""
    batch_rows = training_rows(
        rows, seed=config.seed, batch_size=config.train.batch_size, batch=error.step - 1
    )
    names = list(dict.fromkeys(database.images[row] for row in batch_rows))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    checkpoints.wait()
    last = checkpoints.latest_step
    folder = workdir / RESUME_FOLDER
    kept = f"the last checkpoint from before is {folder / str(last)}"
    return GlpiError(
        f"{error}: its batch was {', '.join(names[:_NAMED])}{more};"
        f" {'there is no checkpoint from before' if last is None else kept}; look at these images"
        " and their labels, or lower config.optimizer.learning_rate, in another workdir"
    )


def _keep_if_best(
    best: BestCheckpoint, state: TrainState, epoch: int, criterion: str, value: float | None
) -> None:
    """Keep the weights if their value is the highest so far (undefined counts as lowest)."""
    selected = best.selection()
    if selected is not None:
        highest = selected["value"]
        improved = value is not None and (highest is None or value > highest)
        if not improved:
            return
    _keep(best, state, epoch, criterion, value)


def _keep(
    best: BestCheckpoint, state: TrainState, epoch: int, criterion: str, value: float | None
) -> None:
    best.save(
        state.variables,
        {
            "step": int(state.step),
            "epoch": epoch,
            "criterion": criterion,
            "value": value,
        },
    )
