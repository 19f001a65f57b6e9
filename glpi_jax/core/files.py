"""Files that are replaced in one step, and folders that are made whole or not at all."""

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glpi_jax.core.errors import GlpiError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS)
"""What the system says where a file system knows no locks, or needs none as nothing is written."""


def home_expanded(name: str) -> str:
    """A name in which `~` is the home folder, as a shell has it, unless there is such a file."""
    return os.path.expanduser(name) if name[:1] == "~" and not os.path.lexists(name) else name


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a path that no file can be written to, before the work for it is done.

    Raises:
        GlpiError: it is a folder, it is a file and `force` is False, or its own folder is missing.
    """
    if path.is_dir():
        raise GlpiError(f"{path}: this is a folder; name a file")
    if path.exists() and not force:
        raise GlpiError(f"{path}: exists already; --force replaces it")
    if not path.parent.is_dir():
        raise GlpiError(f"{path}: there is no folder {path.parent}")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as `write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a text file, UTF-8, as `write_bytes` does.

    Raises:
        GlpiError: the file cannot be written.
    """
    # surrogateescape: a file name in the text need not be valid UTF-8.
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file so that readers see the old content or the new, never a part.

    Raises:
        GlpiError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file, which replaces a file when the block has ended well.

    Raises:
        GlpiError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError | RuntimeError):  # torch: the latter when a disk is full
            raise
        cause = getattr(error, "strerror", None) or " ".join(str(error).split()[:20])
        raise GlpiError(f"{path}: cannot be written ({cause})") from error


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Make a hidden folder beside a path, for what is to be moved there once it is whole.

    It is removed in the end; what a killed process has left of it, by the next one for this path.

    Raises:
        GlpiError: a path such as `.`, in whose place nothing can be moved.
    """
    if target.name in ("", ".."):
        raise GlpiError(f"{target}: has no name of its own; name a folder that is to be made")
    beginning = f".{target.name}.{socket.gethostname()}."
    _remove_abandoned(target.parent, beginning)
    staging = target.with_name(f"{beginning}{os.getpid()}.tmp")
    try:
        staging.mkdir(parents=True)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(folder: Path, beginning: str) -> None:
    """Remove staging folders of this host's processes that have ended; of other hosts none."""
    try:
        found = os.listdir(folder)
    except OSError:  # it is still to be made, for one
        return
    names = re.compile(re.escape(beginning) + r"(\d{1,9})\.tmp")
    for match in filter(None, map(names.fullmatch, found)):
        if not _is_alive(int(match[1])):
            shutil.rmtree(folder / match[0], ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Whether another process has this number; if it is this one's, its owner before has ended."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def read_json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds, nothing where there is none.

    Raises:
        GlpiError: not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise GlpiError(f"{path}: must hold one JSON object")
    return value
