"""The prepared form of a database: its image files in ArrayRecord shards, its table in a JSON file.

`glpi_jax.data.prepare` writes it. The shards are a TFDS dataset, one serialised tf.train.Example an
image, that anyone may read with `tfds.builder_from_directory(FOLDER).as_data_source("images")`.
This reader does without tensorflow-datasets, which need not be installed where a model trains: the
table comes from the JSON file alone, since an Example holds float32 and no None, and the image is
taken out of its record by the protobuf wire format. All that lies on the way to it (Example →
Features → map entry → Feature → BytesList) is length-delimited.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import ImageError
from glpi_jax.data.sources.collect import DatabaseFolder, DatabaseKind
from glpi_jax.data.sources.database import Database, Facts

PREPARED_FILE = "glpi_database.json"
FORMAT = 1
# Keys of the table that are arguments of `Database`, and those of them that are columns.
_TEXTS = ("name", "score_name", "higher_is_better", "label_note")
_COLUMNS = ("images", "references", "reference_order", "distortions", "levels", "left_out")
_AGAIN = "copy or prepare the database again"
_LENGTH_DELIMITED = 2  # wire type, https://protobuf.dev/programming-guides/encoding/


class Shard(NamedTuple):
    """One ArrayRecord file: its name, and what it holds when it is whole."""

    file: str
    records: int
    bytes: int


def prepared_table(
    database: Database, shards: Sequence[Shard], sizes: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the content of `PREPARED_FILE`: all of a database but its root and its images.

    The sizes of the encoded images are in bytes; None leaves them to be read from the records.
    """
    facts, sds = database.facts, database.label_sd
    return {
        "format": FORMAT,
        **{key: getattr(database, key) for key in _TEXTS},
        "facts": facts and [facts.images, facts.references, facts.score_range],
        "shards": [shard._asdict() for shard in shards],
        "images": database.images,
        "image_bytes": None if sizes is None else list(sizes),
        "scores": database.scores.tolist(),
        "references": database.references,
        "reference_order": database.reference_order,
        "distortions": database.distortions,
        "levels": database.levels,
        # JSON has no NaN.
        "label_sd": None if sds is None else [None if sd != sd else sd for sd in sds.tolist()],
        "published_splits": dict(database.published_splits),
        "left_out": database.left_out,
    }


def read_prepared(source: DatabaseFolder) -> Database:
    """A folder that `glpi data prepare` wrote. No record is read yet.

    Raises:
        GlpiError: `PREPARED_FILE` is missing or damaged, or a shard is missing or cut short.
    """
    path = source.label_file(PREPARED_FILE)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise GlpiError(
                f"{path}: format {table['format']}, this version reads {FORMAT}; prepare the"
                " database again"
            )
        shards = [Shard(**shard) for shard in table["shards"]]
        columns: dict[str, Any] = {key: tuple(table[key]) for key in _COLUMNS}
        facts, sds = table["facts"], table["label_sd"]
        database = Database(
            **{key: table[key] for key in _TEXTS},
            **columns,
            root=source.root,
            scores=np.array(table["scores"], np.float64),
            facts=facts and Facts(facts[0], facts[1], tuple(facts[2])),
            label_sd=None if sds is None else np.array(sds, np.float64),
            published_splits={
                name: tuple(parts) for name, parts in table["published_splits"].items()
            },
            records=RecordReader(source.root, shards, columns["images"], table.get("image_bytes")),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        cause = f"no {error}" if isinstance(error, KeyError) else error
        raise GlpiError(f"{path}: not the table of a prepared database ({cause})") from error
    _check_shards(source.root, shards, len(database))
    return database


class RecordReader:
    """Reads the encoded image of any row; for threads at once, and pickles for worker processes."""

    def __init__(
        self,
        root: Path,
        shards: Sequence[Shard],
        images: tuple[str, ...],
        sizes: Sequence[int] | None,
    ) -> None:
        """Nothing is read yet. Earlier versions wrote no `sizes` (bytes of each image)."""
        if sizes is not None and len(sizes) != len(images):
            raise ValueError(f"{len(sizes)} sizes of {len(images)} images")
        # Takes most of a second, which the other kinds of databases need not wait for.
        import grain

        self._images = images
        self._sizes = sizes
        self._root = root
        self._source = grain.sources.ArrayRecordDataSource(
            [_Whole(str(root / shard.file), shard.records, shard.records) for shard in shards]
        )

    def __call__(self, row: int) -> bytes:
        """The image file of a row as it was; an ImageError if its record is damaged or wrong."""
        name = self._images[row]
        try:
            features = example_features(self._source[row])
            held, image = features["name"].decode(), features["image"]
        except Exception as error:  # array_record raises several kinds on damaged files
            cause = " ".join(str(error).split())
            raise ImageError(
                f"{self._root}: record {row} ({name}) cannot be read ({cause}); {_AGAIN}"
            ) from error
        if held != name:
            raise ImageError(
                f"{self._root}: record {row} is {held!r}, but {PREPARED_FILE} has {name!r} there;"
                f" {_AGAIN}"
            )
        return image

    def size(self, row: int) -> int:
        """Return the size in bytes of a row's image file; read the record if no table has it."""
        return len(self(row)) if self._sizes is None else self._sizes[row]


@dataclass(frozen=True)
class _Whole:
    """Tells the data source how many records a file has, which it would open the file for."""

    filename: str
    take: int
    examples_in_shard: int
    skip: int = 0


def example_features(example: bytes) -> dict[str, bytes]:
    """The features of a serialised tf.train.Example that are a single byte string."""
    found = {}
    [(_, features)] = _fields(memoryview(example))
    for _, entry in _fields(features):
        content = dict(_fields(entry))  # 1: the feature's name, 2: the feature
        [(kind, values)] = _fields(content[2])
        if kind == 1:  # a BytesList; the others are lists of floats and integers
            [(_, value)] = _fields(values)
            found[bytes(content[1]).decode()] = bytes(value)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields of a message that has length-delimited ones alone."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        length, place = _varint(message, place)
        if tag & 7 != _LENGTH_DELIMITED or place + length > len(message):
            raise ValueError("not a tf.train.Example")
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the place after it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place += 1
        shift += 7
        if byte < 0x80:
            return number, place


def _check_shards(root: Path, shards: Sequence[Shard], images: int) -> None:
    for shard in shards:
        path, cause = root / shard.file, ""
        if not path.is_file():
            cause = "this file is missing"
        elif path.stat().st_size != shard.bytes:
            cause = f"has {path.stat().st_size} of {shard.bytes} bytes"
        if cause:
            raise GlpiError(f"{path}: {cause}; {_AGAIN}")
    if sum(shard.records for shard in shards) != images:
        raise GlpiError(f"{root / PREPARED_FILE}: the shards do not hold {images} records")


KINDS = {
    "prepared": DatabaseKind(
        read_prepared,
        f"{PREPARED_FILE} and *.array_record files, as `glpi data prepare` wrote them",
    )
}
