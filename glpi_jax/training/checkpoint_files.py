"""Folders of checkpoints, one a step, as files: which are finished, whole, and to be kept.

A checkpoint is finished when it has a seal, `files.json`: the CRC-32 of each of its files, written
last. Everything here is done by one process, for all; see `checkpoint.py` for what is in them.
"""

import json
import os
import re
import shutil
import zlib
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json

SEAL_FILE = "files.json"
_OLDER = ".older"  # ends the name of a finished checkpoint that a save under way replaces
# What a killed process leaves: the temporary folder of Orbax, or a step without its seal.
_SAVED = re.compile(r"\d+(\.orbax-checkpoint-tmp.*|\.older)?")


def finished_steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints, in order; empty if there is no such folder."""
    return _steps(folder) or _steps(folder, _OLDER)


def path_of(folder: Path, step: int) -> Path:
    """Where a finished checkpoint is, or is to be."""
    path, older = folder / str(step), folder / f"{step}{_OLDER}"
    sealed, older_sealed = ((folder / SEAL_FILE).is_file() for folder in (path, older))
    return older if older_sealed and not sealed else path


def _steps(folder: Path, ending: str = "") -> list[int]:
    names = [path.parent.name for path in folder.glob(f"*{ending}/{SEAL_FILE}")]
    steps = [name.removesuffix(ending) for name in names]
    return sorted(int(step) for step in steps if step.isdecimal())


def clean(folder: Path) -> None:
    """Make the folder if it is missing; undo what a killed save has left there.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _SAVED.fullmatch(path.name) and not (path / SEAL_FILE).is_file():
            shutil.rmtree(path)
    finished = _steps(folder)
    for step in _steps(folder, _OLDER):
        older = folder / f"{step}{_OLDER}"
        if finished:
            _remove(older)
        else:
            older.rename(folder / str(step))


def make_room(folder: Path, step: int) -> None:
    """Put the checkpoints of this step and of later ones aside, until `keep_newest`.

    Until the new one is finished they stand in for it, if there is no other: see `clean`.
    """
    for later in _steps(folder):
        if later >= step:
            (folder / str(later)).rename(folder / f"{later}{_OLDER}")


def keep_newest(folder: Path, count: int) -> None:
    """Remove all finished checkpoints but the newest ones, and those that were put aside."""
    steps = _steps(folder)
    for step in steps[:-count]:
        _remove(folder / str(step))
    for step in _steps(folder, _OLDER) if steps else ():
        _remove(folder / f"{step}{_OLDER}")


def remove_after(folder: Path, step: int) -> None:
    """Remove the finished checkpoints of later steps."""
    for later in _steps(folder):
        if later > step:
            _remove(folder / str(later))


def _remove(path: Path) -> None:
    # Without its seal first, so that a half-removed checkpoint is not taken for a damaged one.
    (path / SEAL_FILE).unlink()
    shutil.rmtree(path)


def seal(path: Path) -> None:
    """Finish a checkpoint: put its files on disk and note the CRC-32 of each.

    Raises:
        OSError, GlpiError: a file cannot be read, or the seal not be written.
    """
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    sums = {name: _crc32(path / name) for name in names}
    for part in (*path.rglob("*"), path):
        _to_disk(part)
    write_json(path / SEAL_FILE, sums)
    for part in (path / SEAL_FILE, path, path.parent):
        _to_disk(part)


def damage(path: Path) -> str | None:
    """What is wrong with the files of a finished checkpoint, in words; None if they are whole.

    Orbax keeps no checksum of array data, and where it does see damage it leaves tracebacks of
    its threads on stderr.
    """
    try:
        sums = json.loads((path / SEAL_FILE).read_text())
        for name, crc in sums.items():
            if _crc32(path / name) != crc:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(path)} is missing"
    except (OSError, ValueError, AttributeError, TypeError, GlpiError) as error:
        return f"{SEAL_FILE} or a file that it names cannot be read: {error}"
    return None


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _to_disk(path: Path) -> None:
    """Wait until a file or the entries of a folder would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
