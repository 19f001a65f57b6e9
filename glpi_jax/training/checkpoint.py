"""Checkpoints of a run.

Two folders in the workdir: `checkpoints/` holds what training resumes from (state, data iterator),
`best/` the weights of the selected epoch. Of several processes all call the methods here together;
process 0 decides what is whole.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glpi_jax.core.errors import GlpiError, speaks_of_others
from glpi_jax.distributed.ranks import is_first, told_by_first, wait_for_all
from glpi_jax.training import checkpoint_files as files
from glpi_jax.training.checkpoint_files import SEAL_FILE, finished_steps
from glpi_jax.training.checkpoint_store import RESUME_FOLDER, Store, first_line
from glpi_jax.training.state import TrainState, tree_differences

__all__ = ["BEST_FOLDER", "RESUME_FOLDER", "SEAL_FILE", "BestCheckpoint", "ResumeCheckpoints"]

BEST_FOLDER = "best"
_NO_STEP = -1  # where processes tell each other a step


class ResumeCheckpoints:
    """The latest states of a run, each with its data iterator's; the newest two are kept."""

    def __init__(self, workdir: Path):
        """Open, or make, the folder; leftovers of an interrupted save are removed."""
        self._store = Store(
            workdir / RESUME_FOLDER, arrays="state", facts="data", keep=2, read_only=False
        )
        self._best_folder = workdir / BEST_FOLDER
        self._snapshot: Any = None

    @property
    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint, None if there is none."""
        steps = finished_steps(self._store.folder)
        return steps[-1] if steps else None

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Begin to save a state and the position of the data iterator, and return.

        The state may be donated then: what is saved is a copy on the devices. A save under way is
        waited for first. Checkpoints of this step or later ones, which a run has that went back,
        are replaced.

        Raises:
            GlpiError: this save cannot begin, or the one before has failed.
        """
        self._store.wait()
        if self._snapshot is None:
            shardings = jax.tree.map(lambda x: x.sharding, state)
            self._snapshot = jax.jit(_copied, out_shardings=shardings)
        self._store.save(int(state.step), self._snapshot(state), data_state)

    def wait(self) -> None:
        """Wait until the save under way, if any, is finished.

        Raises:
            GlpiError: it has failed.
        """
        self._store.wait()

    def restore(
        self, target: TrainState, *, not_after: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Restore the newest whole checkpoint into a target of shapes, dtypes and shardings.

        Damaged ones are named on stderr and passed over. The target's devices, and their number,
        need not be those that saved.

        Args:
            target: as from `abstract_state`.
            not_after: the last step that may be taken, that of a damaged best checkpoint.

        Raises:
            GlpiError: no checkpoint is whole, or the newest whole one does not fit the target.
        """
        step = self._newest_whole(not_after)
        try:
            return self._store.restore(step, target)
        except Exception as error:  # Orbax raises anything, bare `Exception` included
            if speaks_of_others(error):
                raise
            raise GlpiError(
                f"{_unreadable(self._store.path(step), first_line(error))}, though its files are"
                " whole: was it saved with this config and these versions?"
            ) from error

    def _newest_whole(self, not_after: int | None) -> int:
        """Decided by process 0, so that all take the same."""
        chosen, damaged = _NO_STEP, []
        if is_first():
            for step in reversed(finished_steps(self._store.folder)):
                if not_after is not None and step > not_after:
                    continue
                cause = files.damage(self._store.path(step))
                if cause is None:
                    chosen = step
                    break
                damaged.append(_unreadable(self._store.path(step), cause))
        chosen = told_by_first(chosen)
        if chosen == _NO_STEP and not_after is not None:
            raise GlpiError(
                f"{self._best_folder / str(not_after)} is damaged, and no whole checkpoint is left"
                " from which its steps could be taken again: put a copy of it back, or remove"
                f" {self._best_folder} to go on and select among the later epochs alone"
            )
        if chosen == _NO_STEP:
            raise GlpiError(
                f"{'; '.join(damaged) or self._store.folder}: no whole checkpoint is left; put a"
                f" copy back, or remove {self._store.folder} to train from the start"
            )
        for message in damaged:
            _warn(f"{message}; resuming from step {chosen}, the newest that is whole")
        return chosen

    def remove_after(self, step: int) -> None:
        """Remove later checkpoints, damaged or of steps to be taken again: training goes on."""
        if is_first():
            files.remove_after(self._store.folder, step)
        wait_for_all(f"go on from {step}")

    def close(self) -> None:
        """Wait for the save under way and close.

        Raises:
            GlpiError: the save has failed.
        """
        self._store.close()


class BestCheckpoint:
    """The selected weights of a run, with the step, epoch and value that selected them."""

    def __init__(self, workdir: Path, *, read_only: bool):
        """Open the folder; unless read only, make it.

        Raises:
            GlpiError: read only, and there is no trained model.
        """
        folder = workdir / BEST_FOLDER
        if read_only and not folder.is_dir():
            raise GlpiError(f"{workdir}: no trained model here (no folder {BEST_FOLDER}/)")
        self._store = Store(
            folder, arrays="variables", facts="selection", keep=1, read_only=read_only
        )
        if read_only and self._step is None:
            raise GlpiError(f"{folder}: holds no finished checkpoint")

    @property
    def _step(self) -> int | None:
        steps = finished_steps(self._store.folder)
        return steps[-1] if steps else None

    def damaged_step(self) -> int | None:
        """The step of the selected weights if they are damaged, which is told on stderr."""
        step = self._step
        damaged = _NO_STEP
        if step is not None and is_first():
            cause = files.damage(self._store.path(step))
            if cause is not None:
                damaged = step
                _warn(f"{_unreadable(self._store.path(step), cause)}; going back to make it again")
        damaged = told_by_first(damaged)
        return None if damaged == _NO_STEP else damaged

    def remove(self, step: int) -> None:
        """Remove damaged weights, when the run goes on from before them."""
        if is_first():
            files.remove_after(self._store.folder, step - 1)
        wait_for_all(f"remove best {step}")

    def selection(self) -> dict[str, Any] | None:
        """What `save` was given besides the weights, or None before the first save.

        Raises:
            GlpiError: it is damaged.
        """
        step = self._step
        if step is None:
            return None
        self._check(step)
        try:
            return self._store.facts(step)
        except Exception as error:
            raise self._cannot_read(step, first_line(error)) from error

    def save(self, variables: dict[str, Any], selection: dict[str, Any]) -> None:
        """Replace the selected weights and wait for it; `selection` has at least `step`.

        The earlier ones stay until then. A resume checkpoint of the same step must be saved after
        this: resumed from there, a run would not select these weights again.

        Raises:
            GlpiError: they cannot be saved.
        """
        self._store.save(selection["step"], variables, selection)
        self._store.wait()

    def restore(
        self, target: dict[str, Any], *, model_of: str = "run.json"
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Restore the weights into a target of shapes, dtypes and shardings, with their selection.

        Args:
            target: of the model that is expected.
            model_of: what says which one that is, for the message.

        Raises:
            GlpiError: the weights are damaged, or of another model; every difference is listed.
        """
        step = self._step
        if step is None:
            raise GlpiError(f"{self._store.folder}: holds no finished checkpoint")
        self._check(step)
        try:
            problems = tree_differences(self._store.shapes(step), target)
            if not problems:
                return self._store.restore(step, target)
        except Exception as error:
            if speaks_of_others(error):
                raise
            raise self._cannot_read(step, first_line(error)) from error
        raise GlpiError(
            f"{self._store.path(step)}: the checkpoint is of another model than {model_of} says:"
            f" {'; '.join(problems)}"
        )

    def _check(self, step: int) -> None:
        cause = files.damage(self._store.path(step))
        if cause is not None:
            raise self._cannot_read(step, cause)

    def _cannot_read(self, step: int, cause: str) -> GlpiError:
        return GlpiError(
            f"{_unreadable(self._store.path(step), cause)}; `glpi train` with this workdir makes it"
            " again if an older checkpoint is left, or put a copy back"
        )

    def close(self) -> None:
        """Close; nothing is waited for."""
        self._store.close()


def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _unreadable(path: Path, cause: str) -> str:
    return f"{path}: the checkpoint cannot be read ({cause})"


def _warn(message: str) -> None:
    """Tell the user on stderr, once for all processes."""
    if is_first():
        print(f"warning: {message}", file=sys.stderr)
