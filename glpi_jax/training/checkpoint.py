"""Checkpoints of a run.

Two folders in the workdir: `checkpoints/` holds what training resumes from (state, data iterator),
`best/` the weights of the selected epoch. Of several processes all call the methods here together;
process 0 decides what is whole.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.ranks import is_first, told_by_first
from glpi_jax.training.checkpoint_files import finished_steps
from glpi_jax.training.checkpoint_store import RESUME_FOLDER, Store
from glpi_jax.training.state import TrainState, shardings_of, tree_differences

BEST_FOLDER = "best"
_BEST_REMEDY = (
    "; `glpi train` with this workdir makes it again if an older checkpoint is left, or put a copy"
    " back"
)


class ResumeCheckpoints(Store):
    """The latest states of a run, each with its data iterator's; the newest two are kept."""

    def __init__(self, workdir: Path):
        """Open, or make, the folder; leftovers of an interrupted save are removed."""
        folder = workdir / RESUME_FOLDER
        super().__init__(folder, arrays="state", facts="data", keep=2, read_only=False)
        self._best_folder = workdir / BEST_FOLDER
        self._snapshot: Any = None

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Begin to save a state and the position of the data iterator, and return.

        The state may be donated then: what is saved is a copy on the devices. A save under way is
        waited for first. Checkpoints of this step or later ones, which a run has that went back,
        are replaced.

        Raises:
            GlpiError: this save cannot begin, or the one before has failed.
        """
        self.wait()
        if self._snapshot is None:
            copied = functools.partial(jax.tree.map, jnp.copy)
            self._snapshot = jax.jit(copied, out_shardings=shardings_of(state))
        self.write(int(state.step), self._snapshot(state), data_state)

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
        remedy = ", though its files are whole: was it saved with this config and these versions?"
        with self._reading(step, remedy):
            return self.read(step, target)

    def _newest_whole(self, not_after: int | None) -> int:
        damaged: list[str] = []
        found = None
        for step in reversed(finished_steps(self.folder)) if is_first() else ():
            if not_after is None or step <= not_after:
                message = self.damage(step)
                if message is None:
                    found = step
                    break
                damaged.append(message)
        chosen = _of_first(found)
        if chosen is None and not_after is not None:
            raise GlpiError(
                f"{self._best_folder / str(not_after)} is damaged, and no whole checkpoint is left"
                " from which its steps could be taken again: put a copy of it back, or remove"
                f" {self._best_folder} to go on and select among the later epochs alone"
            )
        if chosen is None:
            raise GlpiError(
                f"{'; '.join(damaged) or self.folder}: no whole checkpoint is left; put a copy"
                f" back, or remove {self.folder} to train from the start"
            )
        for message in damaged:
            _warn(f"{message}; resuming from step {chosen}, the newest that is whole")
        return chosen


class BestCheckpoint(Store):
    """The selected weights of a run, with the step, epoch and value that selected them."""

    def __init__(self, workdir: Path, *, read_only: bool):
        """Open the folder; unless read only, make it.

        Raises:
            GlpiError: read only, and there is no trained model.
        """
        folder = workdir / BEST_FOLDER
        if read_only and not folder.is_dir():
            raise GlpiError(f"{workdir}: no trained model here (no folder {BEST_FOLDER}/)")
        super().__init__(folder, arrays="variables", facts="selection", keep=1, read_only=read_only)
        if read_only and self.latest_step is None:
            raise GlpiError(f"{folder}: holds no finished checkpoint")

    def damaged_step(self) -> int | None:
        """The step of the selected weights if they are damaged, which is told on stderr."""
        step = self.latest_step if is_first() else None
        message = None if step is None else self.damage(step)
        if message is not None:
            _warn(f"{message}; going back to make it again")
        return _of_first(step if message is not None else None)

    def selection(self) -> dict[str, Any] | None:
        """What `save` was given besides the weights, or None before the first save.

        Raises:
            GlpiError: it is damaged.
        """
        if self.latest_step is None:
            return None
        with self._reading_newest() as step:
            return self.facts(step)

    def save(self, variables: dict[str, Any], selection: dict[str, Any]) -> None:
        """Replace the selected weights and wait for it; `selection` has at least `step`.

        The earlier ones stay until then. A resume checkpoint of the same step must be saved after
        this: resumed from there, a run would not select these weights again.

        Raises:
            GlpiError: they cannot be saved.
        """
        self.write(selection["step"], variables, selection)
        self.wait()

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
        with self._reading_newest() as step:
            problems = tree_differences(self.shapes(step), target)
            if not problems:
                return self.read(step, target)
        raise GlpiError(
            f"{self._path(step)}: the checkpoint is of another model than {model_of} says:"
            f" {'; '.join(problems)}"
        )

    @contextmanager
    def _reading_newest(self) -> Iterator[int]:
        """Give the newest step, if its files are whole."""
        step = self.latest_step
        if step is None:
            raise GlpiError(f"{self.folder}: holds no finished checkpoint")
        message = self.damage(step)
        if message is not None:
            raise GlpiError(message + _BEST_REMEDY)
        with self._reading(step, _BEST_REMEDY):
            yield step


def _of_first(step: int | None) -> int | None:
    """The step that process 0 has found, on every process."""
    told = told_by_first(-1 if step is None else step)
    return None if told == -1 else told


def _warn(message: str) -> None:
    """Tell the user on stderr, once for all processes."""
    if is_first():
        print(f"warning: {message}", file=sys.stderr)
