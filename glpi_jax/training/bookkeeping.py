"""What a run does besides its steps: metrics, validation, the best weights, checkpoints."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
import optax
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.pipeline import BatchIterator, training_rows
from glpi_jax.data.sources import Database
from glpi_jax.distributed.ranks import is_first
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.metric_writer import MetricWriter
from glpi_jax.training.state import TrainState

Numbers = Mapping[str, SupportsFloat]  # by name, on their way from the devices

_NAMED = 32  # images of a batch that a message names at most


class Validation(NamedTuple):
    """Metrics by full name, such as "validation/srocc", and the one that selects the epoch.

    `on_selected` is called when the validated weights are saved as the run's best.
    """

    metrics: Mapping[str, float | None]
    value: float | None
    on_selected: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class RunSetup:
    """What a run trains on, and where its record goes.

    Attributes:
        config: the whole tree.
        database, rows: the labelled images, and which of them train.
        workdir: receives checkpoints, `metrics.csv` and TensorBoard files.
        validate: variables → `Validation`; its value is an SROCC, None where undefined.
        criterion: what selects the weights, in words.
        starting_weights: gives the variables to start from, called if there is no checkpoint yet;
            None initialises them from the seed. They are saved at once as the checkpoint of step 0:
            from its first checkpoint on the run stands alone.
    """

    config: ConfigDict
    database: Database
    rows: Sequence[int]
    workdir: Path
    validate: Callable[[Mapping[str, Any]], Validation]
    criterion: str
    starting_weights: Callable[[], Mapping[str, Any]] | None = None


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Steps after which every image was seen once; batches run on over the end of an epoch."""
    return math.ceil(images / batch_size)


