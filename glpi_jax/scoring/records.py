"""Results in a file that grows while images are scored: CSV or JSON lines.

Until the last image it is `NAME.partial`, beside which `NAME.partial.json` says what the scores are
made with; then it takes its name in one step. An interrupted run can go on in it.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from glpi_jax.errors import GlpiError
from glpi_jax.files import write_json
from glpi_jax.scoring.results import ImageScore

Form = Literal["csv", "jsonl"]
FIELDS = ("image", "score", "crop_std", "standard_error", "crops", "note", "error")

_FORMAT = 1


def filled_fields(result: ImageScore) -> dict[str, Any]:
    """A result as a dictionary without its empty fields, in the order of `FIELDS`."""
    values = {field: getattr(result, field) for field in FIELDS}
    return {field: value for field, value in values.items() if value is not None}


def partial_file(path: Path) -> Path:
    """Where results are until the file is complete."""
    return path.with_name(f"{path.name}.partial")


class Records:
    """An open file of results; `open_records` makes it.

    Attributes:
        names: images that an earlier run has written.
        errors: how many of these had an error.
    """

    def __init__(self, path: Path, file: IO[str], form: Form, names: set[str], errors: int):
        """Go on at the end of `file`, which is to become `path`."""
        self.names = names
        self.errors = errors
        self._path = path
        self._file = file
        self._form = form
        self._rows = csv.writer(file, lineterminator="\n")

    def write(self, result: ImageScore) -> None:
        """Add a result; it is in the file when this returns.

        Raises:
            GlpiError: the file cannot be written.
        """
        with _writing(self._path):
            if self._form == "csv":
                self._rows.writerow([getattr(result, field) for field in FIELDS])
            else:
                self._file.write(json.dumps(filled_fields(result)) + "\n")
            self._file.flush()


@contextmanager
def open_records(
    path: Path, form: Form, settings: Mapping[str, Any], *, resume: bool
) -> Iterator[Records]:
    """Write results to a file, which appears when the block ends without an error.

    Args:
        path: the file; an old one is replaced at the end.
        form: "csv", with a header line of `FIELDS`, or "jsonl".
        settings: what the scores are made with, fit for JSON.
        resume: go on in the partial file of an interrupted run, if there is one.

    Raises:
        GlpiError: the file cannot be written; there is a partial file and `resume` is False, or it
            was made with other settings.
    """
    partial = partial_file(path)
    facts = partial.with_name(f"{partial.name}.json")
    settings = {"format": _FORMAT, "form": form, "fields": list(FIELDS), **settings}
    names: set[str] = set()
    errors = 0
    if not path.parent.is_dir():
        raise GlpiError(f"{path}: cannot be written (No such file or directory)")
    if partial.exists():
        if not resume:
            raise GlpiError(
                f"{partial}: scores of an interrupted run; go on with --resume, or delete the file"
            )
        _check_settings(partial, facts, settings)
        names, errors = _read_names(partial, form)
    else:
        write_json(facts, settings)
    with _writing(path):
        file = open(  # noqa: SIM115
            partial, "a", encoding="utf-8", errors="surrogateescape", newline=""
        )
    try:
        with _writing(path):
            if form == "csv" and not partial.stat().st_size:
                file.write(",".join(FIELDS) + "\n")
                file.flush()
        yield Records(path, file, form, names, errors)
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


def _check_settings(partial: Path, facts: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = json.loads(facts.read_text(encoding="utf-8"))
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


def _read_names(partial: Path, form: Form) -> tuple[set[str], int]:
    """Images in a partial file, and how many have an error; what was written by halves is cut."""
    names: set[str] = set()
    errors = end = 0
    try:
        with open(partial, "rb+") as file:
            for record in _whole_records(file, form):
                end += len(record)
                text = record.decode("utf-8", "surrogateescape")
                if form == "jsonl":
                    result = json.loads(text)
                else:
                    (row,) = csv.reader(io.StringIO(text, newline=""))
                    result = dict(zip(FIELDS, row, strict=True))
                    if row[0] == FIELDS[0] and end == len(record):
                        continue  # the header
                names.add(result["image"])
                errors += bool(result.get("error"))
            file.truncate(end)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise GlpiError(f"{partial}: damaged; delete it ({error})") from error
    return names, errors


def _whole_records(file: IO[bytes], form: Form) -> Iterator[bytes]:
    """Records with their line ends; a quoted name may hold line ends too."""
    record = b""
    for line in file:
        record += line
        quoted = form == "csv" and record.count(b'"') % 2
        if record.endswith(b"\n") and not quoted:
            yield record
            record = b""
