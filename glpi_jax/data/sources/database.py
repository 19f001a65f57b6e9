"""A labelled image database as one table: image, score, reference, distortion, level."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import check_file, read_encoded
from glpi_jax.data.sources.photographs import Photographs

ScoreName = Literal["MOS", "DMOS"]
PartName = Literal["train", "validation", "test"]

OFFICIAL = "official"
"""Key in `Database.published_splits` of the split that the database's authors published."""


class EncodedImages(Protocol):
    """Reads the images of a prepared database; threads may share it."""

    def __call__(self, row: int) -> bytes:
        """Return the encoded image of a row."""

    def size(self, row: int) -> int:
        """Return the size in bytes of a row's encoded image."""


@dataclass(frozen=True)
class Facts:
    """What was published about a database; a whole copy of it agrees.

    Attributes:
        images: number of scored images.
        references: number of contents; of images where every image stands alone.
        score_range: lowest and highest score, rounded as published.
    """

    images: int
    references: int
    score_range: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Database:
    """The labelled images of one database; row i of every column belongs to image i.

    Attributes:
        name: the database's name in tables and file names.
        root: the folder that `images` are relative to.
        images: file names relative to the root, with "/", unique.
        scores: (n,) float64, finite, as published (see `label_note`).
        references: an id of the content that each image shows; the image's own name where every
            image stands alone.
        reference_order: the distinct references in the order in which the official splits number
            them; the same order only if nothing is `left_out`.
        distortions: name of the distortion, or None.
        levels: strength of the distortion, or None.
        score_name: what `scores` are called where they come from.
        higher_is_better: whether a higher score means a better image (KADID-10k's "dmos": yes).
        label_note: what the scores are, in plain words.
        facts: what was published about it; None for databases of one's own.
        label_sd: (n,) float64, the spread of opinions as the label file gives it, NaN where it
            gives none; None without such a column. Used for nothing.
        published_splits: name of a split → the part of each row, None where it has none.
        left_out: why rows of the label file are not here, one line each; empty unless bad rows
            were asked to be skipped.
        records: reads the encoded image of a row of a prepared database; None where every image is
            a file.
        photographs: what the images are distorted from when they are read; None where every image
            exists. The columns of such a database are computed.

    Raises:
        GlpiError: columns of different lengths, no image, a repeated image, a score that is not
            finite, or a `reference_order` that is not the set of references.
    """

    name: str
    root: Path
    images: Sequence[str]
    scores: np.ndarray
    references: Sequence[str]
    reference_order: tuple[str, ...]
    distortions: Sequence[str | None]
    levels: Sequence[int | None]
    score_name: ScoreName
    higher_is_better: bool
    label_note: str
    facts: Facts | None = None
    label_sd: np.ndarray | None = None
    published_splits: Mapping[str, tuple[PartName | None, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    records: EncodedImages | None = None
    photographs: Photographs | None = None

    def __post_init__(self) -> None:
        columns: list[Sized] = [self.scores, self.references, self.distortions, self.levels]
        columns += [] if self.label_sd is None else [self.label_sd]
        columns += self.published_splits.values()
        if any(len(column) != len(self.images) for column in columns):
            raise GlpiError(f"{self.name}: the columns have different lengths")
        if not self.images:
            raise GlpiError(f"{self.name}: the database has no image")
        if self.scores.dtype != np.float64 or not np.isfinite(self.scores).all():
            raise GlpiError(f"{self.name}: scores must be finite float64 numbers")
        references: Sequence[str] = self.references
        if self.photographs is not None:  # has seen to its names itself; columns are long
            references = self.photographs.files
        elif len(set(self.images)) != len(self.images):
            raise GlpiError(f"{self.name}: an image is listed twice")
        if sorted(self.reference_order) != sorted(set(references)):
            raise GlpiError(f"{self.name}: reference_order must list every reference once")

    def __len__(self) -> int:
        return len(self.images)

    def path(self, row: int) -> Path:
        """Where the image of a row, or the photograph that it is made from, lies on disk.

        In a prepared database a name for messages.
        """
        if self.photographs is not None:
            return self.root / self.photographs.reference(row)
        return self.root / self.images[row]

    def encoded(self, row: int) -> bytes:
        """The content of a row's image file, or of its photograph's.

        Raises:
            ImageError: it cannot be read.
        """
        return read_encoded(self.path(row)) if self.records is None else self.records(row)

    def encoded_size(self, row: int) -> int:
        """Return the size in bytes of what `encoded` returns, without reading it where possible.

        Raises:
            ImageError: there is no such file, or its record cannot be read.
        """
        return check_file(self.path(row)) if self.records is None else self.records.size(row)
