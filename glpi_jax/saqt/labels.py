"""SAQT's label transfer: each distorted photograph takes the score of its matched KADID reference.

Source: arXiv 2408.03885 (semantic-aligned quality transfer), and the authors' label
files, whose columns and image names are kept. KADID-10k's "dmos" is higher for better images, and
so are the transferred labels.
"""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import staging_folder, write_text
from glpi_jax.data.sources.saqt_labels import TABLE_NAME, table_name
from glpi_jax.distortions import KADID_TYPES, LEVELS

SOURCES_PER_FILE = 1000

Scale = Literal["0-9", "raw"]
Columns = Literal["old", "new"]

_GRID = (len(KADID_TYPES), len(LEVELS))  # shape of the scores of one reference
OLD_MATCHES = ("kadis", "kadid-10k", "sim_value")
_NEW_MATCHES = ("source_image", "target_reference", "cosine_similarity", "rank")
_LABELS: dict[Columns, str] = {
    "old": "dist_img,label",
    "new": "distorted_image,quality_score,source_image,matched_reference,distortion_type,"
    "distortion_level",
}


@dataclass(frozen=True)
class Match:
    """A photograph and its most similar KADID references, best first.

    Attributes:
        source: file name of the photograph.
        references: file names of the references, such as I07.png.
        similarities: their cosine similarities.
    """

    source: str
    references: tuple[str, ...]
    similarities: tuple[float, ...]


def read_matches(path: str | os.PathLike[str]) -> list[Match]:
    """Read a similarity table, with the official old or new columns, in the order of its sources.

    Old: kadis, kadid-10k, sim_value, one row a source. New: source_image, target_reference,
    cosine_similarity, rank among others; a source may have several rows, of ranks 1, 2, ….

    Raises:
        GlpiError: missing file or columns, a similarity that is not a number in [-1, 1], a source
            listed twice, or ranks that do not count from 1.
    """
    table = Path(path)
    header, rows = _read_csv(table)
    known = (OLD_MATCHES, _NEW_MATCHES)
    columns = next((names for names in known if set(names) <= set(header)), None)
    if columns is None:
        raise GlpiError(
            f"{table}: not a similarity table: its columns must hold {', '.join(OLD_MATCHES)} or"
            f" {', '.join(_NEW_MATCHES)}"
        )
    found: dict[str, Match] = {}
    for where, row in rows:
        source, reference, similarity = (row[name] for name in columns[:3])
        rank = row["rank"] if columns is _NEW_MATCHES else "1"
        if not rank.isdecimal():
            raise GlpiError(f"{where}: rank {rank!r} is not a whole number")
        match = found.get(source, Match(source, (), ()))
        if int(rank) != len(match.references) + 1:
            raise GlpiError(f"{where}: {source!r} is listed twice, or its ranks skip one")
        try:
            value = float(similarity)
        except ValueError:
            value = math.nan
        if not -1.001 <= value <= 1.001:  # float32 dot products of unit vectors pass 1 by a little
            raise GlpiError(f"{where}: similarity {similarity!r} is not a number in [-1, 1]")
        found[source] = Match(source, (*match.references, reference), (*match.similarities, value))
    if not found:
        raise GlpiError(f"{table}: no matches under the header")
    return list(found.values())


