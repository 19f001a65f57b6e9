"""Databases on disk, read into one table: image, score, reference, distortion, level.

A reader is a function from the root folder to a `Database`; `READERS` names them.
"""

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np

from glpi_jax.errors import GlpiError
from glpi_jax.saqt.distortions import DISTORTIONS

ScoreName = Literal["MOS", "DMOS"]

_CSV_REQUIRED = ("image", "score")
_CSV_OPTIONAL = ("reference", "distortion", "level")
# Type 15 is in KADID-10k, but is not among the distortions that can be rendered here.
_KADID_TYPES = {15: "denoise"} | {number: item.name for number, item in DISTORTIONS.items()}
_KADID_NAME = re.compile(r"I\d\d_(\d\d)_(\d\d)\.png", re.IGNORECASE)


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
            them.
        distortions: name of the distortion, or None.
        levels: strength of the distortion, or None.
        score_name: what `scores` are called where they come from.
        higher_is_better: whether a higher score means a better image (KADID-10k's "dmos": yes).
        label_note: what the scores are, in plain words.

    Raises:
        GlpiError: columns of different lengths, no image, a repeated image, a score that is not
            finite, or a `reference_order` that is not the set of references.
    """

    name: str
    root: Path
    images: tuple[str, ...]
    scores: np.ndarray
    references: tuple[str, ...]
    reference_order: tuple[str, ...]
    distortions: tuple[str | None, ...]
    levels: tuple[int | None, ...]
    score_name: ScoreName
    higher_is_better: bool
    label_note: str

    def __post_init__(self) -> None:
        columns = (self.scores, self.references, self.distortions, self.levels)
        if any(len(column) != len(self.images) for column in columns):
            raise GlpiError(f"{self.name}: the columns have different lengths")
        if not self.images:
            raise GlpiError(f"{self.name}: the database has no image")
        if len(set(self.images)) != len(self.images):
            raise GlpiError(f"{self.name}: an image is listed twice")
        if self.scores.dtype != np.float64 or not np.isfinite(self.scores).all():
            raise GlpiError(f"{self.name}: scores must be finite float64 numbers")
        if sorted(self.reference_order) != sorted(set(self.references)):
            raise GlpiError(f"{self.name}: reference_order must list every reference once")

    def __len__(self) -> int:
        return len(self.images)

    def path(self, row: int) -> Path:
        """Where the image of a row lies on disk."""
        return self.root / self.images[row]


def load_database(kind: str, root: str | os.PathLike[str]) -> Database:
    """Read a database's labels and check that every labelled image is there (none is opened).

    Args:
        kind: a key of `READERS`.
        root: the database's folder, as distributed.

    Raises:
        GlpiError: unknown kind, missing folder, missing or malformed label file, a label without
            an image.
    """
    if kind not in READERS:
        raise GlpiError(f"unknown database kind {kind!r}: must be one of {', '.join(READERS)}")
    folder = Path(root)
    if not folder.is_dir():
        raise GlpiError(f"{folder}: no such folder; give the root folder of the {kind} database")
    return READERS[kind](folder)


def read_csv_database(root: Path) -> Database:
    """A folder with `labels.csv` and, if wanted, `database.json`.

    `labels.csv` has the columns image, score and, where known, reference, distortion, level; images
    are relative to the folder. Without a reference every image is its own reference.
    `database.json` may hold name, score_name ("MOS" or "DMOS"), higher_is_better, label_note.
    Without it: the folder's name, "MOS", higher is better. A DMOS must say its direction.
    """
    labels = root / "labels.csv"
    names: list[str] = []
    scores: list[float] = []
    references: list[str | None] = []
    distortions: list[str | None] = []
    levels: list[int | None] = []
    for line, row in _csv_rows(labels, required=_CSV_REQUIRED, optional=_CSV_OPTIONAL):
        names.append(_image_name(row["image"], labels, line))
        scores.append(_score(row["score"], labels, line))
        references.append(row.get("reference") or None)
        distortions.append(row.get("distortion") or None)
        levels.append(_level(row.get("level") or None, labels, line))
    images = _match_files(root, names, labels)
    contents = tuple(
        reference or image for reference, image in zip(references, images, strict=True)
    )
    description = _read_description(root / "database.json", default_name=root.resolve().name)
    return Database(
        name=description.name,
        root=root,
        images=images,
        scores=np.array(scores, np.float64),
        references=contents,
        # Sorted, not in row order: the same labels in another order give the same splits.
        reference_order=tuple(sorted(set(contents))),
        distortions=tuple(distortions),
        levels=tuple(levels),
        score_name=description.score_name,
        higher_is_better=description.higher_is_better,
        label_note=description.label_note,
    )


def read_kadid10k(root: Path) -> Database:
    """KADID-10k as distributed: `dmos.csv` (dist_img, ref_img, dmos, var) beside `images/`."""
    labels = root / "dmos.csv"
    names: list[str] = []
    scores: list[float] = []
    references: list[str] = []
    distortions: list[str | None] = []
    levels: list[int | None] = []
    for line, row in _csv_rows(labels, required=("dist_img", "ref_img", "dmos"), optional=("var",)):
        name = _image_name(row["dist_img"], labels, line)
        match = _KADID_NAME.fullmatch(name)
        if match is None or int(match[1]) not in _KADID_TYPES:
            raise GlpiError(
                f"{labels} line {line}: {name!r} is not a KADID-10k name (I01_01_01.png)"
            )
        names.append(f"images/{name}")
        scores.append(_score(row["dmos"], labels, line))
        references.append(PurePosixPath(row["ref_img"]).stem.upper())
        distortions.append(_KADID_TYPES[int(match[1])])
        levels.append(int(match[2]))
    return Database(
        name="kadid10k",
        root=root,
        images=_match_files(root, names, labels),
        scores=np.array(scores, np.float64),
        references=tuple(references),
        reference_order=tuple(sorted(set(references))),
        distortions=tuple(distortions),
        levels=tuple(levels),
        score_name="DMOS",
        higher_is_better=True,
        label_note="KADID-10k's mean human score (published as dmos; 1 to 5, higher is better)",
    )


READERS: dict[str, Callable[[Path], Database]] = {
    "csv": read_csv_database,
    "kadid10k": read_kadid10k,
}


@dataclass(frozen=True)
class _Description:
    name: str
    score_name: ScoreName
    higher_is_better: bool
    label_note: str


def _read_description(path: Path, *, default_name: str) -> _Description:
    if not path.exists():
        return _Description(default_name, "MOS", True, "mean opinion score from labels.csv")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(given, dict):
        raise GlpiError(f"{path}: must hold one JSON object")
    types = {"name": str, "score_name": str, "higher_is_better": bool, "label_note": str}
    for key, value in given.items():
        if key not in types:
            raise GlpiError(f"{path}: unknown key {key!r} (known: {', '.join(types)})")
        if not isinstance(value, types[key]):
            raise GlpiError(f"{path}: {key} must be a {types[key].__name__}, not {value!r}")
    score_name = given.get("score_name", "MOS")
    if score_name not in ("MOS", "DMOS"):
        raise GlpiError(f"{path}: score_name must be MOS or DMOS, not {score_name!r}")
    if score_name == "DMOS" and "higher_is_better" not in given:
        raise GlpiError(
            f"{path}: a DMOS is published in either direction; add higher_is_better (true or false)"
        )
    return _Description(
        name=given.get("name", default_name),
        score_name=cast(ScoreName, score_name),
        higher_is_better=given.get("higher_is_better", True),
        label_note=given.get("label_note", f"{score_name} from labels.csv"),
    )


def _csv_rows(
    path: Path, *, required: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, {column: stripped text}) of every row that is not blank."""
    if not path.is_file():
        raise GlpiError(f"{path}: the label file is missing")
    known = ", ".join([*required, *optional])
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [column.strip() for column in next(reader, [])]
            for column in required:
                if column not in header:
                    raise GlpiError(
                        f"{path}: column {column!r} is missing (known columns: {known})"
                    )
            for column in header:
                # A misspelt "reference" would otherwise let one content into two parts of a split.
                if column not in (*required, *optional) or header.count(column) > 1:
                    raise GlpiError(
                        f"{path}: unknown or repeated column {column!r} (known columns: {known})"
                    )
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise GlpiError(
                        f"{path} line {reader.line_num}: {len(cells)} values under"
                        f" {len(header)} columns"
                    )
                values = (cell.strip() for cell in cells)
                yield reader.line_num, dict(zip(header, values, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GlpiError(f"{path}: cannot be read as a CSV table in UTF-8 ({error})") from error


def _image_name(text: str, labels: Path, line: int) -> str:
    name = PurePosixPath(text.replace("\\", "/"))
    if not text or name.is_absolute() or ".." in name.parts:
        raise GlpiError(f"{labels} line {line}: {text!r} is not an image name inside the folder")
    return str(name)


def _score(text: str, labels: Path, line: int) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise GlpiError(f"{labels} line {line}: score {text!r} is not a finite number")
    return score


def _level(text: str | None, labels: Path, line: int) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise GlpiError(f"{labels} line {line}: level {text!r} is not a whole number")
    return int(text)


def _match_files(root: Path, names: Sequence[str], labels: Path) -> tuple[str, ...]:
    """The file that each name means, matched without regard to case where no exact one is there."""
    if not names:
        raise GlpiError(f"{labels}: no labels under the header")
    files: set[str] = set()
    for parent, _, members in os.walk(root, followlinks=True):
        folder = Path(parent).relative_to(root)
        files.update((folder / member).as_posix() for member in members)
    by_folded_name: dict[str, list[str]] = {}
    for file in files:
        by_folded_name.setdefault(file.casefold(), []).append(file)

    matched: list[str] = []
    missing: list[str] = []
    for name in names:
        candidates = [name] if name in files else by_folded_name.get(name.casefold(), [])
        if len(candidates) > 1:
            raise GlpiError(f"{labels}: {name!r} could mean {' or '.join(sorted(candidates))}")
        if candidates:
            matched.append(candidates[0])
        else:
            missing.append(name)
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise GlpiError(
            f"{labels}: {len(missing)} of {len(names)} labelled images are not below {root}:"
            f" {shown}"
        )
    seen: set[str] = set()
    for file in matched:
        if file in seen:
            raise GlpiError(f"{labels}: {file!r} is labelled twice; keep one row for it")
        seen.add(file)
    return tuple(matched)
