"""Label files beside rendered images, with which a training reads them as a database."""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glpi_jax.core.files import write_json, write_text
from glpi_jax.data.sources import Database
from glpi_jax.data.sources.prepared import PREPARED_FILE, Shard, prepared_table
from glpi_jax.distortions import find_distortion
from glpi_jax.saqt.render_photograph import RenderSettings
from glpi_jax.saqt.rendered import (
    LABELS,
    RECORDS,
    Packed,
    read_records,
    records_path,
    variant_name,
)

CSV_FILES = ("labels.csv", "database.json")
LABEL_FILES = (*CSV_FILES, PREPARED_FILE)
"""What may lie beside the folders."""


def write_labels(
    out: Path, labelled: Database, folders: Sequence[str], settings: RenderSettings
) -> str:
    """Write the labels of all rendered images; a photograph is the reference of its images.

    Args:
        out: the rendered folder, finished.
        labelled: the label tables, as a database of kind "saqt".
        folders: its folders, in order.
        settings: of the images.

    Returns:
        the kind of database that `out` is from now on: "csv", or "prepared" if it is packed.
    """
    packed: list[Packed] = []
    rows: list[int] = []
    for row_of_folder in _rows(out, labelled, folders, settings, packed):
        rows += row_of_folder
    database = _database(out, labelled, rows, settings)
    if settings.arrayrecord:
        shards = [Shard(file.packed, file.records, file.bytes) for file in packed]
        write_json(out / PREPARED_FILE, prepared_table(database, shards))
        files: tuple[str, ...] = (PREPARED_FILE,)
    else:
        _write_csv(out, database)
        files = CSV_FILES
    hashes = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in files}
    write_json(out / RECORDS / LABELS, hashes)
    return "prepared" if settings.arrayrecord else "csv"


def _rows(
    out: Path,
    labelled: Database,
    folders: Sequence[str],
    settings: RenderSettings,
    packed: list[Packed],
) -> Iterator[list[int]]:
    """Yield the rows of each folder's images in the order in which they are packed."""
    assert labelled.photographs is not None
    number_of = {prefix: number for number, prefix in enumerate(labelled.photographs.prefixes)}
    for folder in folders:
        found = read_records(records_path(out, folder))
        packed += [found.packed] if found.packed else []
        yield [
            labelled.photographs.row(number_of[prefix], kind, level)
            for prefix in sorted(found.records)
            for kind in settings.types
            for level in settings.levels
        ]


def _database(
    out: Path, labelled: Database, rows: Sequence[int], settings: RenderSettings
) -> Database:
    photographs = labelled.photographs
    assert photographs is not None
    variants = [photographs.variant(row) for row in rows]
    references = [photographs.files[variant.photograph] for variant in variants]
    return Database(
        name=labelled.name,
        root=out,
        images=[
            variant_name(
                photographs.prefixes[variant.photograph],
                variant.distortion,
                variant.level,
                settings.suffix,
            )
            for variant in variants
        ],
        scores=labelled.scores[np.array(rows, np.intp)],
        references=references,
        reference_order=tuple(sorted(set(references))),
        distortions=[find_distortion(variant.distortion).name for variant in variants],
        levels=[variant.level for variant in variants],
        score_name=labelled.score_name,
        higher_is_better=labelled.higher_is_better,
        label_note=labelled.label_note,
    )


def _write_csv(out: Path, database: Database) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "score", "reference", "distortion", "level"])
    writer.writerows(
        zip(
            database.images,
            database.scores.tolist(),
            database.references,
            database.distortions,
            database.levels,
            strict=True,
        )
    )
    write_text(out / "labels.csv", text.getvalue())
    description = {
        "name": database.name,
        "score_name": database.score_name,
        "higher_is_better": database.higher_is_better,
        "label_note": database.label_note,
    }
    write_json(out / "database.json", description)
