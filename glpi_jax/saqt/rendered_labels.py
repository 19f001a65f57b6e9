"""Label files beside rendered images, with which a training reads them as a database."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from glpi_jax.core.files import write_json, write_text
from glpi_jax.data.sources import Database
from glpi_jax.data.sources.prepared import PREPARED_FILE, Shard, prepared_table
from glpi_jax.saqt.render_photograph import RenderSettings, sha256
from glpi_jax.saqt.rendered import LABELS, RECORDS, read_records, records_path

CSV_FILES = ("labels.csv", "database.json")
LABEL_FILES = (*CSV_FILES, PREPARED_FILE)
"""What may lie beside the folders."""


def write_labels(
    out: Path, labelled: Database, folders: Sequence[str], settings: RenderSettings
) -> str:
    """Write the labels of all images of finished folders, which `labelled` holds (kind "saqt").

    A photograph is the reference of its images.

    Returns:
        the kind of database that `out` is from now on: "csv", or "prepared" if it is packed.
    """
    photographs = labelled.photographs
    assert photographs is not None
    number_of = {prefix: number for number, prefix in enumerate(photographs.prefixes)}
    rows: list[int] = []  # in the order in which the images are packed
    shards: list[Shard] = []
    for folder in folders:
        found = read_records(records_path(out, folder))
        rows += [
            photographs.row(number_of[prefix], number, level)
            for prefix in found.records
            for number in settings.types
            for level in settings.levels
        ]
        if found.packed is not None:
            shards.append(Shard(found.packed.packed, found.packed.records, found.packed.bytes))
    references = [labelled.references[row] for row in rows]
    database = replace(
        labelled,
        root=out,
        images=[
            labelled.images[row].removesuffix(photographs.suffix) + settings.suffix for row in rows
        ],
        scores=labelled.scores[np.array(rows, np.intp)],
        references=references,
        reference_order=tuple(sorted(set(references))),
        distortions=[labelled.distortions[row] for row in rows],
        levels=[labelled.levels[row] for row in rows],
        left_out=(),
        photographs=None,
    )
    if settings.arrayrecord:
        write_json(out / PREPARED_FILE, prepared_table(database, shards))
    else:
        _write_csv(out, database)
    files = (PREPARED_FILE,) if settings.arrayrecord else CSV_FILES
    write_json(out / RECORDS / LABELS, {name: sha256((out / name).read_bytes()) for name in files})
    return "prepared" if settings.arrayrecord else "csv"


def _write_csv(out: Path, database: Database) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "score", "reference", "distortion", "level"])
    scores = database.scores.tolist()
    columns = (database.images, scores, database.references, database.distortions, database.levels)
    writer.writerows(zip(*columns, strict=True))
    write_text(out / "labels.csv", text.getvalue())
    described = ("name", "score_name", "higher_is_better", "label_note")
    write_json(out / "database.json", {key: getattr(database, key) for key in described})
