"""Databases of photographs, whose images are made by distorting them when they are asked for.

SAQT's 50,000 photographs give 6.25 million images: columns of such a database are computed, and
rows stand in blocks, one block a photograph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import KADID_TYPES, LEVELS, find_distortion

VARIANTS = len(KADID_TYPES) * len(LEVELS)
"""Images that a photograph gives: one for each type and level that KADID-10k has scores of."""

T = TypeVar("T")

_NAMES = tuple(find_distortion(number).name for number in KADID_TYPES)


class Variant(NamedTuple):
    """What a row's image is made from: a photograph's number, KADID's type 1–25 and level 1–5."""

    photograph: int
    distortion: int
    level: int


@dataclass(frozen=True)
class Photographs:
    """The photographs of a database and the names of the images that they give.

    Row 125 · p + 5 · (type − 1) + level − 1 is photograph p under that type and level.

    Attributes:
        files: their names relative to the database's folder, with "/", unique.
        prefixes: how the names of their images begin, such as 001/lake, unique.
        suffix: how those names end, such as .bmp.

    Raises:
        GlpiError: a photograph or a prefix that is there twice.
    """

    files: tuple[str, ...]
    prefixes: tuple[str, ...]
    suffix: str

    def __post_init__(self) -> None:
        for names in (self.files, self.prefixes):
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise GlpiError(f"{twice}: this photograph is listed twice")

    @property
    def rows(self) -> int:
        """The number of images."""
        return VARIANTS * len(self.files)

    @staticmethod
    def variant(row: int) -> Variant:
        """What the image of a row is made from."""
        photograph, variant = divmod(int(row), VARIANTS)
        kind, level = divmod(variant, len(LEVELS))
        return Variant(photograph, kind + 1, level + 1)

    @staticmethod
    def row(photograph: int, distortion: int, level: int) -> int:
        """The row of a photograph under a type (1–25) and level (1–5); the inverse of `variant`."""
        return VARIANTS * photograph + len(LEVELS) * (distortion - 1) + level - 1

    def image(self, row: int) -> str:
        """Name of a row's image, as the label tables have it."""
        photograph, kind, level = self.variant(row)
        return f"{self.prefixes[photograph]}_{kind:02d}_{level:02d}{self.suffix}"

    def reference(self, row: int) -> str:
        """The photograph of a row."""
        return self.files[self.variant(row).photograph]

    def distortion(self, row: int) -> str:
        """Name of a row's distortion."""
        return _NAMES[self.variant(row).distortion - 1]

    def level(self, row: int) -> int:
        """Level of a row's distortion."""
        return self.variant(row).level

    def file_name(self, photograph: int) -> str:
        """A photograph's name without its folders; the draws of random distortions follow it."""
        return PurePosixPath(self.files[photograph]).name


class Column(Sequence[T]):
    """A column whose cells are computed; with a function that can be pickled, so can it."""

    def __init__(self, length: int, cell: Callable[[int], T]) -> None:
        """Take the number of rows, and row → cell."""
        self._length = length
        self._cell = cell

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self._cell(one) for one in range(self._length)[row]]
        return self._cell(range(self._length)[row])


class PhotographRows(Column[int]):
    """The rows of some photographs, all 125 of each; takes the memory of the photographs' numbers.

    Attributes:
        photographs: their numbers, in order.
    """

    def __init__(self, photographs: Sequence[int]) -> None:
        """Take the photographs' numbers."""
        self.photographs = tuple(photographs)
        super().__init__(VARIANTS * len(self.photographs), partial(_row_of_part, self.photographs))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PhotographRows):
            return NotImplemented
        return self.photographs == other.photographs

    def __hash__(self) -> int:
        return hash(self.photographs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        starts = VARIANTS * np.array(self.photographs, np.intp)
        rows = (starts[:, None] + np.arange(VARIANTS)).ravel()
        return rows if dtype is None else rows.astype(dtype)


def _row_of_part(photographs: Sequence[int], place: int) -> int:
    number, variant = divmod(place, VARIANTS)
    return VARIANTS * photographs[number] + variant
