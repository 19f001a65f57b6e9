"""Databases of one's own, and label files of other projects: csv, pyiqa, liqe."""

import re
from pathlib import Path
from typing import Any

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import read_json_object
from glpi_jax.data.sources.collect import DatabaseFolder, DatabaseKind, Label, collect
from glpi_jax.data.sources.database import OFFICIAL, Database, PartName, ScoreName
from glpi_jax.data.sources.table_files import Row, read_csv, read_lines

_PYIQA_PARTS: dict[str, PartName | None] = {
    "train": "train",
    "val": "validation",
    "test": "test",
    "": None,
}
_PYIQA_SPLIT_COLUMN = re.compile(r".+_split\d*")


def read_csv_database(source: DatabaseFolder) -> Database:
    """A folder with `labels.csv` and, if wanted, `database.json`.

    `labels.csv` has the columns image, score and, where known, reference, distortion, level; images
    are relative to the folder. Without a reference every image is its own reference.
    `database.json` may hold name, score_name ("MOS" or "DMOS"), higher_is_better, label_note.
    Without it: the folder's name, "MOS", higher is better. A DMOS must say its direction.
    """
    # Others are refused: a misspelt "reference" would let one content into two parts of a split.
    optional = ("reference", "distortion", "level")
    table = read_csv(source.label_file("labels.csv"), ("image", "score"), optional)

    def parse(row: Row) -> Label:
        return Label(
            (row.image_name("image"),),
            row.number_of("score"),
            reference=row.text("reference") or None,
            distortion=row.text("distortion") or None,
            level=row.whole_number_of("level") if row.text("level") else None,
        )

    labels = collect(source, table, parse)
    name, path = source.root.resolve().name, source.root / "database.json"
    return labels.database(**_description(path, name, "MOS", "labels.csv", directed=True))


def read_pyiqa(source: DatabaseFolder) -> Database:
    """A meta table of pyiqa (chaofengc/IQA-PyTorch), `meta_info_KonIQ10kDataset.csv` and its like.

    Columns img_name, or ref_name and dist_name; mos or dmos; std, if there is one. Columns such as
    `official_split` and `ratio802_seed123_split01` (train, val, test) become published splits, the
    first one under the name of the official split.

    The headings do not tell the direction: pyiqa has LIVE's DMOS under "mos", and KADID-10k's
    "dmos" rises with quality. So a table of distorted references, and any with "dmos", needs a JSON
    file of the same name beside it (`meta_info_CSIQDataset.json`) that holds higher_is_better; it
    may hold name, score_name and label_note too.
    """
    table = read_csv(source.labels)
    image_columns = ("dist_name", "ref_name") if "dist_name" in table.index else ("img_name",)
    score_column = "dmos" if "dmos" in table.index else "mos"
    has_references = "ref_name" in table.index
    split_columns = [column for column in table.columns if _PYIQA_SPLIT_COLUMN.fullmatch(column)]
    table.check_columns((*image_columns, score_column, *split_columns))

    def parse(row: Row) -> Label:
        for column in split_columns:
            row.choice(column, _PYIQA_PARTS)
        return Label(
            (row.image_name(image_columns[0]),),
            row.number_of(score_column),
            reference=row.image_name("ref_name") if has_references else None,
            sd=row.optional_number_of("std"),
        )

    labels = collect(source, table, parse)
    description = _description(
        table.path.with_suffix(".json"),
        table.path.stem,
        "DMOS" if score_column == "dmos" else "MOS",
        table.path.name,
        directed=not has_references and score_column == "mos",
    )
    return labels.database(
        **description,
        published_splits={
            OFFICIAL if column == "official_split" else column: tuple(
                row.choice(column, _PYIQA_PARTS) for row in labels.rows.values()
            )
            for column in split_columns
        },
    )


def read_liqe(source: DatabaseFolder) -> Database:
    """A list of LIQE (zwx8981/LIQE), tab-separated: name, score, std; or name, score, distortion, …

    The scores stay as they are in the list. LIQE has turned them so that higher is better: LIVE is
    stored as 111.77 − DMOS, CSIQ as 1 − DMOS. Nothing in a list says of which database it is, so
    nothing is undone; for the published labels read the database itself. Nor does it name
    references: each image stands for itself, and a new split of a list of LIVE, CSIQ or KADID-10k
    would show one content in two parts.
    """
    # As first published, and with distortion and scenes ("_clip").
    layouts = ("name score std", "name score distortion scene1 scene2 scene3")
    table = read_lines(source.labels, *map(str.split, layouts), separator="\t")

    def parse(row: Row) -> Label:
        return Label(
            (row.image_name("name"),),
            row.number_of("score"),
            distortion=row.text("distortion") or None,
            sd=row.optional_number_of("std"),
        )

    return collect(source, table, parse).database(
        name=table.path.stem,
        label_note=(
            f"score from LIQE's list {table.path.name}, where higher is better: LIVE is stored as"
            " 111.77 - DMOS and CSIQ as 1 - DMOS; the list does not tell which images share their"
            " content"
        ),
    )


def _description(
    path: Path, name: str, score_name: ScoreName, labels: str, *, directed: bool
) -> dict[str, Any]:
    """The arguments of `Labels.database` that a JSON file gives, over these defaults.

    Where it does not say so, a MOS rises with quality if `directed`; else it must say.
    """
    given = read_json_object(path)
    types = {"name": str, "score_name": str, "higher_is_better": bool, "label_note": str}
    for key, value in given.items():
        if key not in types:
            raise GlpiError(f"{path}: unknown key {key!r} (known: {', '.join(types)})")
        if not isinstance(value, types[key]):
            raise GlpiError(f"{path}: {key} must be a {types[key].__name__}, not {value!r}")
    score = given.get("score_name", score_name)
    if score not in ("MOS", "DMOS"):
        raise GlpiError(f"{path}: score_name must be MOS or DMOS, not {score!r}")
    if "higher_is_better" not in given and not (directed and score == "MOS"):
        raise GlpiError(
            f"{path}: a {score} like this is published in either direction; say which, as in"
            ' {"higher_is_better": false}'
        )
    return {"name": name, "score_name": score, "label_note": f"{score} from {labels}", **given}


KINDS = {
    "csv": DatabaseKind(
        read_csv_database, "labels.csv (image, score, …) and the images named in it"
    ),
    "pyiqa": DatabaseKind(read_pyiqa, "the images named in the meta table", takes_labels=True),
    "liqe": DatabaseKind(read_liqe, "the images named in the list", takes_labels=True),
}
