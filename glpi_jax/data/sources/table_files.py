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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openpyxl
import scipy.io
import xlrd

from glpi_jax.core.errors import GlpiError

if TYPE_CHECKING:
    import _csv

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
        """The cell as a finite number, of at most `LARGEST`.

        Raises:
            BadRow: it is none.
        """
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
        """The cell as a whole number of at least 0, which is an int64.

        Raises:
            BadRow: it is none.
        """
        text = self.text(column)
        if not text.isdecimal():
            raise self.bad(f"{column} {text!r} is not a whole number")
        if len(text) > _MOST_DIGITS:
            raise self.bad(f"{column} {text!r} has more than {_MOST_DIGITS} digits")
        return int(text)

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
        """Check that the required columns are there, once each.

        Args:
            required: columns that must be there.
            optional: the only others that may be; None allows any.

        Raises:
            GlpiError: a column is missing, repeated or not allowed.
        """
        known = (*required, *(optional or ()))
        expected = f"known columns: {', '.join(known)}" if optional is not None else ""
        for column in required:
            if column not in self.index:
                found = f"columns found: {', '.join(filter(None, self.columns)) or 'none'}"
                raise GlpiError(
                    f"{self.path}: column {column!r} is missing"
                    f" ({'; '.join(filter(None, (expected, found)))})"
                )
        for column in self.columns:
            refused = optional is not None and column not in known
            if refused or (column in known and self.columns.count(column) > 1):
                ending = f" ({expected})" if expected else ""
                raise GlpiError(f"{self.path}: unknown or repeated column {column!r}{ending}")


@contextmanager
def reading(
    path: Path,
    what: str,
    errors: type[Exception] | tuple[type[Exception], ...] = (OSError, UnicodeError, csv.Error),
) -> Iterator[None]:
    """Turn these errors into a GlpiError that a file cannot be read as what it should be."""
    try:
        yield
    except errors as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise GlpiError(f"{path}: cannot be read as {what} ({cause})") from error


def read_csv(
    path: Path, required: Sequence[str] = (), optional: Sequence[str] | None = None
) -> Table:
    """A table with a header line, separated by commas, or by tabs if the header holds any.

    Raises:
        GlpiError: not readable as such a table in UTF-8, or see `Table.check_columns`.
    """
    with (
        reading(path, "a CSV table in UTF-8"),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):
        header = file.readline()
        file.seek(0)
        lines = csv.reader(file, strict=True, delimiter="\t" if "\t" in header else ",")
        columns = tuple(column.strip() for column in next(lines, []))
        table = Table(path, "line", columns, numbered_rows(lines))
    table.check_columns(required, optional)
    return table


def numbered_rows(lines: "_csv.Reader") -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of the rows that a reader still has, blank ones left out."""
    for cells in lines:
        if any(map(str.strip, cells)):
            yield lines.line_num, cells


def read_lines(path: Path, *layouts: Sequence[str], separator: str | None = None) -> Table:
    """A table without a header.

    Args:
        path: the file.
        layouts: column names; the first line decides by its number of values which ones apply.
            Empty values behind the last column do not count.
        separator: between values; None takes any white space.

    Raises:
        GlpiError: not text in UTF-8, or a first line of another number of values.
    """
    with reading(path, "text in UTF-8"):
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


def read_sheet(path: Path, required: Sequence[str], *, sheet: str | None = None) -> Table:
    """A sheet of an Excel workbook whose header is the first row that holds all required columns.

    Rows that are empty in all of these columns are padding and left out.

    Args:
        path: the workbook, .xlsx or .xls whatever its name says.
        required: columns of the header.
        sheet: name of the sheet; the first one unless given.

    Raises:
        GlpiError: not a workbook, no such sheet or header.
    """
    rows = iter(_sheet_rows(path, sheet))
    for _, cells in rows:
        header = ["" if cell is None else str(cell).strip() for cell in cells]
        if set(required) <= set(header):
            break
    else:
        where = f"sheet {sheet!r}" if sheet else "the first sheet"
        raise GlpiError(f"{path}: no row of {where} holds the columns {', '.join(required)}")
    table = Table(path, "row", header, _padded(rows, len(header)))
    table.check_columns(required)
    table.rows = [row for row in table.rows if any(map(row.text, required))]
    return table


def read_sheet_by_place(path: Path, columns: Sequence[str]) -> Table:
    """The first columns of a workbook's first sheet, by place and not by name.

    The first row is taken for a header unless its first cell is a whole number.

    Raises:
        GlpiError: not a workbook.
    """
    table = Table(path, "row", columns, _padded(_sheet_rows(path, None), len(columns)))
    if table.rows and not table.rows[0].text(columns[0]).isdecimal():
        del table.rows[0]
    table.rows = [row for row in table.rows if any(map(row.text, columns))]
    return table


def _padded(rows: NumberedRows, width: int) -> NumberedRows:
    return ((number, [*cells, *[None] * width][:width]) for number, cells in rows)


def read_mat(columns: Mapping[str, tuple[Path, str]]) -> Table:
    """Vectors of numbers or cell arrays of strings from MATLAB files, one as each column.

    Args:
        columns: column → file and variable; messages about a row name the first file.

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
    with reading(path, "a MATLAB file", Exception):
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
    with reading(path, "an Excel workbook", Exception):
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
    if cell.ctype in (xlrd.XL_CELL_TEXT, xlrd.XL_CELL_NUMBER):
        return cell.value
    return str(cell)  # as "error:42": a date, truth value or error is no number
