"""Results in a file that grows while images are scored: CSV or JSON lines.

Until the last image it is `NAME.partial`, beside which `NAME.partial.json` says what the scores are
made with; then it takes its name in one step. An interrupted run can go on in it.
"""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json
from glpi_jax.scoring.record_forms import (
    FIELDS,
    Form,
    check_replaceable,
    filled_fields,
    header,
    read_names,
    record,
)
from glpi_jax.scoring.results import ImageScore

__all__ = ["FIELDS", "Form", "Records", "filled_fields", "open_records", "partial_file"]

_FORMAT = 1


def partial_file(path: Path) -> Path:
    """Where results are until the file is complete."""
    return path.with_name(f"{path.name}.partial")


class Records:
    """An open file of results; `open_records` makes it.

    Attributes:
        names: images that an earlier run has written.
        errors: how many of these had an error.
        written: how many results this run has added.
    """

    def __init__(self, path: Path, file: IO[str], form: Form, names: set[str], errors: int):
        """Go on at the end of `file`, which is to become `path`."""
        self.names = names
        self.errors = errors
        self.written = 0
        self._path = path
        self._file = file
        self._form = form

    def write(self, result: ImageScore) -> None:
        """Add a result; it is in the file when this returns.

        Raises:
            GlpiError: the file cannot be written.
        """
        with _writing(self._path):
            self._file.write(record(result, self._form))
            self._file.flush()
        self.written += 1


@contextmanager
def open_records(
    path: Path, form: Form, settings: Mapping[str, Any], *, resume: bool
) -> Iterator[Records]:
    """Write results to a file, which appears when the block ends without an error.

    After an error it leaves the partial file, unless that holds no result.

    Args:
        path: the file; old results of the same form are replaced at the end.
        form: "csv", with a header line of `FIELDS`, or "jsonl".
        settings: what the scores are made with, fit for JSON.
        resume: go on in the partial file of an interrupted run, if there is one.

    Raises:
        GlpiError: the file cannot be written, or holds something else; another run is writing it;
            there is a partial file and `resume` is False, or it was made with other settings.
    """
    partial = partial_file(path)
    facts = partial.with_name(f"{partial.name}.json")
    settings = {"format": _FORMAT, "form": form, "fields": list(FIELDS), **settings}
    check_replaceable(path, form)
    with _locked(path):
        names, errors = _earlier(partial, facts, form, settings, resume=resume)
        with _writing(path):
            file = open(  # noqa: SIM115
                partial, "a", encoding="utf-8", errors="surrogateescape", newline=""
            )
        records = Records(path, file, form, names, errors)
        try:
            with _writing(path):
                if not partial.stat().st_size:
                    file.write(header(form))
                    file.flush()
            yield records
        except BaseException:
            if not (names or records.written):  # nothing to go on from
                with suppress(OSError):
                    file.close()  # which Windows wants first
                for left in (partial, facts):
                    with suppress(OSError):
                        left.unlink()
            raise
        finally:
            with suppress(OSError):
                file.close()
        with _writing(path):
            os.replace(partial, path)
            facts.unlink()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GlpiError(f"{path}: cannot be written ({error.strerror})") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the partial file, which is made if need be, against other runs.

    Where the system has no such locks, or the file system none, nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    partial = partial_file(path)
    with _writing(path):
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other run may have finished since the file was opened, and renamed it.
            free = partial.exists() and os.path.samestat(os.fstat(handle), os.stat(partial))
        except OSError as error:
            free = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        if not free:
            raise GlpiError(
                f"{path}: another run is writing it; wait for its end, or give another name"
            )
        yield
    finally:
        os.close(handle)


def _earlier(
    partial: Path, facts: Path, form: Form, settings: Mapping[str, Any], *, resume: bool
) -> tuple[set[str], int]:
    """Images of an interrupted run, and how many had an error; none if this run begins anew."""
    if partial.exists() and partial.stat().st_size > len(header(form)):
        if not resume:
            raise GlpiError(
                f"{partial}: scores of an interrupted run; go on with --resume, or delete the file"
            )
        _check_settings(partial, facts, settings)
        return read_names(partial, form, cut=True)
    with _writing(partial), suppress(FileNotFoundError):
        os.truncate(partial, 0)
    write_json(facts, settings)
    return set(), 0


def _check_settings(partial: Path, facts: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = json.loads(facts.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("no settings")
    except (OSError, ValueError) as error:
        raise GlpiError(
            f"{facts}: cannot be read, so that nobody knows what {partial} was made with; delete "
            "both"
        ) from error
    other = [key for key, value in settings.items() if before.get(key) != value]
    if other:
        changes = ", ".join(f"{key} {_short(before.get(key))}" for key in other)
        raise GlpiError(
            f"{partial}: begun with {changes}, not {', '.join(_short(settings[k]) for k in other)};"
            " go on with the same, or delete the file"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
