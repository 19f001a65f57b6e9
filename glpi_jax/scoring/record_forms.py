"""Results as records of CSV or JSON lines, and what a file of them holds."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from glpi_jax.core.errors import GlpiError
from glpi_jax.scoring.results import ImageScore

Form = Literal["csv", "jsonl"]
FIELDS = ("image", "score", "crop_std", "standard_error", "crops", "note", "error")

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
    """Refuse to replace a file that holds anything but results of this form.

    Raises:
        GlpiError: there is such a file, or one that cannot be read.
    """
    if not path.exists():
        return
    try:
        with open(path, "rb") as file:
            first = file.readline(_FIRST_LINE_BYTES)
    except OSError as error:
        raise GlpiError(f"{path}: exists, and cannot be read ({error.strerror})") from error
    if first and not _begins_own_file(first, form):
        kind = "CSV" if form == "csv" else "JSON lines"
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
    if not isinstance(fields, dict) or not fields.keys() <= set(FIELDS):
        return False
    # Labels have images and scores too, though neither crops nor errors.
    return "image" in fields and not fields.keys().isdisjoint(("crops", "error"))


def read_names(path: Path, form: Form, *, cut: bool) -> tuple[set[str], int]:
    """Images in a file of results, and how many have an error.

    Args:
        path: the file.
        form: of its records.
        cut: take away a record at the end that was written by halves.

    Raises:
        GlpiError: it cannot be read, or holds something else.
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
