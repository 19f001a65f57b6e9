"""Orbax behind two verbs: save a checkpoint in the background, restore one.

The only module that knows Orbax. Of several processes all save and restore together, on one file
system; each writes its own shards, and process 0 what concerns the folder as a whole.
"""

import copy
import errno
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from glpi_jax.core.errors import GlpiError, speaks_of_others
from glpi_jax.distributed.ranks import is_first, wait_for_all
from glpi_jax.training import checkpoint_files as files

RESUME_FOLDER = "checkpoints"

# Orbax reports each of its threads; what goes wrong it raises as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Store:
    """A folder of checkpoints, each a tree of arrays and some facts, saved one at a time."""

    def __init__(self, folder: Path, *, arrays: str, facts: str, keep: int, read_only: bool):
        """Open the folder; unless read only, make it and remove what a killed save has left.

        Args:
            folder: in the workdir.
            arrays, facts: names of the two items.
            keep: how many finished checkpoints stay, the newest.
            read_only: nothing will be saved.
        """
        self.folder = folder
        self._arrays, self._facts = arrays, facts
        self._keep = keep
        self._saving: int | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        if not read_only:
            if is_first():
                files.clean(folder)
            wait_for_all(f"open {folder}")
        self._checkpointer = self._open()

    def _open(self) -> ocp.AsyncCheckpointer:
        # Folders are made at once, so that a full disk is told before anything is written.
        options = ocp.AsyncOptions(create_directories_asynchronously=False)
        handlers = {
            self._arrays: ocp.StandardCheckpointHandler(),
            self._facts: ocp.JsonCheckpointHandler(),
        }
        composite = ocp.CompositeOptions(async_options=options)
        return ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(composite_options=composite, **handlers),
            async_options=options,
        )

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return files.path_of(self.folder, step)

    def save(self, step: int, arrays: Any, facts: dict[str, Any]) -> None:
        """Begin to save and return; a save under way is waited for first.

        The arrays must not be donated before `wait`. Checkpoints of this step or of later ones
        are replaced.

        Raises:
            GlpiError: this save cannot begin, or the one before has failed.
        """
        self.wait()
        self._saving = step
        items = {
            self._arrays: ocp.args.StandardSave(arrays),
            self._facts: ocp.args.JsonSave(copy.deepcopy(facts)),
        }
        try:
            if is_first():
                files.make_room(self.folder, step)
            # All processes wait for each other in here before anything is written.
            self._checkpointer.save(
                (self.folder / str(step)).resolve(), args=ocp.args.Composite(**items), force=True
            )
        except Exception as error:
            self._error = error
        else:
            self._thread = threading.Thread(target=self._finish, args=(step,), name="seal")
            self._thread.start()
            return
        self._join()

    def _finish(self, step: int) -> None:
        """In the background: when all processes have written their part, one seals the whole."""
        try:
            self._checkpointer.wait_until_finished()
            if is_first():
                files.seal(self.folder / str(step))
        except BaseException as error:  # told by the next call of the main thread
            self._error = error

    def wait(self) -> None:
        """Wait until the save under way, if any, is sealed; then older checkpoints go.

        Raises:
            GlpiError: it failed; nothing of it is left, or a temporary folder at most that a write
                made late, which the next start clears away.
        """
        if self._saving is not None:
            step = self._saving
            self._join()
            wait_for_all(f"saved {self.folder / str(step)}")

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
        step, error = self._saving, self._error
        self._thread = self._saving = self._error = None
        if error is not None:
            with suppress(Exception):  # the same cause once more, from Orbax's other threads
                self._checkpointer.close()
            self._checkpointer = self._open()
            if is_first():
                with suppress(OSError):
                    files.clean(self.folder)
            if speaks_of_others(error):
                raise error
            newest = files.finished_steps(self.folder.parent / RESUME_FOLDER)[-1:]
            raise GlpiError(
                f"{self.folder / str(step)}: the checkpoint cannot be saved ({_cause(error)}); free"
                " space on that disk, or mend what is named here, and give the same command again:"
                f" it goes on from {f'step {newest[0]}' if newest else 'the start'}"
            ) from error
        if step is not None and is_first():
            files.keep_newest(self.folder, self._keep)

    def restore(self, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
        """Read the arrays, into a target of shapes, dtypes and shardings, and the facts."""
        items = {
            self._arrays: ocp.args.StandardRestore(target),
            self._facts: ocp.args.JsonRestore(),
        }
        restored = self._read(step, items)
        return restored[self._arrays], restored[self._facts]

    def facts(self, step: int) -> dict[str, Any]:
        """Read the facts alone."""
        return dict(self._read(step, {self._facts: ocp.args.JsonRestore()})[self._facts])

    def _read(self, step: int, items: dict[str, Any]) -> Any:
        return self._checkpointer.restore(
            self.path(step).resolve(), args=ocp.args.Composite(**items)
        )

    def shapes(self, step: int) -> Any:
        """Shapes and dtypes of the arrays."""
        return self._checkpointer.metadata(self.path(step).resolve()).item_metadata[self._arrays]

    def close(self) -> None:
        """Wait as `wait` does, but for no other process: it may be one that failed."""
        try:
            self._join()
        finally:
            self._checkpointer.close()


def _cause(error: BaseException) -> str:
    """Why a save failed; Orbax names each of its temporary files around it."""
    known = (os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    text = str(error)
    return next((cause for cause in known if cause in text), first_line(error))


def first_line(error: BaseException) -> str:
    """The beginning of an error's text, for a message of one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
