"""Checkpoints of a run; the only module that knows Orbax.

Two folders in the workdir: `checkpoints/` holds what training resumes from (state, data iterator,
best result so far), `best/` the weights of the epoch that the validation part selected.
"""

import json
import logging
import shutil
import zlib
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from glpi_jax.errors import GlpiError
from glpi_jax.files import write_json
from glpi_jax.training.processes import is_first, wait_for_all
from glpi_jax.training.state import TrainState, tree_differences

RESUME_FOLDER = "checkpoints"
BEST_FOLDER = "best"
SEAL_FILE = "files.json"  # in each checkpoint, written last: one without it is not finished

# Orbax reports each of its threads; what goes wrong it raises as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)


def _manager(
    folder: Path, handlers: dict[str, ocp.CheckpointHandler], *, keep: int, read_only: bool
) -> ocp.CheckpointManager:
    if not read_only:
        if is_first():
            _remove_unfinished(folder)
        wait_for_all(f"open {folder}")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=None if read_only else keep,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
        # The state is donated to the next step: it must be on disk before that starts.
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(folder.resolve(), item_handlers=handlers, options=options)


def _remove_unfinished(folder: Path) -> None:
    """Remove the checkpoints of a folder that were not completed; Orbax knows its own leftovers."""
    if folder.is_dir():
        for step in folder.iterdir():
            if step.name.isdecimal() and not (step / SEAL_FILE).is_file():
                shutil.rmtree(step)


class ResumeCheckpoints:
    """The latest states of a run, each with its data iterator and progress."""

    def __init__(self, workdir: Path):
        """Open, or make, the folder; leftovers of an interrupted save are removed."""
        self._folder = workdir / RESUME_FOLDER
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
        }
        self._manager = _manager(self._folder, handlers, keep=2, read_only=False)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Save a state and the position of the data iterator; a step that exists stays as it is."""
        step = int(state.step)
        if self.latest_step is not None and step <= self.latest_step:
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(data_state),
            ),
        )
        _seal_first(self._folder / str(step))

    def restore(self, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restore the newest checkpoint into a target of shapes, dtypes and shardings.

        Raises:
            GlpiError: the checkpoint is damaged or does not fit the target.
        """
        step = self.latest_step
        try:
            _check_seal(self._folder / str(step))
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target),
                    data=ocp.args.JsonRestore(),
                ),
            )
        except Exception as error:  # Orbax raises anything, bare `Exception` included
            raise GlpiError(
                f"{self._folder / str(step)}: the checkpoint cannot be read "
                f"({_first_line(error)}); remove that folder to resume from an older one"
            ) from error
        return restored.state, restored.data

    def close(self) -> None:
        """Wait for saves and close."""
        self._manager.close()


class BestCheckpoint:
    """The selected weights of a run, with the step, epoch and value that selected them."""

    def __init__(self, workdir: Path, *, read_only: bool):
        """Open the folder; unless read only, make it.

        Raises:
            GlpiError: read only, and there is no trained model.
        """
        self._folder = workdir / BEST_FOLDER
        if read_only and not self._folder.is_dir():
            raise GlpiError(f"{workdir}: no trained model here (no folder {BEST_FOLDER}/)")
        handlers = {
            "variables": ocp.StandardCheckpointHandler(),
            "selection": ocp.JsonCheckpointHandler(),
        }
        self._manager = _manager(self._folder, handlers, keep=1, read_only=read_only)
        step = self._manager.latest_step()
        if read_only and not (self._folder / str(step) / SEAL_FILE).is_file():
            raise GlpiError(f"{self._folder}: holds no finished checkpoint")

    def selection(self) -> dict[str, Any] | None:
        """What `save` was given besides the weights, or None before the first save.

        Raises:
            GlpiError: it is damaged.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(selection=ocp.args.JsonRestore())
        try:
            _check_seal(self._folder / str(step))
            return self._manager.restore(step, args=args).selection
        except Exception as error:
            raise self._unreadable(step, error) from error

    def save(self, variables: dict[str, Any], selection: dict[str, Any]) -> None:
        """Replace the selected weights; `selection` has at least `step`."""
        self._manager.save(
            selection["step"],
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(variables),
                selection=ocp.args.JsonSave(selection),
            ),
        )
        _seal_first(self._folder / str(selection["step"]))

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
        step = self._manager.latest_step()
        try:
            _check_seal(self._folder / str(step))
            saved = self._manager.item_metadata(step).variables
            problems = tree_differences(saved, target)
            if problems:
                raise GlpiError(
                    f"{self._folder / str(step)}: the checkpoint is of another model than "
                    f"{model_of} says: {'; '.join(problems)}"
                )
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardRestore(target),
                    selection=ocp.args.JsonRestore(),
                ),
            )
        except GlpiError:
            raise
        except Exception as error:
            raise self._unreadable(step, error) from error
        return restored.variables, restored.selection

    def _unreadable(self, step: int | None, error: Exception) -> GlpiError:
        return GlpiError(
            f"{self._folder / str(step)}: the checkpoint cannot be read ({_first_line(error)})"
        )

    def close(self) -> None:
        """Wait for saves and close."""
        self._manager.close()


def _seal_first(folder: Path) -> None:
    """Complete a checkpoint: one process notes the CRC-32 of each of its files."""
    if is_first():
        _seal(folder)
    wait_for_all(f"seal {folder}")


def _seal(folder: Path) -> None:
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    write_json(
        folder / SEAL_FILE, {name: zlib.crc32((folder / name).read_bytes()) for name in names}
    )


def _check_seal(folder: Path) -> None:
    """Raise an error unless a checkpoint's files are as they were written.

    Orbax keeps no checksum of array data, and where it does see damage it leaves tracebacks of
    its threads on stderr.
    """
    seal = json.loads((folder / SEAL_FILE).read_text())
    for name, crc in seal.items():
        if zlib.crc32((folder / name).read_bytes()) != crc:
            raise ValueError(f"{name} is damaged")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
