"""Rendered images in ArrayRecord files, a folder of official names in each.

A record is a serialised tf.train.Example with the byte features `name` and `image` (the image file
as it was), as in a prepared database, whose reader reads it (`data.sources.prepared`). Names and
images are all there is, so that no protobuf library is needed.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.pools import Stopped
from glpi_jax.data.sources.prepared import example_features
from glpi_jax.saqt.rendered import MAKE_ROOM, Packed

# One record a chunk, for random access; images hold no air to compress.
_OPTIONS = "group_size:1,uncompressed"
_LENGTH_DELIMITED = 2  # wire type, https://protobuf.dev/programming-guides/encoding/


def pack(path: Path, root: Path, names: Iterable[str], stop: threading.Event) -> Packed:
    """Write image files into one ArrayRecord file, which gets its name when it is whole.

    Args:
        path: the file to make or replace.
        root: what `names` are relative to.
        names: of the image files, in order.
        stop: set when the file is no longer wanted; then `Stopped` is raised.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        writer = ArrayRecordWriter(str(temporary), _OPTIONS)
        for name in names:
            if stop.is_set():
                raise Stopped
            writer.write(_encode_example(name, (root / name).read_bytes()))
            count += 1
        writer.close()
        # The writer does not tell of every failure; the end of the file does.
        if count_records(temporary) != count:
            raise RuntimeError("it came out short")
        packed = Packed(path.name, count, temporary.stat().st_size)
        os.replace(temporary, path)
    except (OSError, RuntimeError, ValueError) as error:  # array_record raises the latter two
        cause = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise GlpiError(f"{path}: cannot be written ({cause}); {MAKE_ROOM}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return packed


def count_records(path: Path) -> int:
    """The number of records of a file; a RuntimeError if it is no whole ArrayRecord file."""
    with _opened(path) as reader:
        return int(reader.num_records())


def unpack(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the image files in a file.

    Raises:
        RuntimeError: not a whole ArrayRecord file, or a damaged record.
        ValueError: a record of something else.
    """
    with _opened(path) as reader:
        for number in range(reader.num_records()):
            features = example_features(reader.read([number])[0])
            yield features["name"].decode(), features["image"]


def _opened(path: Path) -> closing[ArrayRecordReader]:
    return closing(ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0"))


def _encode_example(name: str, image: bytes) -> bytes:
    """A serialised tf.train.Example with the byte features `image` and `name`."""
    entries = b"".join(
        _field(1, _field(1, key) + _field(2, _field(1, _field(1, value))))
        for key, value in ((b"image", image), (b"name", name.encode()))
    )
    return _field(1, entries)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | _LENGTH_DELIMITED]) + length + content
