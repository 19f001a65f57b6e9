"""Vectors of many photographs on disk, in shards, so that a killed computation goes on.

A folder holds `manifest.json`, which says what the vectors were made with, and a file of numbers
for each thousand photographs, written in one step when it is complete.
"""

import hashlib
import importlib.metadata
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glpi_jax import __version__
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_bytes, write_json

PHOTOGRAPHS_PER_SHARD = 1000
FORMAT = 1
_MANIFEST = "manifest.json"
_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "pillow")


class FeatureShard(NamedTuple):
    """What is known of some photographs.

    Attributes:
        vectors: (photographs, dimension) float32; zeros for an unreadable one.
        sizes: (photographs, 2) int32, height and width in the file; zeros for an unreadable one.
        errors: why a photograph could not be read, empty where it could.
    """

    vectors: np.ndarray
    sizes: np.ndarray
    errors: list[str]


@dataclass
class _Growing:
    shard: FeatureShard
    missing: int


class FeatureStore:
    """Vectors of a list of photographs in a folder, complete shards only.

    Attributes:
        folder: where they are.
        photographs: the files, in order.
        shards: the rows of each shard.
        earlier_errors: (file of vectors, message) of each photograph that an earlier call could not
            read.
    """

    def __init__(
        self,
        folder: Path,
        photographs: Sequence[Path],
        *,
        dimension: int,
        settings: Mapping[str, Any],
    ) -> None:
        """Begin a folder, or go on with one.

        Args:
            folder: made if missing, its parents too.
            photographs: the files, told apart by their names and sizes in bytes.
            dimension: values of a vector.
            settings: what else the vectors depend on, fit for JSON; recorded, and compared.

        Raises:
            GlpiError: the folder holds something else, or vectors of other settings or photographs.
        """
        self.folder = folder
        self.photographs = photographs
        self._dimension = dimension
        self.shards = [
            range(start, min(start + PHOTOGRAPHS_PER_SHARD, len(photographs)))
            for start in range(0, len(photographs), PHOTOGRAPHS_PER_SHARD)
        ]
        self._growing: dict[int, _Growing] = {}
        self._digests = [list_digest(photographs[r.start : r.stop]) for r in self.shards]
        self._check_manifest({"format": FORMAT, "dimension": dimension, **settings})
        self.earlier_errors: list[tuple[Path, str]] = []
        self._check_shards()

    def unfinished(self) -> list[int]:
        """The photographs whose shards are not there yet, by number, in order."""
        return [
            row
            for shard, rows in enumerate(self.shards)
            if not self._path(shard).exists()
            for row in rows
        ]

    def put(self, rows: Sequence[int], vectors: np.ndarray, sizes: Sequence[Sequence[int]]) -> None:
        """Take vectors (rows, dimension); a shard that they complete is written."""
        for row, vector, size in zip(rows, vectors, sizes, strict=True):
            shard, place = divmod(row, PHOTOGRAPHS_PER_SHARD)
            growing = self._of(shard)
            growing.shard.vectors[place] = vector
            growing.shard.sizes[place] = size
            self._count(shard, growing)

    def put_error(self, row: int, message: str) -> None:
        """Record that a photograph could not be read, and why."""
        shard, place = divmod(row, PHOTOGRAPHS_PER_SHARD)
        growing = self._of(shard)
        growing.shard.errors[place] = message
        self._count(shard, growing)

    def read(self, shard: int) -> FeatureShard:
        """Read a complete shard.

        Raises:
            GlpiError: it is not there or damaged.
        """
        path = self._path(shard)
        rows = self.shards[shard]
        with _readable(path), np.load(path, allow_pickle=False) as file:
            found = FeatureShard(file["vectors"], file["sizes"], file["errors"].tolist())
        fits = (
            found.vectors.shape == (len(rows), self._dimension)
            and found.vectors.dtype == np.float32
            and found.sizes.shape == (len(rows), 2)
            and len(found.errors) == len(rows)
            and np.isfinite(found.vectors).all()
        )
        if not fits:
            raise GlpiError(f"{path}: damaged; delete it, and its photographs are computed again")
        return found

    def _path(self, shard: int) -> Path:
        return self.folder / f"vectors_{shard:05d}.npz"

    def _of(self, shard: int) -> _Growing:
        if shard not in self._growing:
            count = len(self.shards[shard])
            vectors = np.zeros((count, self._dimension), np.float32)
            empty = FeatureShard(vectors, np.zeros((count, 2), np.int32), [""] * count)
            self._growing[shard] = _Growing(empty, count)
        return self._growing[shard]

    def _count(self, shard: int, growing: _Growing) -> None:
        growing.missing -= 1
        if growing.missing:
            return
        vectors, sizes, errors = growing.shard
        content = io.BytesIO()
        np.savez(
            content,
            vectors=vectors,
            sizes=sizes,
            errors=np.array(errors, np.str_),
            photographs=np.array(self._digests[shard]),
        )
        write_bytes(self._path(shard), content.getvalue())
        del self._growing[shard]

    def _check_manifest(self, settings: dict[str, Any]) -> None:
        path = self.folder / _MANIFEST
        if not path.exists():
            if self.folder.exists() and any(self.folder.glob("[!.]*")):
                raise GlpiError(
                    f"{self.folder}: not empty, and no vectors of photographs: give another folder"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
            begun_with = {"glpi_jax": __version__} | versions
            write_json(path, {**settings, "begun_with": begun_with})
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise GlpiError(f"{path}: cannot be read ({error})") from error
        if not isinstance(found, dict):
            raise GlpiError(f"{path}: not a manifest of vectors")
        changed = [name for name, value in settings.items() if found.get(name) != value]
        if changed:
            differences = "; ".join(
                f"{name} {json.dumps(found.get(name))} there, {json.dumps(settings[name])} now"
                for name in changed
            )
            raise GlpiError(
                f"{self.folder}: holds vectors made otherwise ({differences}): give another folder,"
                " or delete this one"
            )

    def _check_shards(self) -> None:
        """No file may hold the vectors of photographs other than those listed; notes errors."""
        others = []
        present = sorted(self.folder.glob("vectors_*.npz"))
        expected = {self._path(i): digest for i, digest in enumerate(self._digests)}
        for path in present:
            with _readable(path), np.load(path, allow_pickle=False) as file:
                if str(file["photographs"]) != expected.get(path):
                    others.append(path.name)
                errors = file["errors"].tolist()
            self.earlier_errors += [(path, message) for message in errors if message]
        if others:
            raise GlpiError(
                f"{self.folder}: the list of photographs, or a file in it, has changed:"
                f" {len(others)} of {len(present)} files hold vectors of others, the first"
                f" {others[0]}: give another folder, or delete those files to compute them again"
            )


def list_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over names and sizes in bytes of files, in order; a missing file has size -1."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        digest.update(os.fsencode(path.name) + b"\0" + str(size).encode() + b"\n")
    return digest.hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what NumPy raises on a damaged file into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise GlpiError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); delete it, and its"
            " photographs are computed again"
        ) from error