class Bookkeeping(ExitStack):
    """Keeps a run's record while it trains; closed, it waits for the save under way.

    Attributes:
        setup: of the run.
        step: the last step that was taken, from 0.
        total_steps: the last step of the run.
        checkpoints: what the run resumes from.
    """

    def __init__(self, setup: RunSetup, schedule: optax.Schedule):
        """Open the run's checkpoints."""
        super().__init__()
        self.setup, self._schedule = setup, schedule
        train = setup.config.train
        self.step = 0
        self._epoch_steps = steps_per_epoch(len(setup.rows), train.batch_size)
        self.total_steps = train.epochs * self._epoch_steps
        self.checkpoints = self.enter_context(closing(ResumeCheckpoints(setup.workdir)))
        self._best = self.enter_context(closing(BestCheckpoint(setup.workdir, read_only=False)))
        self._window = _Window(train.batch_size, self._diverged)

    def start(
        self,
        batches: BatchIterator,
        create: Callable[[], TrainState],
        target: Callable[[], TrainState],
    ) -> TrainState:
        """Return the state to resume from: of the newest whole checkpoint, or a new one.

        Args:
            batches: the run's, put to the state's step.
            create: makes the state of step 0.
            target: shapes, dtypes and shardings to restore into.
        """
        self._batches = self.enter_context(closing(batches))
        damaged = self._best.damaged_step()
        if self.checkpoints.latest_step is None:
            state = create()
            if self.setup.starting_weights is not None:
                self.checkpoints.save(state, batches.get_state())
        else:
            # Damaged selected weights are made again: from before their epoch the same steps lead
            # there, and at its end they are those of the state.
            state, data_state = self.checkpoints.restore(target(), not_after=damaged)
            batches.set_state(data_state)
            self.checkpoints.remove_after(int(state.step))
        self.step = step = int(state.step)
        if damaged is not None and step < damaged:
            self._best.remove_after(damaged - 1)
        elif step == damaged or (step == self.total_steps and self._best.selection() is None):
            validation = self.setup.validate(state.variables)
            self._keep(state, step // self._epoch_steps, validation)
        writer = MetricWriter(self.setup.workdir, step, enabled=is_first())
        self._metrics = self.enter_context(writer)
        self._window.restart_clock()
        return state

    @property
    def finished(self) -> bool:
        """Whether the run's last step is saved, and what it selected."""
        whole = self._best.damaged_step() is None and self._best.selection() is not None
        return whole and self.checkpoints.latest_step == self.total_steps

    def after_step(
        self, outputs: Numbers, state: Callable[[], TrainState], *, terminated: bool
    ) -> dict[str, float | None]:
        """Do what is due after a step.

        A window of metrics ends at every checkpoint, so that a resumed run has the same windows.

        Args:
            outputs: of `train_step`.
            state: gives the state after the step.
            terminated: save now, since the run will end.

        Returns:
            News for the progress bar: `loss` (of the step before), `srocc`.

        Raises:
            GlpiError: the loss or the gradient is not finite.
        """
        self.step = step = self.step + 1
        config, epoch = self.setup.config, step // self._epoch_steps
        loss = self._window.add(step, outputs)
        news: dict[str, float | None] = {} if loss is None else {"loss": loss}
        validation_due = step == self.total_steps or (
            step % self._epoch_steps == 0 and epoch % config.evaluation.every_epochs == 0
        )
        checkpoint_due = (
            validation_due or terminated or step % config.train.checkpoint_every_steps == 0
        )
        if checkpoint_due or step % config.train.log_every_steps == 0:
            rate = {"train/learning_rate": float(self._schedule(step - 1))}
            self._metrics.write(step, epoch, self._window.close(step, outputs) | rate)
        if not checkpoint_due:
            return news
        now = state()
        if validation_due:
            self.checkpoints.wait()  # one save at a time
            validation = self.setup.validate(now.variables)
            self._metrics.write(step, epoch, validation.metrics)
            news["srocc"] = validation.value
            last = step == self.total_steps
            if self._improves(validation) if config.evaluation.select == "best" else last:
                self._keep(now, epoch, validation)
        # After the rows and the best weights up to this step: a run that resumes here makes neither
        # again.
        self._metrics.flush()
        self.checkpoints.save(now, self._batches.get_state())
        self._window.restart_clock()
        return news

    def _improves(self, validation: Validation) -> bool:
        """Whether the value is the highest so far; an undefined one counts as lowest."""
        selected, value = self._best.selection(), validation.value
        if selected is None:
            return True
        return value is not None and (selected["value"] is None or value > selected["value"])

    def _keep(self, state: TrainState, epoch: int, validation: Validation) -> None:
        """Keep the weights as the run's best."""
        step, criterion, value = int(state.step), self.setup.criterion, validation.value
        selection = {"step": step, "epoch": epoch, "criterion": criterion, "value": value}
        self._best.save(state.variables, selection)
        validation.on_selected()

    def _diverged(self, what: str, value: float, step: int) -> GlpiError:
        """What a user needs who looks for the cause: the batch, and the state before it."""
        setup, config = self.setup, self.setup.config
        batch_rows = training_rows(
            setup.rows, seed=config.seed, batch_size=config.train.batch_size, batch=step - 1
        )
        names = list(dict.fromkeys(setup.database.images[row] for row in batch_rows))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        self.checkpoints.wait()
        last = self.checkpoints.latest_step
        kept = f"the last checkpoint from before is {self.checkpoints.folder / str(last)}"
        kept = "there is no checkpoint from before" if last is None else kept
        return GlpiError(
            f"the {what} is {value} at step {step}: its batch was"
            f" {', '.join(names[:_NAMED])}{more}; {kept}; look at these images and their labels, or"
            " lower config.optimizer.learning_rate, in another workdir"
        )


class _Window:
    """The losses and the time since the last line of metrics."""

    def __init__(self, batch_size: int, diverged: Callable[[str, float, int], GlpiError]):
        """`diverged` makes the error of a loss or gradient that is not finite."""
        self._batch_size, self._diverged = batch_size, diverged
        self._last: tuple[int, Numbers] | None = None  # on its way
        self._losses: list[float] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave out the time since the window began, as after validation or a save."""
        self._begin = time.monotonic()

    def add(self, step: int, outputs: Numbers) -> float | None:
        """Take in a step; returns the loss of the step before, so that the device never waits."""
        before, self._last = self._last, (step, outputs)
        return None if before is None else self._take_in(*before)

    def close(self, step: int, outputs: Numbers) -> dict[str, float | None]:
        """The window's metrics, its last step's included; a new one begins."""
        self._take_in(step, outputs)
        elapsed = time.monotonic() - self._begin
        metrics: dict[str, float | None] = {
            "train/loss": float(np.mean(self._losses)),
            "train/gradient_norm": float(outputs["grad_norm"]),
            "train/images_per_second": len(self._losses) * self._batch_size / elapsed,
        }
        self._last, self._losses = None, []
        self.restart_clock()
        return metrics

    def _take_in(self, step: int, outputs: Numbers) -> float:
        """Wait for a loss; of a gradient that is not finite the parameters are lost as well."""
        for what, name in (("loss", "loss"), ("gradient", "grad_norm")):
            value = float(outputs[name])
            if not math.isfinite(value):
                raise self._diverged(what, value, step)
        loss = float(outputs["loss"])
        self._losses.append(loss)
        return loss
