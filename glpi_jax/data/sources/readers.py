"""The kinds of databases, by name; a module of this package describes its own in `KINDS`."""

import os
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import authentic, generic, prepared, saqt_labels, synthetic
from glpi_jax.data.sources.collect import DatabaseFolder, DatabaseKind
from glpi_jax.data.sources.database import Database
from glpi_jax.data.sources.file_index import FileIndex

StrPath = str | os.PathLike[str]

READERS: dict[str, DatabaseKind] = {
    **generic.KINDS,
    **synthetic.KINDS,
    **authentic.KINDS,
    **saqt_labels.KINDS,
    **prepared.KINDS,
}
"""How each kind is read. Another file of databases takes one line here."""


def load_database(
    kind: str, root: StrPath, labels: StrPath | None = None, *, skip_bad: bool = False
) -> Database:
    """Read a database's labels and check that every labelled image is there (none is opened).

    Args:
        kind: a key of `READERS`.
        root: the database's folder, as distributed; for pyiqa, liqe and saqt, the folder that the
            names in the label file are relative to.
        labels: the label file of pyiqa and liqe, the label table of saqt or a folder of them; no
            other kind takes any.
        skip_bad: leave out rows that cannot be used (no image, labelled twice, a score that is no
            finite number, …) and list them in `Database.left_out`.

    Raises:
        GlpiError: unknown kind, missing folder, missing or malformed label file, and, unless they
            are skipped, the first row that cannot be used.
    """
    source = open_source(kind, root, labels, skip_bad=skip_bad)
    return READERS[kind].read(source)


def open_source(
    kind: str, root: StrPath, labels: StrPath | None, *, skip_bad: bool
) -> DatabaseFolder:
    """Check the arguments of `load_database` and bundle them for a reader."""
    if kind not in READERS:
        raise GlpiError(f"unknown database kind {kind!r}: must be one of {', '.join(READERS)}")
    reader, folder = READERS[kind], Path(root)
    if not folder.is_dir():
        raise GlpiError(f"{folder}: no such folder; give the root folder of the {kind} database")
    given = folder if labels is None else Path(labels)
    if labels is None and reader.takes_labels:
        raise GlpiError(f"a {kind} database needs the path of its label file as labels")
    if labels is not None and not reader.takes_labels:
        raise GlpiError(
            f"{labels}: a {kind} database takes no label file, it has its own: {reader.layout}"
        )
    if not given.is_file() and not (given.is_dir() and (labels is None or reader.labels_in_folder)):
        raise GlpiError(f"{labels}: the label file is missing")
    return DatabaseFolder(kind, folder, FileIndex(folder), reader.layout, given, skip_bad)
