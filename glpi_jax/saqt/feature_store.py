"""Vectors of many photographs on disk, in shards, so that a killed computation can resume.

A folder holds `manifest.json`, which says what the vectors were made with, and a file of numbers
for each thousand photographs, written in one step when it is complete.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glpi_jax import __version__
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import read_json_object, write_bytes, write_json

PHOTOGRAPHS_PER_SHARD = 1000
FORMAT = 1
_MANIFEST = "manifest.json"
_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "pillow")


class FeatureShard(NamedTuple):
    """What is known of some photographs, zeros for unreadable ones."""

    vectors: np.ndarray  # (photographs, dimension) float32
    sizes: np.ndarray  # (photographs, 2) int32, height and width in the file
    errors: list[str]  # why a photograph could not be read, empty where it could


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
        self, folder: Path, photographs: Sequence[Path], dimension: int, settings: dict[str, Any]
    ) -> None:
        """Begin a folder, made if missing, or go on with one.

        The name and the size in bytes identify a photograph. `settings`, fit for JSON, are
        recorded: the vectors depend on them too.

        Raises:
            GlpiError: the folder holds something else, or vectors of other settings or photographs.
        """
        self.folder, self.photographs, self._dimension = folder, photographs, dimension
        self.shards = [
            range(start, min(start + PHOTOGRAPHS_PER_SHARD, len(photographs)))
            for start in range(0, len(photographs), PHOTOGRAPHS_PER_SHARD)
        ]
        self._growing: dict[int, FeatureShard] = {}
        self._missing = [len(rows) for rows in self.shards]
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

    def put(
        self,
        row: int,
        vector: np.ndarray | float = 0,
        size: tuple[int, int] = (0, 0),
        error: str = "",
    ) -> None:
        """Take a photograph's vector and size, or its error; write the shard that it completes."""
        number, place = divmod(row, PHOTOGRAPHS_PER_SHARD)
        if number not in self._growing:
            count = len(self.shards[number])
            vectors = np.zeros((count, self._dimension), np.float32)
            sizes = np.zeros((count, 2), np.int32)
            self._growing[number] = FeatureShard(vectors, sizes, [""] * count)
        vectors, sizes, errors = self._growing[number]
        vectors[place], sizes[place], errors[place] = vector, size, error
        self._missing[number] -= 1
        if self._missing[number] == 0:
            content = io.BytesIO()
            np.savez(
                content,
                vectors=vectors,
                sizes=sizes,
                errors=np.array(errors, np.str_),
                photographs=np.array(self._digests[number]),
            )
            write_bytes(self._path(number), content.getvalue())
            del self._growing[number]

    def read(self, shard: int) -> FeatureShard:
        """Read a complete shard; a GlpiError if it is not there or damaged."""
        path = self._path(shard)
        with _readable(path), np.load(path, allow_pickle=False) as file:
            found = FeatureShard(file["vectors"], file["sizes"], file["errors"].tolist())
            if found.vectors.shape != (len(self.shards[shard]), self._dimension):
                raise ValueError(f"vectors of shape {found.vectors.shape}")
            if not np.isfinite(found.vectors).all():
                raise ValueError("vectors that are not finite")
        return found

    def _path(self, shard: int) -> Path:
        return self.folder / f"vectors_{shard:05d}.npz"

    def _check_manifest(self, settings: dict[str, Any]) -> None:
        path = self.folder / _MANIFEST
        if not path.exists():
            if self.folder.exists() and any(self.folder.glob("[!.]*")):
                raise GlpiError(
                    f"{self.folder}: not empty, and no vectors of photographs: give another folder"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            begun_with = {"glpi_jax": __version__} | {name: version(name) for name in _LIBRARIES}
            write_json(path, {**settings, "begun_with": begun_with})
            return
        found = read_json_object(path)
        differences = [
            f"{name} {json.dumps(found.get(name))} there, {json.dumps(value)} now"
            for name, value in settings.items()
            if found.get(name) != value
        ]
        if differences:
            raise GlpiError(
                f"{self.folder}: holds vectors made otherwise ({'; '.join(differences)}): give"
                " another folder, or delete this one"
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
