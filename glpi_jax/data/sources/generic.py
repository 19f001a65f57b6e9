"""Databases of one's own, and label files of other projects: csv, pyiqa, liqe."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.collect import (
    DatabaseFolder,
    DatabaseKind,
    Label,
    collect,
    optional_number,
    row_image_name,
)
from glpi_jax.data.sources.database import OFFICIAL, Database, PartName, ScoreName
from glpi_jax.data.sources.table_files import Row, read_csv, read_lines

_PYIQA_PARTS: dict[str, PartName] = {"train": "train", "val": "validation", "test": "test"}
_PYIQA_SPLIT_COLUMN = re.compile(r".+_split\d*")

# The lists as first published, and those with distortion and scenes ("_clip").
_LIQE_LAYOUTS = (
    ("name", "score", "std"),
    ("name", "score", "distortion", "scene1", "scene2", "scene3"),
)


def read_csv_database(source: DatabaseFolder) -> Database:
    """A folder with `labels.csv` and, if wanted, `database.json`.

    `labels.csv` has the columns image, score and, where known, reference, distortion, level; images
    are relative to the folder. Without a reference every image is its own reference.
    `database.json` may hold name, score_name ("MOS" or "DMOS"), higher_is_better, label_note.
    Without it: the folder's name, "MOS", higher is better. A DMOS must say its direction.
    """
    table = read_csv(source.label_file("labels.csv"))
    # A misspelt "reference" would let one content into two parts of a split.
    table.check_columns(("image", "score"), optional=("reference", "distortion", "level"))

    def parse(row: Row) -> Label:
        return Label(
            (row_image_name(row, "image"),),
            row.number_of("score"),
            reference=_optional_text(row, "reference"),
            distortion=_optional_text(row, "distortion"),
            level=row.whole_number_of("level") if _optional_text(row, "level") else None,
        )

    labels = collect(source, table, parse)
    description = _read_description(
        source.root / "database.json",
        name=source.root.resolve().name,
        score_name="MOS",
        higher_is_better=True,
        labels="labels.csv",
    )
    return labels.database(
        source,
        name=description.name,
        score_name=description.score_name,
        higher_is_better=description.higher_is_better,
        label_note=description.label_note,
        # Sorted, not in row order: the same labels in another order give the same splits.
        reference_order=sorted(set(labels.references)),
    )


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
    table = read_csv(_given_labels(source))
    image_column = "dist_name" if "dist_name" in table.index else "img_name"
    score_column = "dmos" if "dmos" in table.index else "mos"
    has_references = "ref_name" in table.index
    table.check_columns((image_column, score_column))
    if image_column == "dist_name":
        table.check_columns(("ref_name",))
    split_columns = [column for column in table.columns if _PYIQA_SPLIT_COLUMN.fullmatch(column)]
    table.check_columns(split_columns)

    def parse(row: Row) -> Label:
        for column in split_columns:
            _pyiqa_part(row, column)
        return Label(
            (row_image_name(row, image_column),),
            row.number_of(score_column),
            reference=row_image_name(row, "ref_name") if has_references else None,
            sd=optional_number(row, "std"),
        )

    labels = collect(source, table, parse)
    description = _read_description(
        table.path.with_suffix(".json"),
        name=table.path.stem,
        score_name="DMOS" if score_column == "dmos" else "MOS",
        higher_is_better=None if has_references or score_column == "dmos" else True,
        labels=table.path.name,
    )
    return labels.database(
        source,
        name=description.name,
        score_name=description.score_name,
        higher_is_better=description.higher_is_better,
        label_note=description.label_note,
        reference_order=sorted(set(labels.references)),
        published_splits={
            OFFICIAL if column == "official_split" else column: tuple(
                _pyiqa_part(row, column) for row in labels.rows
            )
            for column in split_columns
        },
    )


def _pyiqa_part(row: Row, column: str) -> PartName | None:
    text = row.text(column)
    if not text:
        return None
    if text not in _PYIQA_PARTS:
        raise row.bad(f"{column} {text!r} is none of {', '.join(_PYIQA_PARTS)}")
    return _PYIQA_PARTS[text]


def read_liqe(source: DatabaseFolder) -> Database:
    """A list of LIQE (zwx8981/LIQE), tab-separated: name, score, std; or name, score, distortion, …

    The scores stay as they are in the list. LIQE has turned them so that higher is better: LIVE is
    stored as 111.77 − DMOS, CSIQ as 1 − DMOS. Nothing in a list says of which database it is, so
    nothing is undone; for the published labels read the database itself. Nor does it name
    references: each image stands for itself, and a new split of a list of LIVE, CSIQ or KADID-10k
    would show one content in two parts.
    """
    table = read_lines(_given_labels(source), *_LIQE_LAYOUTS, separator="\t")

    def parse(row: Row) -> Label:
        return Label(
            (row_image_name(row, "name"),),
            row.number_of("score"),
            distortion=_optional_text(row, "distortion"),
            sd=optional_number(row, "std"),
        )

    labels = collect(source, table, parse)
    return labels.database(
        source,
        name=table.path.stem,
        score_name="MOS",
        higher_is_better=True,
        label_note=(
            f"score from LIQE's list {table.path.name}, where higher is better: LIVE is stored as"
            " 111.77 - DMOS and CSIQ as 1 - DMOS; the list does not tell which images share their"
            " content"
        ),
        reference_order=sorted(set(labels.references)),
    )


@dataclass(frozen=True)
class _Description:
    name: str
    score_name: ScoreName
    higher_is_better: bool
    label_note: str


def _read_description(
    path: Path, *, name: str, score_name: ScoreName, higher_is_better: bool | None, labels: str
) -> _Description:
    """What a JSON file says of a database, over these defaults.

    A direction of None must be in the file, and so must that of a DMOS; `labels` is the name of the
    label file, for the note.
    """
    given = _read_json_object(path)
    types = {"name": str, "score_name": str, "higher_is_better": bool, "label_note": str}
    for key, value in given.items():
        if key not in types:
            raise GlpiError(f"{path}: unknown key {key!r} (known: {', '.join(types)})")
        if not isinstance(value, types[key]):
            raise GlpiError(f"{path}: {key} must be a {types[key].__name__}, not {value!r}")
    if given.get("score_name", score_name) not in ("MOS", "DMOS"):
        raise GlpiError(f"{path}: score_name must be MOS or DMOS, not {given['score_name']!r}")
    score_name = cast(ScoreName, given.get("score_name", score_name))
    direction = given.get("higher_is_better", higher_is_better if score_name == "MOS" else None)
    if direction is None:
        raise GlpiError(
            f"{path}: a {score_name} like this is published in either direction; say which, as in"
            ' {"higher_is_better": false}'
        )
    return _Description(
        name=given.get("name", name),
        score_name=score_name,
        higher_is_better=direction,
        label_note=given.get("label_note", f"{score_name} from {labels}"),
    )


def _read_json_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(given, dict):
        raise GlpiError(f"{path}: must hold one JSON object")
    return given


def _given_labels(source: DatabaseFolder) -> Path:
    assert source.labels is not None  # `load_database` has seen to it
    return source.labels


def _optional_text(row: Row, column: str) -> str | None:
    return (row.text(column) or None) if column in row.table.index else None


KINDS = {
    "csv": DatabaseKind(
        read_csv_database, "labels.csv (image, score, …) and the images named in it"
    ),
    "pyiqa": DatabaseKind(read_pyiqa, "the images named in the meta table", takes_labels=True),
    "liqe": DatabaseKind(read_liqe, "the images named in the list", takes_labels=True),
}
