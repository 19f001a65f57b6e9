"""From the rows of a label file to the columns of a Database, bad rows refused or skipped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.database import OFFICIAL, Database, Facts, PartName, ScoreName
from glpi_jax.data.sources.file_index import AmbiguousName, FileIndex
from glpi_jax.data.sources.table_files import BadRow, Row, Table


@dataclass(frozen=True)
class DatabaseFolder:
    """A database to be read.

    Attributes:
        kind: a key of `READERS`.
        root: its folder, which exists.
        files: the files below it.
        layout: what the folder should hold, for messages.
        labels: the label file that was given; the root for kinds that know its name.
        skip_bad: leave rows out that cannot be used, instead of refusing the database.
    """

    kind: str
    root: Path
    files: FileIndex
    layout: str
    labels: Path
    skip_bad: bool

    def label_file(self, *names: str) -> Path:
        """The first of these files that is there, else a GlpiError."""
        for name in names:
            if (found := self.optional_file(name)) is not None:
                return found
        others = f" (nor is {' or '.join(names[1:])} there)" if names[1:] else ""
        raise GlpiError(
            f"{self.root / names[0]}: the label file is missing{others}; a {self.kind} database"
            f" holds {self.layout}"
        )

    def optional_file(self, name: str) -> Path | None:
        """A file's path, None where there is no such file."""
        found = self.files.find(name)
        return None if found is None else self.root / found


@dataclass(frozen=True)
class DatabaseKind:
    """How one kind of database is read.

    Attributes:
        read: the reader itself.
        layout: what the folder holds, for messages and lists.
        takes_labels: whether the label file is given by its path; otherwise its name is known.
        labels_in_folder: whether a folder of label files may be given instead.
    """

    read: Callable[[DatabaseFolder], Database]
    layout: str
    takes_labels: bool = False
    labels_in_folder: bool = False


class Label(NamedTuple):
    """What one row of a label file says.

    Attributes:
        candidates: where the image may lie relative to the root, most usual place first.
        score: as published, finite.
        reference: id of the content, None where the image stands alone.
        distortion: name of the distortion, or None.
        level: strength of the distortion, or None.
        sd: the spread of opinions, NaN if not given.
    """

    candidates: tuple[str, ...]
    score: float
    reference: str | None = None
    distortion: str | None = None
    level: int | None = None
    sd: float = float("nan")


@dataclass
class Labels:
    """The rows of a label file that can be used, in its order.

    Attributes:
        source: where they are from.
        rows: name on disk of a row's image, relative to the root → the row.
        labels: what each row says.
        left_out: why other rows are not here, one line each.
    """

    source: DatabaseFolder
    rows: dict[str, Row] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def database(
        self,
        *,
        label_note: str,
        name: str | None = None,
        score_name: ScoreName = "MOS",
        higher_is_better: bool = True,
        reference_order: Sequence[str] | None = None,
        facts: Facts | None = None,
        published_splits: Mapping[str, tuple[PartName | None, ...]] | None = None,
    ) -> Database:
        """The table of these rows; see `Database` for the arguments.

        Unless given, the name is the kind's, and references are sorted, not in row order: the same
        labels in another order give the same splits.
        """
        sds = np.array([label.sd for label in self.labels], np.float64)
        references = tuple(
            image if label.reference is None else label.reference
            for image, label in zip(self.rows, self.labels, strict=True)
        )
        return Database(
            name=self.source.kind if name is None else name,
            root=self.source.root,
            images=tuple(self.rows),
            scores=np.array([label.score for label in self.labels], np.float64),
            references=references,
            reference_order=tuple(reference_order or sorted(set(references))),
            distortions=tuple(label.distortion for label in self.labels),
            levels=tuple(label.level for label in self.labels),
            score_name=score_name,
            higher_is_better=higher_is_better,
            label_note=label_note,
            facts=facts,
            label_sd=None if np.isnan(sds).all() else sds,
            published_splits=published_splits or {},
            left_out=tuple(self.left_out),
        )

    def standing_alone(
        self, *, label_note: str, facts: Facts, official_parts: Sequence[PartName] | None = None
    ) -> Database:
        """The database of images that are each their own reference, with an MOS as score.

        `official_parts` has the part of every row in the published split, if there is one.
        """
        return self.database(
            label_note=label_note,
            reference_order=tuple(self.rows),
            facts=facts,
            published_splits=None if official_parts is None else {OFFICIAL: tuple(official_parts)},
        )


def collect(source: DatabaseFolder, table: Table, parse: Callable[[Row], Label]) -> Labels:
    """Parse every row of a table and find its image.

    Of several rows for one image the first is kept when bad rows are skipped. For a row that cannot
    be used `parse` raises a `BadRow`.

    Raises:
        BadRow: a row that cannot be used, unless bad rows are skipped.
        GlpiError: no row, or no image of any row is there.
    """
    if not table.rows:
        raise GlpiError(f"{table.path}: the file holds no labels")
    kept = Labels(source)
    missing: list[tuple[Row, str]] = []
    for row in table.rows:
        try:
            label = parse(row)
            image = _find_image(source, row, label.candidates)
            if image is None:
                missing.append((row, label.candidates[0]))
                kept.left_out.append(str(row.bad(f"the image {label.candidates[0]!r} is missing")))
                continue
            if image in kept.rows:
                raise row.bad(
                    f"{image!r} is labelled twice (first in {table.unit}"
                    f" {kept.rows[image].number}); keep one row for it"
                )
        except BadRow as error:
            if not source.skip_bad:
                raise
            kept.left_out.append(str(error))
            continue
        kept.rows[image] = row
        kept.labels.append(label)
    if missing and not (source.skip_bad and kept.rows):
        shown = ", ".join(name for _, name in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise missing[0][0].bad(
            f"{len(missing)} of {len(table.rows)} labelled images are not below {source.root}:"
            f" {shown}; a {source.kind} database holds {source.layout}"
        )
    if not kept.rows:
        raise GlpiError(f"{table.path}: no row can be used ({kept.left_out[0]})")
    return kept


def _find_image(source: DatabaseFolder, row: Row, candidates: Sequence[str]) -> str | None:
    try:
        return next(filter(None, map(source.files.find, candidates)), None)
    except AmbiguousName as error:
        raise row.bad(str(error)) from None
