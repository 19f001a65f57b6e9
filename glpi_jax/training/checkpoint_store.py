"""Orbax behind two verbs: write a checkpoint in the background, read one.

The only module that knows Orbax. Of several processes all write and read together, on one file
system; each writes its own shards, and process 0 what concerns the folder as a whole.
"""

import copy
import errno
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

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
            folder: of the checkpoints.
            arrays, facts: names of the two items.
            keep: how many finished checkpoints stay, the newest.
            read_only: nothing will be saved.
        """
        self.folder = folder
        self._arrays, self._facts = arrays, facts
        self._keep = keep
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seal")
        self._saving: tuple[int, Future[None]] | None = None
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

    @property
    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint, None if there is none."""
        return max(files.finished_steps(self.folder), default=None)

    def damage(self, step: int) -> str | None:
        """Say that a finished checkpoint's files are not whole, and why; None if they are."""
        cause = files.damage(self._path(step))
        return None if cause is None else self._unreadable(step, cause)

    def remove_after(self, step: int) -> None:
        """Remove later checkpoints: damaged ones, and those of steps that are taken again."""
        if is_first():
            files.remove_after(self.folder, step)
        wait_for_all(f"{self.folder} resumes from {step}")

    def write(self, step: int, arrays: Any, facts: dict[str, Any]) -> None:
        """Begin to save and return; a save under way is waited for first.

        The arrays must not be donated before `wait`. Checkpoints of this step or of later ones
        are replaced.

        Raises:
            GlpiError: this save cannot begin, or the one before has failed.
        """
        self.wait()
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
            self._fail(step, error)
        self._saving = step, self._background.submit(self._finish, step)

    def _finish(self, step: int) -> None:
        """In the background: when all processes have written their part, one seals the whole."""
        self._checkpointer.wait_until_finished()
        if is_first():
            files.seal(self.folder / str(step))

    def wait(self) -> None:
        """Wait until the save under way, if any, is sealed; then older checkpoints go.

        Raises:
            GlpiError: it failed; nothing of it is left, or a temporary folder at most that a write
                made late, which the next start clears away.
        """
        if self._saving is not None:
            step, _ = self._saving
            self._join()
            wait_for_all(f"saved {self.folder / str(step)}")

    def _join(self) -> None:
        if self._saving is None:
            return
        (step, sealed), self._saving = self._saving, None
        error = sealed.exception()
        if error is not None:
            self._fail(step, error)
        if is_first():
            files.keep_newest(self.folder, self._keep)

    def _fail(self, step: int, error: BaseException) -> NoReturn:
        """Clean up after a failed save, and say why it failed."""
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
            f" it resumes from {f'step {newest[0]}' if newest else 'the start'}"
        ) from error

    def read(self, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
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
        args = ocp.args.Composite(**items)
        return self._checkpointer.restore(self._path(step).resolve(), args=args)

    def shapes(self, step: int) -> Any:
        """Read shapes and dtypes of the arrays."""
        return self._checkpointer.metadata(self._path(step).resolve()).item_metadata[self._arrays]

    @contextmanager
    def _reading(self, step: int, remedy: str) -> Iterator[None]:
        """Raise a GlpiError that ends with the remedy in place of what Orbax raises."""
        try:
            yield
        except Exception as error:  # Orbax raises anything, bare `Exception` included
            if speaks_of_others(error):
                raise
            raise GlpiError(self._unreadable(step, _first_line(error)) + remedy) from error

    def _path(self, step: int) -> Path:
        return files.path_of(self.folder, step)

    def _unreadable(self, step: int, cause: str) -> str:
        return f"{self._path(step)}: the checkpoint cannot be read ({cause})"

    def close(self) -> None:
        """Wait as `wait` does, but for no other process: it may be one that failed."""
        try:
            self._join()
        finally:
            self._background.shutdown()
            self._checkpointer.close()


def _cause(error: BaseException) -> str:
    """Why a save failed; Orbax names each of its temporary files around it."""
    known = (os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    text = str(error)
    return next((cause for cause in known if cause in text), _first_line(error))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
