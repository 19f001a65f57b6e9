"""Checks a rendered folder against its manifest and records."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import read_json_object
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.images import ImageError, decode_image, read_encoded
from glpi_jax.data.sources.manifest import MANIFEST, read_manifest
from glpi_jax.saqt.record_shards import count_records, unpack
from glpi_jax.saqt.rendered import (
    LABELS,
    LOCK,
    RECORDS,
    FolderRecords,
    Packed,
    Record,
    file_sizes,
    read_records,
    suffix_of,
)
from glpi_jax.saqt.rendered_labels import LABEL_FILES

_RECORDS_AT_A_TIME = 125  # of a packed file: held in memory and checked side by side


@dataclass
class Checked:
    """What a check has found.

    Attributes:
        images: how many are recorded.
        problems: one line each.
        left_out: why photographs were left out when the folder was rendered, one line each.
    """

    images: int = 0
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def verify_rendered(out: Path, *, fast: bool, threads: int, progress: bool) -> Checked:
    """Check that a rendered folder holds every image, unchanged and of the right size, and no more.

    Args:
        out: what `render_photographs` made.
        fast: only names and sizes of the files.
        threads: how many read side by side.
        progress: show progress on stderr.

    Raises:
        GlpiError: no or a damaged manifest, damaged records, or fewer than one thread.
    """
    if threads < 1:
        raise GlpiError(f"threads {threads}: must be at least 1")
    manifest = read_manifest(out)
    photographs, settings = manifest["photographs"]["count"], manifest["settings"]
    keys = [f"{t:02d}_{n:02d}" for t in settings["types"] for n in settings["levels"]]
    folders = sorted(
        name.removesuffix(".jsonl") for name in file_sizes(out / RECORDS) if _is_records(name)
    )
    checked = Checked()
    expected = {MANIFEST, RECORDS}
    done = 0
    with (
        ThreadPoolExecutor(threads) as executor,
        progress_bar(
            photographs * len(keys), unit="image", description="verify", enabled=progress
        ) as bar,
    ):
        check = _Check(out, suffix_of(manifest), keys, fast, executor)
        for folder in folders:
            found = read_records(out / RECORDS / f"{folder}.jsonl")
            expected.add(folder if found.packed is None else found.packed.packed)
            checked.left_out += [bad.left_out for bad in found.left_out]
            done += len(found.records) + len(found.left_out)
            for count, problems in check.folder(folder, found):
                checked.images += count
                checked.problems += problems
                bar.advance(count)
    checked.problems += _check_labels(out, expected)
    checked.problems += _extra(out, expected)
    checked.problems += _extra(
        out / RECORDS, {LOCK, LABELS, *(f"{folder}.jsonl" for folder in folders)}
    )
    if done != photographs:
        checked.problems.append(f"{out}: {photographs - done} photographs are not rendered")
    return checked


def _is_records(name: str) -> bool:
    return name.endswith(".jsonl") and not name.startswith(".")


@dataclass
class _Check:
    """How the folders of one check are looked through; problems name the files.

    Attributes:
        out: the rendered folder.
        suffix: of the images.
        keys: "TT_LL" that each photograph has.
        fast: only names and sizes.
        executor: reads side by side.
    """

    out: Path
    suffix: str
    keys: Sequence[str]
    fast: bool
    executor: ThreadPoolExecutor

    def folder(self, name: str, found: FolderRecords) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of images and the problems of each photograph, or of some images."""
        records = [line for line in found.lines() if isinstance(line, Record)]
        for record in records:
            if list(record.images) != list(self.keys):
                yield 0, [f"{self.out / record.prefix}: recorded with other types and levels"]
        if found.packed is not None:
            yield from self._packed(found.packed, records)
            return
        sizes = file_sizes(self.out / name)
        known = {file.partition("/")[2] for r in records for file in r.files(self.suffix)}
        extra = sorted(sizes.keys() - known)
        yield 0, [f"{self.out / name / file}: not in the manifest" for file in extra]

        def one(record: Record) -> tuple[int, list[str]]:
            return len(record.images), list(self._files(record, sizes))

        yield from self.executor.map(one, records)

    def _files(self, record: Record, sizes: dict[str, int]) -> Iterator[str]:
        for file, (size, sha256) in record.files(self.suffix).items():
            path = self.out / file
            there = sizes.get(file.partition("/")[2])
            if there is None:
                yield f"{path}: missing"
            elif there != size:
                yield f"{path}: has {there} instead of {size} bytes"
            elif not self.fast:
                try:
                    yield from _check_image(str(path), read_encoded(path), sha256, record)
                except ImageError as error:
                    yield str(error)

    def _packed(self, packed: Packed, records: list[Record]) -> Iterator[tuple[int, list[str]]]:
        path = self.out / packed.packed
        expected = [
            (file, sha256, record)
            for record in records
            for file, (_, sha256) in record.files(self.suffix).items()
        ]
        problem = self._whole(path, packed, len(expected))
        if problem is not None or self.fast:
            yield len(expected), [problem] if problem is not None else []
            return
        held = unpack(path)
        for start in range(0, len(expected), _RECORDS_AT_A_TIME):
            batch = expected[start : start + _RECORDS_AT_A_TIME]
            try:
                images = [next(held) for _ in batch]
            except (RuntimeError, ValueError, KeyError) as error:
                yield 0, [f"{path}: damaged ({' '.join(str(error).split())})"]
                return
            checks = self.executor.map(_check_record, [path] * len(batch), images, batch)
            yield len(batch), [problem for problems in checks for problem in problems]

    def _whole(self, path: Path, packed: Packed, images: int) -> str | None:
        """What is wrong with a packed file as a whole."""
        try:
            size = path.stat().st_size
            if size != packed.bytes:
                return f"{path}: has {size} instead of {packed.bytes} bytes"
            count = count_records(path)
        except FileNotFoundError:
            return f"{path}: missing"
        except RuntimeError as error:
            return f"{path}: damaged ({' '.join(str(error).split())})"
        return None if count == images else f"{path}: holds {count} instead of {images} images"


def _check_record(
    path: Path, held: tuple[str, bytes], expected: tuple[str, str, Record]
) -> list[str]:
    (name, content), (file, sha256, record) = held, expected
    if name != file:
        return [f"{path}: holds {name} in place of {file}"]
    return list(_check_image(f"{path}: {file}", content, sha256, record))


def _check_image(name: str, content: bytes, sha256: str, record: Record) -> Iterator[str]:
    if hashlib.sha256(content).hexdigest() != sha256:
        yield f"{name}: changed since it was rendered"
        return
    try:
        height, width, _ = decode_image(content, name, apply_orientation=False).shape
    except ImageError as error:
        yield str(error)
        return
    if (width, height) != (record.width, record.height):
        yield f"{name}: {width}x{height} instead of {record.width}x{record.height} pixels"


def _check_labels(out: Path, expected: set[str]) -> Iterator[str]:
    """Check the label files, and add them to what is expected."""
    for name, sha256 in read_json_object(out / RECORDS / LABELS).items():
        expected.add(name)
        try:
            content = (out / name).read_bytes()
        except FileNotFoundError:
            yield f"{out / name}: missing"
            continue
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"{out / name}: changed since it was written"


def _extra(folder: Path, expected: set[str]) -> Iterator[str]:
    for name in sorted(os.listdir(folder)):
        if name not in expected:
            what = "not from this render" if name in LABEL_FILES else "not in the manifest"
            yield f"{folder / name}: {what}"
