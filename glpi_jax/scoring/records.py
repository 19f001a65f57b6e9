"""Results in a file that grows while images are scored: CSV or JSON lines.

Until the last image it is `NAME.partial`, beside which `NAME.partial.json` says what the scores are
made with; then it takes its name in one step. An interrupted run can go on in it.
"""

import csv
import errno
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import read_json_object, write_json
from glpi_jax.scoring.results import ImageScore

Form = Literal["csv", "jsonl"]
FIELDS = ("image", "score", "crop_std", "standard_error", "crops", "note", "error")

_FORMAT = 1
_FIRST_LINE_BYTES = 2**18  # at most; a name has up to 2**16, and is in its error again


def filled_fields(result: ImageScore) -> dict[str, Any]:
    """A result as a dictionary without its empty fields, in the order of `FIELDS`."""
    values = {field: getattr(result, field) for field in FIELDS}
    return {field: value for field, value in values.items() if value is not None}


def header(form: Form) -> str:
    """What a file begins with."""
    return _csv_row(FIELDS) if form == "csv" else ""


def record(result: ImageScore, form: Form) -> str:
    """A result with its line end."""
    if form == "jsonl":
        return json.dumps(filled_fields(result)) + "\n"
    return _csv_row([getattr(result, field) for field in FIELDS])


def _csv_row(values: Sequence[object]) -> str:
    # With "\n" for a line end, Python 3.11 leaves a carriage return without the quotes it needs.
    quoted = any("\r" in value for value in values if isinstance(value, str))
    text = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator="\n", quoting=quoting).writerow(values)
    return text.getvalue()


def check_replaceable(path: Path, form: Form) -> None:
    """Raise GlpiError if a file holds anything but results of this form, or cannot be read."""
    if not path.exists():
        return
    try:
        with open(path, "rb") as file:
            first = file.readline(_FIRST_LINE_BYTES)
    except OSError as error:
        raise GlpiError(f"{path}: exists, and cannot be read ({error.strerror})") from error
    if first and not _begins_own_file(first, form):
        kind = {"csv": "CSV", "jsonl": "JSON lines"}[form]
        raise GlpiError(
            f"{path}: exists, and holds no scores as {kind}; give another name or delete it"
        )


def _begins_own_file(line: bytes, form: Form) -> bool:
    if form == "csv":
        return line.rstrip(b"\r\n").decode("latin-1") == header(form).rstrip("\n")
    try:
        fields = json.loads(line)
    except ValueError:
        return False
    if not (isinstance(fields, dict) and {"image"} <= fields.keys() <= set(FIELDS)):
        return False
    # Labels have images and scores too, though neither crops nor errors.
    return "crops" in fields or "error" in fields


def read_names(path: Path, form: Form, *, cut: bool) -> tuple[set[str], int]:
    """Images in a file of results, and how many have an error; GlpiError if it holds anything else.

    `cut` takes away a record at the end that was written by halves.
    """
    names: set[str] = set()
    errors = end = 0
    try:
        with open(path, "rb+" if cut else "rb") as file:
            for content in _whole_records(file, form):
                end += len(content)
                text = content.decode("utf-8", "surrogateescape")
                if form == "jsonl":
                    result = json.loads(text)
                else:
                    (row,) = csv.reader(io.StringIO(text, newline=""))
                    if row == list(FIELDS) and end == len(content):
                        continue  # the header
                    result = dict(zip(FIELDS, row, strict=True))
                if not (isinstance(result, dict) and isinstance(result.get("image"), str)):
                    raise ValueError(f"no result: {text.strip()[:40]}")
                names.add(result["image"])
                errors += bool(result.get("error"))
            if cut:
                file.truncate(end)
    except (OSError, ValueError, csv.Error) as error:
        raise GlpiError(f"{path}: damaged; delete it ({error})") from error
    return names, errors


def _whole_records(file: IO[bytes], form: Form) -> Iterator[bytes]:
    """Records with their line ends; a quoted name may hold line ends too."""
    content = b""
    for line in file:
        content += line
        quoted = form == "csv" and content.count(b'"') % 2
        if content.endswith(b"\n") and not quoted:
            yield content
            content = b""


def partial_file(path: Path) -> Path:
    """Where results are until the file is complete."""
    return path.with_name(f"{path.name}.partial")


@dataclass
class Records:
    """An open file of results; `open_records` makes it.

    Attributes:
        names: images that an earlier run has written.
        errors: how many of these had an error.
        written: how many results this run has added.
    """

    names: set[str]
    errors: int
    _path: Path
    _file: IO[str]
    _form: Form
    written: int = 0

    def write(self, result: ImageScore) -> None:
        """Add a result, which is in the file when this returns; GlpiError if it cannot be."""
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
        records = Records(names, errors, path, file, form)
        try:
            with _writing(path):
                if not partial.stat().st_size:
                    file.write(header(form))
                    file.flush()
            yield records
        except BaseException:
            with suppress(OSError):
                file.close()  # first, for Windows
            if not (names or records.written):  # nothing to go on from
                for left in (partial, facts):
                    with suppress(OSError):
                        left.unlink()
            raise
        with _writing(path):
            file.close()
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
    before: dict[str, Any] = {}
    with suppress(GlpiError):
        before = read_json_object(facts)
    if not before:
        raise GlpiError(
            f"{facts}: cannot be read, so that nobody knows what {partial} was made with; delete "
            "both"
        )
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
