"""SAQT's photographs and label tables, without a single distorted image on disk.

The tables are the authors' (arXiv 2408.03885) or those of `glpi saqt labels`. Only the image's name
and its label are read, and in the new columns the name of the photograph; 6.25 million rows take
seconds and a few hundred megabytes.
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.collect import DatabaseFolder, DatabaseKind
from glpi_jax.data.sources.database import Database
from glpi_jax.data.sources.file_index import AmbiguousName, PhotographIndex
from glpi_jax.data.sources.photographs import VARIANTS, Column, Photographs
from glpi_jax.data.sources.table_files import LARGEST, open_csv
from glpi_jax.distortions import KADID_TYPES, LEVELS

_OLD = ("dist_img", "label")
_NEW = ("distorted_image", "quality_score", "source_image")
TABLE_NAME = re.compile(r"labels_(?!000)(\d{3}|[1-9]\d{3,})\.csv")
_CHUNK = 125_000  # rows held as text at a time


def read_saqt(source: DatabaseFolder) -> Database:
    """A folder of photographs, and their labels: a table, or a folder of tables.

    Images are named {folder}/{photograph's stem}_{type:02d}_{level:02d}.bmp, or with another suffix
    throughout. Under the old columns (dist_img, label) a photograph is found by its stem, under the
    new ones (distorted_image, quality_score, source_image, …) by source_image, in subfolders too.
    Each photograph needs all 125 labels.

    Raises:
        GlpiError: not such a table, a label that is no finite number, a name of another form; and,
            unless they are to be skipped, photographs that are missing or lack labels.
    """
    tables = _Tables()
    for path in list_label_tables(source.labels) if source.labels.is_dir() else [source.labels]:
        tables.read(path)
    if not tables.prefixes:
        raise GlpiError(f"{source.labels}: the tables hold no labels")
    scores, bad = tables.scores()
    files = _find_photographs(source, tables, bad)
    if bad and not source.skip_bad:
        raise GlpiError(
            f"{source.labels}: {len(bad)} of {len(tables.prefixes)} photographs cannot be used:"
            f" {'; '.join(itertools.islice(bad.values(), 3))}{'; …' if len(bad) > 3 else ''}."
            " Mend the folder or the table, or leave them out with --skip-bad"
        )
    kept = [number for number in range(len(files)) if number not in bad]
    if not kept:
        raise GlpiError(f"{source.labels}: no photograph can be used ({next(iter(bad.values()))})")
    prefixes = list(tables.prefixes)
    photographs = Photographs(
        files=tuple(files[number] for number in kept),
        prefixes=tuple(prefixes[number] for number in kept),
        suffix=tables.suffix,
    )
    rows = photographs.rows
    return Database(
        name="saqt",
        root=source.root,
        images=Column(rows, photographs.image),
        scores=scores[kept].ravel(),
        references=Column(rows, photographs.reference),
        # Sorted, not in row order: the same labels in another order give the same splits.
        reference_order=tuple(sorted(photographs.files)),
        distortions=Column(rows, photographs.distortion),
        levels=Column(rows, photographs.level),
        score_name="DMOS",
        higher_is_better=True,
        label_note=(
            "KADID-10k's score of the matched reference under the same distortion type and level"
            f" (SAQT), from {source.labels.name}; higher is better. Nobody rated these images"
        ),
        left_out=tuple(bad[number] for number in sorted(bad)),
        photographs=photographs,
    )


class _Tables:
    """What the tables say, read in pieces.

    Attributes:
        prefixes: beginning of a photograph's image names → its number, counted as they come.
        named: number → the photograph's file name, where the table has the new columns.
        suffix: of all image names.
    """

    def __init__(self) -> None:
        self.prefixes: dict[str, int] = {}
        self.named: dict[int, str] = {}
        self.suffix = ""
        self._variants: dict[str, int] = {}
        self._rows: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def read(self, path: Path) -> None:
        """Add a table."""
        with open_csv(path) as (header, rows):
            columns = _columns(path, header)
            while chunk := list(itertools.islice(rows, _CHUNK)):
                for line, row in chunk:
                    if len(row) != len(header):
                        raise GlpiError(f"{path} line {line}: not as many values as columns")
                self._add(path, chunk, columns)

    def _add(self, path: Path, chunk: list[tuple[int, list[str]]], columns: Sequence[int]) -> None:
        """Add some rows with the numbers of their lines; columns are image, score, photograph."""
        images = [row[columns[0]] for _, row in chunk]
        if not self._variants:
            self.suffix = PurePosixPath(images[0]).suffix
            self._variants = {
                f"_{kind:02d}_{level:02d}{self.suffix}": variant
                for variant, (kind, level) in enumerate(itertools.product(KADID_TYPES, LEVELS))
            }
        tail = len("_00_00") + len(self.suffix)
        variants = [self._variants.get(image[-tail:], -1) for image in images]
        if -1 in variants:
            place = variants.index(-1)
            raise GlpiError(
                f"{path} line {chunk[place][0]}: {images[place]!r} is not named as in"
                f" 001/photograph_25_05{self.suffix} (type 01 to 25, level 01 to 05)"
            )
        prefixes = self.prefixes
        numbers = [prefixes.setdefault(image[:-tail], len(prefixes)) for image in images]
        self._rows.append(VARIANTS * np.array(numbers) + np.array(variants))
        values = np.array([_number(row[columns[1]]) for _, row in chunk])
        usable = np.abs(values) <= LARGEST  # not so is NaN
        if not usable.all():
            line, row = chunk[int(np.argmin(usable))]
            raise GlpiError(
                f"{path} line {line}: label {row[columns[1]]!r} is no finite number, or too large"
                " for float32"
            )
        self._values.append(values)
        if len(columns) == 3:
            for number, name in dict.fromkeys(
                zip(numbers, (row[columns[2]] for _, row in chunk), strict=True)
            ):
                if self.named.setdefault(number, name) != name:
                    raise GlpiError(
                        f"{path}: images of {self.named[number]!r} and {name!r} have the same names"
                    )

    def scores(self) -> tuple[np.ndarray, dict[int, str]]:
        """The labels (photographs, 125) float64, and what is wrong by photograph's number."""
        rows, names = np.concatenate(self._rows), list(self.prefixes)
        counts = np.bincount(rows, minlength=len(names) * VARIANTS).reshape(-1, VARIANTS)
        scores = np.full(counts.shape, np.nan)
        scores.flat[rows] = np.concatenate(self._values)
        bad = {}
        for number in np.flatnonzero((counts != 1).any(axis=1)).tolist():
            variant = int(np.flatnonzero(counts[number] != 1)[0])
            _, kind, level = Photographs.variant(variant)
            what = "several labels" if counts[number, variant] else "no label"
            bad[number] = f"{names[number]} has {what} for type {kind} level {level}"
        return scores, bad


def _columns(path: Path, header: Sequence[str]) -> list[int]:
    for names in (_NEW, _OLD):
        if set(names) <= set(header):
            return [header.index(name) for name in names]
    raise GlpiError(
        f"{path}: not a SAQT label table: its columns must hold {', '.join(_OLD)} or"
        f" {', '.join(_NEW)}"
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _find_photographs(source: DatabaseFolder, tables: _Tables, bad: dict[int, str]) -> list[str]:
    """Each photograph's file name on disk, "" for those that are added to the bad ones."""
    index = PhotographIndex(source.files)
    files: list[str] = []
    number_of: dict[str, int] = {}
    for prefix, number in tables.prefixes.items():
        name, found = tables.named.get(number), None
        try:
            if name is not None:
                found = index.find(name)
            else:
                stem = PurePosixPath(prefix).name
                name, found = f"{stem}.*", index.find_stem(stem)
        except AmbiguousName as error:
            bad[number] = str(error)
        else:
            if found is None:
                bad[number] = f"the photograph {name} is not in {source.root}"
            elif number_of.setdefault(found, number) != number:
                bad[number] = f"{found} is labelled under two names"
        files.append(found or "")
    return files


def list_label_tables(folder: Path) -> list[Path]:
    """The tables of a folder, sorted: all of its CSV files.

    Raises:
        GlpiError: there is none, or `write_label_tables` was killed while it replaced them.
    """
    tables = sorted(folder.glob("*.csv"))
    if not tables:
        raise GlpiError(f"{folder}: no table in this folder (looked for *.csv)")
    numbered = [table.name for table in tables if TABLE_NAME.fullmatch(table.name)]
    if numbered and numbered[0] != table_name(1):
        raise GlpiError(
            f"{folder}: {table_name(1)} is missing beside {numbered[0]}, as after an interrupted"
            " glpi saqt labels; give that command again, or name a single table"
        )
    return tables


def table_name(number: int) -> str:
    """Name of a table of `glpi saqt labels`, numbered from 1."""
    return f"labels_{number:03d}.csv"


KINDS = {
    "saqt": DatabaseKind(
        read_saqt,
        "the photographs, which are distorted as they are read",
        takes_labels=True,
        labels_in_folder=True,
    )
}
