"""Items of a database: what splits divide and split files name.

An item is a row, or a photograph with all its rows in a database of photographs.
"""

from collections.abc import Sequence

from glpi_jax.data.sources import Database, PhotographRows
from glpi_jax.data.sources.photographs import VARIANTS


def item_names(database: Database) -> Sequence[str]:
    """Return the name of each item."""
    return database.images if database.photographs is None else database.photographs.files


def item_references(database: Database) -> Sequence[str]:
    """Return the reference of each item."""
    return database.references if database.photographs is None else database.photographs.files


def items_of(rows: Sequence[int]) -> Sequence[int]:
    """Return the items of a part's rows."""
    return rows.photographs if isinstance(rows, PhotographRows) else rows


def rows_of(database: Database, items: Sequence[int]) -> Sequence[int]:
    """Return the rows of items, in their order."""
    return tuple(items) if database.photographs is None else PhotographRows(items)


def first_row(database: Database, item: int) -> int:
    """Return the first row of an item; it reads the same file as the item's others."""
    return item if database.photographs is None else VARIANTS * item