def read_reference_scores(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read KADID-10k's `dmos.csv` into {reference file name: (25 types, 5 levels) float64}.

    Raises:
        GlpiError: missing file or columns, a name that is not KADID-10k's or not of the row's
            reference, a score that is not a number, or a reference without all 125 scores or with
            two for one image.
    """
    table = Path(path)
    header, rows = _read_csv(table)
    for column in ("dist_img", "ref_img", "dmos"):
        if column not in header:
            raise GlpiError(f"{table}: column {column!r} is missing; give KADID-10k's dmos.csv")
    scores: dict[str, np.ndarray] = {}
    for where, row in rows:
        image, reference = row["dist_img"], row["ref_img"]
        try:
            name, kind_text, level_text = PurePosixPath(image).stem.split("_")
            kind, level, score = int(kind_text), int(level_text), float(row["dmos"])
        except ValueError:
            name, kind, level, score = "", 0, 0, math.nan
        if not (kind in KADID_TYPES and level in LEVELS and math.isfinite(score)):
            raise GlpiError(
                f"{where}: {image!r} with {row['dmos']!r} is no KADID-10k label"
                " (I01_01_01.png, number)"
            )
        if name.upper() != PurePosixPath(reference).stem.upper():
            raise GlpiError(f"{where}: {image!r} does not belong to {reference!r}")
        grid = scores.setdefault(reference, np.full(_GRID, np.nan))
        if not math.isnan(grid[kind - 1, level - 1]):
            raise GlpiError(
                f"{where}: a second score of {reference} for type {kind} level {level}; delete one"
                " of the two lines"
            )
        grid[kind - 1, level - 1] = score
    for reference, grid in scores.items():
        missing = np.argwhere(np.isnan(grid))
        if len(missing):
            kind, level = missing[0] + 1
            raise GlpiError(
                f"{table}: {reference} lacks {len(missing)} of {grid.size} scores, the first"
                f" for type {kind} level {level}"
            )
    return scores


def transfer(
    matches: Sequence[Match],
    scores: dict[str, np.ndarray],
    *,
    scale: Scale,
    references: int,
) -> np.ndarray:
    """Give every photograph its labels by type and level.

    Args:
        matches: from `read_matches`.
        scores: from `read_reference_scores`.
        scale: "0-9" is the official one, min-max over all of `scores` to [0, 9]; "raw" keeps
            KADID-10k's 1 to 5.
        references: how many of a match's references count; 1 is official. More are averaged with
            their similarities as weights.

    Returns:
        (sources, 25, 5) float64.

    Raises:
        GlpiError: a reference without scores, fewer references than asked, or similarities that
            cannot be weights (not positive).
    """
    if references < 1:
        raise GlpiError(f"{references} references: must be at least 1")
    order = {reference: row for row, reference in enumerate(scores)}
    table = np.stack(list(scores.values()))  # (references, 25, 5)
    if scale == "0-9":
        lowest, highest = table.min(), table.max()
        if highest == lowest:
            raise GlpiError("all KADID-10k scores are equal: they cannot be scaled to [0, 9]")
        table = (table - lowest) / (highest - lowest) * 9
    chosen = np.empty((len(matches), references), np.intp)
    weights = np.empty((len(matches), references))
    for row, match in enumerate(matches):
        if len(match.references) < references:
            raise GlpiError(
                f"{match.source}: {len(match.references)} matched references, {references} asked"
            )
        for rank, reference in enumerate(match.references[:references]):
            if reference not in order:
                raise GlpiError(f"{match.source}: no scores of its reference {reference!r}")
            chosen[row, rank] = order[reference]
        weights[row] = match.similarities[:references]
    if references == 1:
        return table[chosen[:, 0]]
    if not (weights > 0).all():
        source = matches[int(np.argwhere(weights <= 0)[0, 0])].source
        raise GlpiError(f"{source}: a similarity that is not positive cannot be a weight")
    weights /= weights.sum(axis=1, keepdims=True)
    labels = np.zeros((len(matches), *_GRID))
    for rank in range(references):
        labels += weights[:, rank, None, None] * table[chosen[:, rank]]
    return labels


def photograph_prefix(source: str, row: int) -> str:
    """How the names of a photograph's images begin; {prefix}_{type:02d}_{level:02d}.bmp follows.

    The folder before the stem counts thousands of sources from 1; `row` counts sources from 0.
    """
    return f"{row // SOURCES_PER_FILE + 1:03d}/{PurePosixPath(source).stem}"


def write_label_tables(
    matches: Sequence[Match],
    labels: np.ndarray,
    folder: str | os.PathLike[str],
    *,
    columns: Columns,
) -> list[Path]:
    """Write the labels as the official tables, 1,000 sources a file: labels_001.csv, ….

    Args:
        matches: the sources.
        labels: from `transfer`, (sources, 25, 5).
        folder: made if missing. Tables of an earlier call are replaced, all of them; until that is
            done, `list_label_tables` refuses the folder.
        columns: "old" (dist_img, label) or "new" (distorted_image, quality_score, source_image,
            matched_reference, distortion_type, distortion_level).

    Returns:
        the files, in order.

    Raises:
        GlpiError: a file name that the tables cannot hold, other tables in the folder, or a file
            that cannot be written.
    """
    target = Path(folder)
    names: list[str] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        earlier = {table.name for table in target.glob("*.csv")}
        for name in sorted(earlier):
            if not TABLE_NAME.fullmatch(name):
                raise GlpiError(
                    f"{target}: holds another table ({name}), which would be read as labels too;"
                    " give a folder of its own"
                )
        with staging_folder(target / "labels") as staging:
            for text in _tables(matches, labels, columns):
                names.append(table_name(len(names) + 1))
                write_text(staging / names[-1], text)
            # The first table goes first and comes last: what is without it is not read.
            for name in sorted(earlier - {*names[1:]}):
                os.unlink(target / name)
            for name in reversed(names):
                os.replace(staging / name, target / name)
    except OSError as error:
        raise GlpiError(f"{target}: the tables cannot be written ({error.strerror})") from error
    return [target / name for name in names]


def _tables(matches: Sequence[Match], labels: np.ndarray, columns: Columns) -> Iterator[str]:
    """The texts of the tables, in order."""
    kinds = [(kind, level) for kind in KADID_TYPES for level in LEVELS]
    variants = [f"{kind:02d}_{level:02d}.bmp" for kind, level in kinds]
    ends = [f",{kind},{level}" if columns == "new" else "" for kind, level in kinds]
    for start in range(0, len(matches), SOURCES_PER_FILE):
        lines = [_LABELS[columns]]
        for row in range(start, min(start + SOURCES_PER_FILE, len(matches))):
            match = matches[row]
            prefix = _cell(photograph_prefix(match.source, row) + "_")
            middle = ""
            if columns == "new":
                middle = f",{_cell(match.source)},{_cell(match.references[0])}"
            lines += [
                f"{prefix}{variant},{score!r}{middle}{end}"
                for variant, score, end in zip(
                    variants, labels[row].ravel().tolist(), ends, strict=True
                )
            ]
        yield "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    if any(character in text for character in ',"\r\n'):
        raise GlpiError(f"{text!r}: a comma, quote or line break in a file name; rename the file")
    return text


def _read_csv(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The header, and the rows with the file and line that they are from."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or [])
            rows = [(f"{path} line {reader.line_num}", row) for row in reader]
    except FileNotFoundError:
        raise GlpiError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GlpiError(f"{path}: cannot be read as a CSV table ({error})") from error
    for where, row in rows:
        if None in row or None in row.values():
            raise GlpiError(f"{where}: not as many values as columns")
    return header, rows
