"""Label files as rows of cells: CSV, plain text, Excel (.xlsx and .xls) and MATLAB.

What concerns the whole file (unreadable, a column not there) is a `GlpiError` at once. What
concerns one row is a `BadRow` when the cell is asked for, so that the caller may skip the row.
"""

import csv
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from io import BytesIO, StringIO
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import openpyxl
import scipy.io
import xlrd

from glpi_jax.core.errors import GlpiError

T = TypeVar("T")
Cell = str | int | float | bool | None
NumberedRows = Iterable[tuple[int, Sequence[Cell]]]

LARGEST = float(np.finfo(np.float32).max)
"""The largest label: models train on labels in float32."""
_MOST_DIGITS = 18  # of a whole number that is surely an int64


class BadRow(GlpiError):
    """A row that cannot be used: the message names file, row and cause."""


@dataclass(slots=True, eq=False)
class Row:
    """One row of a table; `number` counts from 1, as editors and spreadsheets do."""

    table: "Table"
    number: int
    cells: Sequence[Cell]

    def bad(self, cause: str) -> BadRow:
        """The error that this row cannot be used, for the caller to raise."""
        return BadRow(f"{self.table.path} {self.table.unit} {self.number}: {cause}")

    def text(self, column: str) -> str:
        """The cell as text: 1600.0 as "1600", an empty cell or one of no column as ""."""
        cell = self._cell(column)
        if cell is None:
            return ""
        if isinstance(cell, float) and cell.is_integer():
            return str(int(cell))
        return str(cell).strip()

    def number_of(self, column: str) -> float:
        """The cell as a finite number of at most `LARGEST`, else a `BadRow`."""
        cell = self._cell(column)
        try:
            number = math.nan if cell is None or isinstance(cell, bool) else float(cell)
        except (ValueError, OverflowError):  # the latter of an integer in a workbook
            number = math.nan
        if not math.isfinite(number):
            raise self.bad(f"{column} {self.text(column)!r} is not a finite number")
        if abs(number) > LARGEST:
            raise self.bad(f"{column} {self.text(column)!r} is too large for float32")
        return number

    def optional_number_of(self, column: str) -> float:
        """The cell as `number_of` has it, NaN where it is empty or there is no such column."""
        return self.number_of(column) if self.text(column) else math.nan

    def whole_number_of(self, column: str) -> int:
        """The cell as a whole number of at least 0, which is an int64, else a `BadRow`."""
        text = self.text(column)
        if not text.isdecimal():
            raise self.bad(f"{column} {text!r} is not a whole number")
        if len(text) > _MOST_DIGITS:
            raise self.bad(f"{column} {text!r} has more than {_MOST_DIGITS} digits")
        return int(text)

    def choice(self, column: str, choices: Mapping[str, T]) -> T:
        """What the cell's word stands for among these choices, else a `BadRow`."""
        word = self.text(column)
        if word not in choices:
            raise self.bad(f"{column} {word!r} is none of {', '.join(filter(None, choices))}")
        return choices[word]

    def image_name(self, column: str) -> str:
        """The cell as a path with "/" inside the folder, else a `BadRow`."""
        text = self.text(column)
        name = PurePosixPath(text.replace("\\", "/"))
        if not text or name.is_absolute() or ".." in name.parts:
            raise self.bad(f"{text!r} is not an image name inside the folder")
        return str(name)

    def _cell(self, column: str) -> Cell:
        if len(self.cells) != len(self.table.columns):
            raise self.bad(f"{len(self.cells)} values under {len(self.table.columns)} columns")
        place = self.table.index.get(column)
        return None if place is None else self.cells[place]


