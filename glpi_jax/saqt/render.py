"""Photographs to a folder of distorted images: parallel, resumable, with a manifest and hashes.

`saqt.rendered` tells what the folder holds, `saqt.verify_rendered` checks it.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.pools import Stopped, run_unordered
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.sources.manifest import MANIFEST
from glpi_jax.saqt.record_shards import pack
from glpi_jax.saqt.render_manifest import (
    check_labelled,
    check_place,
    check_settings,
    claim,
    manifest_of,
)
from glpi_jax.saqt.render_photograph import (
    RenderSettings,
    render_photograph,
)
from glpi_jax.saqt.rendered import (
    LABELS,
    RECORDS,
    FolderRecords,
    LeftOut,
    Locks,
    Record,
    SourcePhotograph,
    append_record,
    by_folder,
    file_sizes,
    packed_name,
    read_records,
    records_path,
    remove_temporaries,
    write_records,
)
from glpi_jax.saqt.rendered_labels import LABEL_FILES, write_labels
from glpi_jax.saqt.selection import Selection, check_headers


@dataclass(frozen=True)
class Rendered:
    """What a run has come to.

    Attributes:
        photographs: finished ones of this part, those of earlier runs included.
        images: as many times the images of a photograph.
        left_out: why others were left out, one line each.
        waiting: photographs of other parts that are not finished.
        kind: of the database that the folder is, if label tables were given and all is finished.
    """

    photographs: int
    images: int
    left_out: tuple[str, ...]
    waiting: int
    kind: str | None


@dataclass
class _Folder:
    """A folder of this run's part.

    Attributes:
        name: such as 001.
        photographs: all of its photographs.
        todo: those that are not finished; becomes empty.
        left_out: those that cannot be used.
        packed: whether its images are in one file already.
    """

    name: str
    photographs: Sequence[SourcePhotograph]
    todo: set[str] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    packed: bool = False


def render_photographs(
    selection: Selection,
    out: Path,
    settings: RenderSettings,
    *,
    shard: tuple[int, int],
    processes: int,
    skip_bad: bool,
    progress: bool,
) -> Rendered:
    """Render photographs into a folder, or finish what an earlier run has begun there.

    The files do not depend on the number of processes or parts, nor on how often a run was killed.

    Args:
        selection: the photographs. Folders hold 1,000 of them.
        out: the folder; new, empty, or of an earlier run with the same settings.
        settings: of the images.
        shard: (i, n), this run's part: of n parts, folder after folder in turn, the i-th from 1.
        processes: how many render side by side. Each takes up to 150 bytes a pixel of a photograph.
        skip_bad: leave out photographs that cannot be used, and list them.
        progress: show progress on stderr.

    Raises:
        GlpiError: unknown types or levels, a folder that holds something else or images of other
            settings, a photograph that cannot be used unless they are skipped, another process at
            the same work, or a file that cannot be written.
    """
    check_settings(settings, shard, processes)
    if selection.labelled is not None:
        check_labelled(settings)
    manifest = manifest_of(selection.photographs, settings)
    check_place(out)
    all_folders = by_folder(selection.photographs)
    mine = {name: all_folders[name] for name in sorted(all_folders)[shard[0] - 1 :: shard[1]]}
    # Before the folder is made or changed.
    unusable = _find_unusable(out, mine, settings, skip_bad)
    with closing(Locks(out)) as locks:
        with locks.top_level():
            for name in (MANIFEST, *LABEL_FILES):
                remove_temporaries(out, name)
            remove_temporaries(out / RECORDS, LABELS)
            claim(out, manifest)
        folders = {}
        for name, photographs in mine.items():
            locks.folder(name)
            folders[name] = _resume(out, name, photographs, settings)
        for bad in unusable:
            _leave_out(folders, bad)
        with progress_bar(
            sum(map(len, mine.values())) * settings.images_per_photograph,
            unit="image",
            description="render",
            initial=sum(_finished(folder) for folder in folders.values())
            * settings.images_per_photograph,
            enabled=progress,
        ) as bar:
            for _ in _work(out, folders, settings, processes, skip_bad):
                bar.advance(settings.images_per_photograph)
        waiting = _count_waiting(
            out, {name: all_folders[name] for name in all_folders.keys() - mine.keys()}
        )
        kind = None
        if selection.labelled is not None and not waiting:
            with locks.top_level():
                kind = write_labels(out, selection.labelled, sorted(all_folders), settings)
    finished = sum(_finished(folder) for folder in folders.values())
    return Rendered(
        photographs=finished,
        images=finished * settings.images_per_photograph,
        left_out=tuple(bad.left_out for folder in folders.values() for bad in folder.left_out),
        waiting=waiting,
        kind=kind,
    )


def _resume(
    out: Path, name: str, photographs: Sequence[SourcePhotograph], settings: RenderSettings
) -> _Folder:
    """Find out what is finished in a folder, and clear away what a killed run left there.

    Finished is what has a line, and its files with their sizes; they are not opened.
    """
    images, path = out / name, records_path(out, name)
    remove_temporaries(out / RECORDS, path.name)
    remove_temporaries(out, packed_name(name))
    remove_temporaries(images)
    found = read_records(path)
    if found.packed is not None and _is_whole(out, found.packed.packed, found.packed.bytes):
        if images.exists():
            shutil.rmtree(images)
        return _Folder(name, photographs, left_out=found.left_out, packed=True)
    _check_sources(out, photographs, found.records)
    sizes = file_sizes(images)
    finished = {
        prefix: record
        for prefix, record in found.records.items()
        if all(
            sizes.get(file.partition("/")[2]) == size
            for file, (size, _) in record.files(settings.suffix).items()
        )
    }
    if path.exists():
        write_records(path, FolderRecords(finished).lines())
    images.mkdir(exist_ok=True)
    todo = {photograph.prefix for photograph in photographs} - finished.keys()
    return _Folder(name, photographs, todo=todo)


def _is_whole(out: Path, name: str, size: int) -> bool:
    try:
        return (out / name).stat().st_size == size
    except FileNotFoundError:
        return False


def _check_sources(
    out: Path, photographs: Sequence[SourcePhotograph], records: Mapping[str, Record]
) -> None:
    for photograph in photographs:
        record = records.get(photograph.prefix)
        if record is not None and photograph.path.stat().st_size != record.source_bytes:
            raise GlpiError(
                f"{photograph.path}: {out} was rendered from another file of this name"
                f" ({record.source_bytes} bytes); give a new folder"
            )


def _find_unusable(
    out: Path,
    folders: Mapping[str, Sequence[SourcePhotograph]],
    settings: RenderSettings,
    skip_bad: bool,
) -> list[LeftOut]:
    """Look at the headers of all photographs that have no line, before the work begins."""
    todo: list[SourcePhotograph] = []
    for name, photographs in folders.items():
        found = read_records(records_path(out, name))
        if found.packed is None:
            todo += [photo for photo in photographs if photo.prefix not in found.records]
    bad = check_headers(todo, settings.types, settings.format_name)
    if bad and not skip_bad:
        raise _unusable(bad[0], len(bad) - 1)
    return bad


def _unusable(bad: LeftOut, others: int = 0) -> GlpiError:
    more = f" (and {others} more photographs)" if others else ""
    return GlpiError(f"{bad.left_out}{more}; --skip-bad leaves such photographs out")


def _leave_out(folders: Mapping[str, _Folder], bad: LeftOut) -> None:
    folder = folders[bad.prefix.partition("/")[0]]
    folder.todo.discard(bad.prefix)
    folder.left_out.append(bad)


def _finished(folder: _Folder) -> int:
    return len(folder.photographs) - len(folder.todo) - len(folder.left_out)


def _work(
    out: Path,
    folders: Mapping[str, _Folder],
    settings: RenderSettings,
    processes: int,
    skip_bad: bool,
) -> Iterator[None]:
    """Render what is to be rendered and seal each folder that is finished; yield a photograph."""
    tasks = [
        (photograph, out, settings)
        for folder in folders.values()
        for photograph in folder.photographs
        if photograph.prefix in folder.todo
    ]
    with _sealer(out, settings) as seal:
        for folder in folders.values():
            if not folder.todo:
                seal(folder)
        with closing(
            run_unordered(render_photograph, tasks, processes, what="rendering")
        ) as results:
            for result in results:
                folder = folders[result.prefix.partition("/")[0]]
                if isinstance(result, LeftOut):
                    if not skip_bad:
                        raise _unusable(result)
                    _leave_out(folders, result)
                else:
                    append_record(records_path(out, folder.name), result)
                    folder.todo.discard(result.prefix)
                    yield
                if not folder.todo:
                    seal(folder)


@contextmanager
def _sealer(out: Path, settings: RenderSettings) -> Iterator[Any]:
    """Hands out a function that seals a folder, in a thread; in the end all have been sealed."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        sealing: list[Future[None]] = []

        def seal(folder: _Folder) -> None:
            for done in [future for future in sealing if future.done()]:
                done.result()  # raises here what was raised there
            sealing.append(executor.submit(_seal, out, folder, settings, stop))

        try:
            yield seal
            for future in sealing:
                future.result()
        except BaseException:
            stop.set()
            raise


def _seal(out: Path, folder: _Folder, settings: RenderSettings, stop: threading.Event) -> None:
    """Bring a finished folder's lines into order, and pack its images if that is wanted."""
    if folder.packed:
        return
    if stop.is_set():
        raise Stopped
    path = records_path(out, folder.name)
    found = read_records(path)
    found.left_out = folder.left_out
    if settings.arrayrecord and found.records:
        names = [
            name
            for record in found.lines()
            if isinstance(record, Record)
            for name in record.files(settings.suffix)
        ]
        found.packed = pack(out / packed_name(folder.name), out, names, stop)
    write_records(path, found.lines())
    if found.packed is not None:
        shutil.rmtree(out / folder.name)


def _count_waiting(out: Path, folders: Mapping[str, Sequence[SourcePhotograph]]) -> int:
    """How many photographs of these folders are neither finished nor left out."""
    waiting = 0
    for name, photographs in folders.items():
        found = read_records(records_path(out, name))
        done = found.records.keys() | {bad.prefix for bad in found.left_out}
        waiting += sum(photograph.prefix not in done for photograph in photographs)
    return waiting
