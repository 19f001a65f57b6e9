"""What a folder of rendered photographs holds, read and written: image names, manifest, records.

    manifest.json          settings, photographs and versions that made the images
    manifest/001.jsonl     a line for each finished photograph of folder 001, with hashes
    001/lake_03_04.png     photograph lake under type 3 at level 4
    001.array_record       the images of folder 001 in one file, instead of the folder itself

A line is written when all images of its photograph have their names, so that it vouches for them.
A process that is killed leaves at most hidden temporary files, and a last line that is cut short.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import NO_LOCKS, write_text

RECORDS, LOCK = "manifest", "lock"
LABELS = "labels.json"  # in RECORDS: hashes of the label files beside the images
MAKE_ROOM = "make room, and the same command resumes where it stopped"

_TOP_LEVEL = 0  # place in the lock file; a folder's is its number


@dataclass(frozen=True)
class SourcePhotograph:
    """A photograph to be distorted.

    Attributes:
        prefix: how the names of its images begin, {folder:03d}/{stem}; unique.
        path: the file. Random distortions are seeded by its name without folders.
    """

    prefix: str
    path: Path


@dataclass(frozen=True)
class Record:
    """A finished photograph: its file's name, size and hash, its pixels, and its images.

    `images` has "TT_LL" (type and level) → bytes and SHA-256 of the image file, in order.
    """

    prefix: str
    source: str
    source_bytes: int
    source_sha256: str
    width: int
    height: int
    images: Mapping[str, tuple[int, str]]

    def files(self, suffix: str) -> dict[str, tuple[int, str]]:
        """Image name → bytes and SHA-256."""
        return {f"{self.prefix}_{key}{suffix}": facts for key, facts in self.images.items()}


@dataclass(frozen=True)
class LeftOut:
    """A photograph that could not be used, and why."""

    prefix: str
    left_out: str


@dataclass(frozen=True)
class Packed:
    """The ArrayRecord file that holds the images of a folder instead of the folder itself."""

    packed: str
    records: int
    bytes: int


@dataclass
class FolderRecords:
    """The lines of one folder's file; `records` are finished photographs by prefix."""

    records: dict[str, Record] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    packed: Packed | None = None


def folder_of(prefix: str) -> str:
    """Name of the folder that a photograph's images go to."""
    return prefix.partition("/")[0]


def records_path(out: Path, folder: str) -> Path:
    """Where the lines of a folder are."""
    return out / RECORDS / f"{folder}.jsonl"


def read_records(path: Path) -> FolderRecords:
    """Read a folder's lines, sorted by prefix; a last one that was cut short is no line."""
    found = FolderRecords()
    try:
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            values = json.loads(line)
            if "packed" in values:
                found.packed = Packed(**values)
            elif "left_out" in values:
                found.left_out.append(LeftOut(**values))
            else:
                images = {key: (size, sha) for key, (size, sha) in values.pop("images").items()}
                found.records[values["prefix"]] = Record(**values, images=images)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise GlpiError(
            f"{path}: damaged ({error}); delete it: its photographs are rendered again"
        ) from error
    found.records = dict(sorted(found.records.items()))
    return found


def write_records(path: Path, found: FolderRecords) -> None:
    """Replace a folder's lines in one step."""
    lines: list[Record | LeftOut | Packed] = [*found.records.values(), *found.left_out]
    lines += [] if found.packed is None else [found.packed]
    write_text(path, "".join(map(_text, lines)))


def append_record(path: Path, record: Record) -> None:
    """Add a line; where the disk is full nothing of it is written, and a GlpiError raised."""
    content = _text(record).encode()
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise GlpiError(f"{path}: cannot be written ({error.strerror})") from error


def _text(line: Record | LeftOut | Packed) -> str:
    return json.dumps(asdict(line), separators=(",", ":")) + "\n"


def remove_temporaries(folder: Path, beginning: str = "") -> None:
    """Delete what killed processes left in a folder, of files whose names begin so."""
    for path in folder.glob(f".{beginning}*.tmp"):
        path.unlink(missing_ok=True)  # another process may have deleted it


def file_sizes(out: Path, folder: str = "") -> dict[str, int]:
    """Name relative to `out` → size of the entries of a folder in it; empty if there is none."""
    sizes = {}
    with suppress(FileNotFoundError), os.scandir(out / folder) as entries:
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            sizes[name] = 0  # of a link to nowhere; no image has it
            with suppress(OSError):
                sizes[name] = entry.stat().st_size
    return sizes


class Locks:
    """Keeps two runs from writing one folder; a lock ends with the process that holds it.

    Where the file system knows no locks, nothing is kept apart.
    """

    def __init__(self, out: Path) -> None:
        """Open the lock file, made with its folder if missing."""
        (out / RECORDS).mkdir(parents=True, exist_ok=True)
        self._out = out
        self._file = os.open(out / RECORDS / LOCK, os.O_RDWR | os.O_CREAT, 0o666)

    @contextmanager
    def top_level(self) -> Iterator[None]:
        """Wait for the files beside the folders."""
        self._lock(_TOP_LEVEL, fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._lock(_TOP_LEVEL, fcntl.LOCK_UN)

    def folder(self, folder: str) -> None:
        """Take a folder until the end; a GlpiError if another process has it."""
        try:
            self._lock(int(folder), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise GlpiError(
                f"{self._out}: another process is rendering folder {folder} at this moment; wait"
                " for it, or give each its own --shard"
            ) from None

    def close(self) -> None:
        """Give all of them back."""
        os.close(self._file)

    def _lock(self, place: int, how: int) -> None:
        try:
            fcntl.lockf(self._file, how, 1, place)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