@dataclass
class Table:
    """The rows of a label file under named columns.

    Attributes:
        path: the file.
        unit: what a row is called in messages: line, row or entry.
        columns: names of the columns, "" where a spreadsheet has none.
        rows: the rows under the header, blank ones left out.
        index: column name → place in a row.
        numbered_rows: number and cells of each row, from which the rows are made.
    """

    path: Path
    unit: str
    columns: Sequence[str]
    numbered_rows: InitVar[NumberedRows]
    rows: list[Row] = field(init=False)
    index: dict[str, int] = field(init=False)

    def __post_init__(self, numbered_rows: NumberedRows) -> None:
        self.rows = [Row(self, number, cells) for number, cells in numbered_rows]
        self.index = {column: place for place, column in enumerate(self.columns)}

    def check_columns(self, required: Sequence[str], optional: Sequence[str] | None = None) -> None:
        """Check that the required columns are there, and no others than the optional (None: any).

        Raises:
            GlpiError: a column is missing, repeated or not allowed.
        """
        known = (*required, *(optional or ()))
        details = [f"known columns: {', '.join(known)}"] if optional is not None else []
        for column in required:
            if column not in self.index:
                found = ", ".join(filter(None, self.columns)) or "none"
                shown = "; ".join([*details, f"columns found: {found}"])
                raise GlpiError(f"{self.path}: column {column!r} is missing ({shown})")
        for column in self.columns:
            refused = optional is not None and column not in known
            if refused or (column in known and self.columns.count(column) > 1):
                ending = "".join(f" ({detail})" for detail in details)
                raise GlpiError(f"{self.path}: unknown or repeated column {column!r}{ending}")


