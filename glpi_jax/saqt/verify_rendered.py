"""Checks a rendered folder against its manifest and records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import read_json_object
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.images import ImageError, decode_image, read_encoded
from glpi_jax.data.sources.manifest import MANIFEST, read_manifest
from glpi_jax.saqt.record_shards import count_records, unpack
from glpi_jax.saqt.render_photograph import sha256
from glpi_jax.saqt.rendered import (
    LABELS,
    LOCK,
    RECORDS,
    FolderRecords,
    Packed,
    Record,
    file_sizes,
    read_records,
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
    suffix = f".{settings['image_format']['name']}"
    keys = [f"{t:02d}_{n:02d}" for t in settings["types"] for n in settings["levels"]]
    files = sorted((out / RECORDS).glob("[!.]*.jsonl"))
    labels = read_json_object(out / RECORDS / LABELS)
    expected = {MANIFEST, RECORDS, *labels}
    checked = Checked()
    done = 0
    with (
        ThreadPoolExecutor(threads) as executor,
        progress_bar(
            photographs * len(keys), unit="image", description="verify", enabled=progress
        ) as bar,
    ):
        check = _Check(out, suffix, keys, fast, executor)
        for file in files:
            found = read_records(file)
            expected.add(file.stem if found.packed is None else found.packed.packed)
            checked.left_out += [bad.left_out for bad in found.left_out]
            done += len(found.records) + len(found.left_out)
            for count, problems in check.folder(file.stem, found):
                checked.images += count
                checked.problems += problems
                bar.advance(count)
    for name, digest in labels.items():
        if not (out / name).exists():
            checked.problems.append(f"{out / name}: missing")
        elif sha256((out / name).read_bytes()) != digest:
            checked.problems.append(f"{out / name}: changed since it was written")
    for folder, known in (
        (out, expected),
        (out / RECORDS, {LOCK, LABELS, *(f.name for f in files)}),
    ):
        for name in sorted(file_sizes(folder).keys() - known):
            what = "not from this render" if name in LABEL_FILES else "not in the manifest"
            checked.problems.append(f"{folder / name}: {what}")
    if done != photographs:
        checked.problems.append(f"{out}: {photographs - done} photographs are not rendered")
    return checked


@dataclass
class _Check:
    """How the folders of one check are looked through; problems name the files."""

    out: Path
    suffix: str
    keys: Sequence[str]  # "TT_LL" that each photograph has
    fast: bool
    executor: ThreadPoolExecutor

    def folder(self, name: str, found: FolderRecords) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of images and the problems of each photograph, or of some images."""
        records = found.records.values()
        for record in records:
            if list(record.images) != list(self.keys):
                yield 0, [f"{self.out / record.prefix}: recorded with other types and levels"]
        if found.packed is not None:
            yield from self._packed(found.packed, records)
            return
        sizes = file_sizes(self.out, name)
        extra = sizes.keys() - {file for record in records for file in record.files(self.suffix)}
        yield 0, [f"{self.out / file}: not in the manifest" for file in sorted(extra)]
        yield from self.executor.map(lambda record: self._files(record, sizes), records)

    def _files(self, record: Record, sizes: Mapping[str, int]) -> tuple[int, list[str]]:
        problems = []
        for file, (size, digest) in record.files(self.suffix).items():
            path = self.out / file
            problem = _size_problem(path, sizes.get(file), size)
            if problem is None and not self.fast:
                try:
                    problem = _image_problem(str(path), read_encoded(path), digest, record)
                except ImageError as error:
                    problem = str(error)
            problems += [] if problem is None else [problem]
        return len(record.images), problems

    def _packed(self, packed: Packed, records: Iterable[Record]) -> Iterator[tuple[int, list[str]]]:
        path = self.out / packed.packed
        expected = [
            (file, digest, record)
            for record in records
            for file, (_, digest) in record.files(self.suffix).items()
        ]

        def check(held: tuple[str, bytes], expected: tuple[str, str, Record]) -> str | None:
            (name, content), (file, digest, record) = held, expected
            if name != file:
                return f"{path}: holds {name} in place of {file}"
            return _image_problem(f"{path}: {file}", content, digest, record)

        problem = _size_problem(path, file_sizes(self.out).get(packed.packed), packed.bytes)
        try:
            if problem is None and (count := count_records(path)) != len(expected):
                problem = f"{path}: holds {count} instead of {len(expected)} images"
            if problem is not None or self.fast:
                yield len(expected), [] if problem is None else [problem]
                return
            held = unpack(path)
            for start in range(0, len(expected), _RECORDS_AT_A_TIME):
                batch = expected[start : start + _RECORDS_AT_A_TIME]
                images = [next(held) for _ in batch]
                yield len(batch), list(filter(None, self.executor.map(check, images, batch)))
        except (RuntimeError, ValueError, KeyError) as error:
            yield 0, [f"{path}: damaged ({' '.join(str(error).split())})"]


def _size_problem(path: Path, there: int | None, size: int) -> str | None:
    if there is None:
        return f"{path}: missing"
    return None if there == size else f"{path}: has {there} instead of {size} bytes"


def _image_problem(name: str, content: bytes, digest: str, record: Record) -> str | None:
    if sha256(content) != digest:
        return f"{name}: changed since it was rendered"
    try:
        height, width, _ = decode_image(content, name, apply_orientation=False).shape
    except ImageError as error:
        return str(error)
    if (width, height) != (record.width, record.height):
        return f"{name}: {width}x{height} instead of {record.width}x{record.height} pixels"
    return None