@contextmanager
def reading(path: Path, what: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn these errors into a GlpiError that a file cannot be read as what it should be."""
    try:
        yield
    except errors as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise GlpiError(f"{path}: cannot be read as {what} ({cause})") from error


@contextmanager
def open_csv(path: Path) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """The header of a table, and line number and cells of the rows below, blank ones left out.

    Cells are separated by commas, or by tabs if the header holds any.

    Raises:
        GlpiError: not readable as such a table in UTF-8.
    """
    with (
        reading(path, "a CSV table in UTF-8", (OSError, UnicodeError, csv.Error)),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        first = file.readline()
        file.seek(0)
        lines = csv.reader(file, strict=True, delimiter="\t" if "\t" in first else ",")
        header = next(lines, [])
        yield header, ((lines.line_num, row) for row in lines if any(map(str.strip, row)))


def read_csv(
    path: Path, required: Sequence[str] = (), optional: Sequence[str] | None = None
) -> Table:
    """A table of `open_csv`; its columns pass `Table.check_columns`."""
    with open_csv(path) as (header, rows):
        table = Table(path, "line", tuple(map(str.strip, header)), rows)
    table.check_columns(required, optional)
    return table


def read_lines(path: Path, *layouts: Sequence[str], separator: str | None = None) -> Table:
    """A table without a header.

    Values are separated by any white space unless a separator is given. The layouts are column
    names; the number of values in the first line decides which of them apply, where empty values
    behind the last column do not count.

    Raises:
        GlpiError: not text in UTF-8, or a first line of another number of values.
    """
    with reading(path, "text in UTF-8", (OSError, UnicodeError)):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [
        # The last values may be empty, so that a separator ends the line.
        (number, [cell.strip() for cell in line.lstrip().split(separator)])
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    first = rows[0][1] if rows else layouts[0]
    for columns in sorted(layouts, key=len, reverse=True):
        if len(_without_blank_end(first, columns)) == len(columns):
            cut = [(number, _without_blank_end(cells, columns)) for number, cells in rows]
            return Table(path, "line", columns, cut)
    expected = " or ".join(", ".join(layout) for layout in layouts)
    raise GlpiError(f"{path}: {len(first)} values in the first line, but each must hold {expected}")


def _without_blank_end(cells: Sequence[str], columns: Sequence[str]) -> Sequence[str]:
    """Leave out empty values behind the last column."""
    while len(cells) > len(columns) and not cells[-1]:
        cells = cells[:-1]
    return cells


def read_sheet(
    path: Path, columns: Sequence[str], *, sheet: str | None = None, has_header: bool = True
) -> Table:
    """A sheet of an Excel workbook, .xlsx or .xls whatever its name says.

    The header is the first row that holds all of these columns; without one they are the first
    columns, by place. Rows that are empty in all of them are padding and left out. The sheet is the
    first one unless named.

    Raises:
        GlpiError: not a workbook, no such sheet or header.
    """
    rows, header = iter(_sheet_rows(path, sheet)), columns
    if has_header:
        for _, cells in rows:
            header = ["" if cell is None else str(cell).strip() for cell in cells]
            if set(columns) <= set(header):
                break
        else:
            where = f"sheet {sheet!r}" if sheet else "the first sheet"
            raise GlpiError(f"{path}: no row of {where} holds the columns {', '.join(columns)}")
    width = len(header)
    padded = ((number, [*cells, *[None] * width][:width]) for number, cells in rows)
    table = Table(path, "row", header, padded)
    table.check_columns(columns)
    table.rows = [row for row in table.rows if any(map(row.text, columns))]
    return table


def read_mat(columns: Mapping[str, tuple[Path, str]]) -> Table:
    """Vectors of numbers or cell arrays of strings from MATLAB files, by column: file and variable.

    Messages about a row name the first file.

    Raises:
        GlpiError: not a MATLAB file of version 7 or before, a variable that is missing or no
            vector, or vectors of different lengths.
    """
    vectors = {column: _mat_vector(*source) for column, source in columns.items()}
    lengths = {column: len(vector) for column, vector in vectors.items()}
    first_path, _ = next(iter(columns.values()))
    if len(set(lengths.values())) > 1:
        counts = ", ".join(
            f"{length} in {columns[column][0].name}" for column, length in lengths.items()
        )
        raise GlpiError(f"{first_path}: files of different lengths ({counts})")
    rows = enumerate(zip(*vectors.values(), strict=True), start=1)
    return Table(first_path, "entry", tuple(columns), rows)


def _mat_vector(path: Path, variable: str) -> list[Cell]:
    # SciPy's reader raises nearly anything on damaged files.
    with reading(path, "a MATLAB file", (Exception,)):
        content = scipy.io.loadmat(path, variable_names=[variable])
    if variable not in content:
        raise GlpiError(f"{path}: the variable {variable!r} is missing")
    array = np.asarray(content[variable])
    if array.size != max(array.shape, default=0) or array.dtype.kind not in "OUbiuf":
        raise GlpiError(
            f"{path}: {variable} is not a vector of numbers or strings"
            f" (shape {array.shape}, type {array.dtype})"
        )
    return [_mat_cell(cell) for cell in array.ravel().tolist()]


def _mat_cell(cell: Any) -> Cell:
    """A string in a cell array comes as an array of one string, the empty one as an empty array."""
    if isinstance(cell, np.ndarray):
        return cell.item() if cell.size == 1 else "" if cell.size == 0 else str(cell)
    return _plain(cell)


def _plain(value: Any) -> Cell:
    """Text and numbers as they are, others, such as dates, as text."""
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _sheet_rows(path: Path, sheet: str | None) -> list[tuple[int, Sequence[Cell]]]:
    """(row number from 1, cells) of every row of a sheet, empty cells as None."""
    # By content, since either kind is about under the other's name.
    readers = {b"PK\x03\x04": _xlsx_rows, b"\xd0\xcf\x11\xe0": _xls_rows}
    # Both readers raise nearly anything on damaged files.
    with reading(path, "an Excel workbook", (Exception,)):
        content = path.read_bytes()
        read = readers.get(content[:4])
        rows = None if read is None else read(content, sheet)
    if read is None:
        raise GlpiError(f"{path}: not an Excel workbook (.xlsx or .xls)")
    if rows is None:
        raise GlpiError(f"{path}: the workbook has no sheet {sheet!r}")
    return list(enumerate(rows, start=1))


def _xlsx_rows(content: bytes, sheet: str | None) -> list[Sequence[Cell]] | None:
    with warnings.catch_warnings():
        # About drop-down lists and styles that openpyxl does not keep: nothing that is read here.
        warnings.simplefilter("ignore", UserWarning)
        workbook = openpyxl.load_workbook(BytesIO(content), read_only=True, data_only=True)
        if sheet is not None and sheet not in workbook.sheetnames:
            return None
        worksheet = workbook.worksheets[0] if sheet is None else workbook[sheet]
        # Some programs write a wrong extent, and cells beyond it would be dropped.
        worksheet.reset_dimensions()
        return [list(map(_plain, row)) for row in worksheet.iter_rows(values_only=True)]


def _xls_rows(content: bytes, sheet: str | None) -> list[Sequence[Cell]] | None:
    # xlrd prints its complaints to stdout unless told otherwise.
    workbook = xlrd.open_workbook(file_contents=content, logfile=StringIO())
    if sheet is not None and sheet not in workbook.sheet_names():
        return None
    worksheet = workbook.sheet_by_index(0) if sheet is None else workbook.sheet_by_name(sheet)
    return [[_xls_cell(cell) for cell in row] for row in worksheet.get_rows()]


def _xls_cell(cell: Any) -> Cell:
    if cell.ctype in (xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK):
        return None
    # A date, truth value or error is no number: as "error:42".
    return cell.value if cell.ctype in (xlrd.XL_CELL_TEXT, xlrd.XL_CELL_NUMBER) else str(cell)
