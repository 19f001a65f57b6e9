"""Photographs to a folder of distorted images: parallel, resumable, with a manifest and hashes.

`saqt.rendered` tells what the folder holds, `saqt.verify_rendered` checks it.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.pools import Stopped, run_unordered
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.sources.manifest import MANIFEST
from glpi_jax.saqt.record_shards import pack
from glpi_jax.saqt.render_manifest import check_place, check_settings, claim, manifest_of
from glpi_jax.saqt.render_photograph import RenderSettings, render_photograph
from glpi_jax.saqt.rendered import (
    LABELS,
    RECORDS,
    FolderRecords,
    LeftOut,
    Locks,
    SourcePhotograph,
    append_record,
    file_sizes,
    folder_of,
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
    """A folder of this run's part: its photographs, those not finished, those left out."""

    name: str
    photographs: Sequence[SourcePhotograph]
    todo: set[str] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    packed: bool = False

    @property
    def finished(self) -> int:
        return len(self.photographs) - len(self.todo) - len(self.left_out)

    def leave_out(self, bad: LeftOut) -> None:
        self.todo.discard(bad.prefix)
        self.left_out.append(bad)


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
    check_settings(settings, labelled=selection.labelled is not None)
    if not 1 <= shard[0] <= shard[1]:
        raise GlpiError(f"shard {shard[0]}/{shard[1]}: must be a part from 1 to the number of them")
    if processes < 1:
        raise GlpiError(f"processes {processes}: must be at least 1")
    manifest = manifest_of(selection.photographs, settings)
    check_place(out)
    others: dict[str, list[SourcePhotograph]] = {}
    for photograph in selection.photographs:
        others.setdefault(folder_of(photograph.prefix), []).append(photograph)
    names = sorted(others)  # mine are taken out of the others
    mine = {name: others.pop(name) for name in names[shard[0] - 1 :: shard[1]]}
    # Before the folder is made or changed; those that were left out may have been mended.
    unusable = check_headers(_unfinished(out, mine, left_out_too=True), settings)
    if unusable and not skip_bad:
        raise _unusable(unusable[0], len(unusable) - 1)
    each = len(settings.types) * len(settings.levels)
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
            folders[folder_of(bad.prefix)].leave_out(bad)
        with progress_bar(
            sum(map(len, mine.values())) * each,
            unit="image",
            description="render",
            initial=sum(folder.finished for folder in folders.values()) * each,
            enabled=progress,
        ) as bar:
            for _ in _work(out, folders, settings, processes, skip_bad):
                bar.advance(each)
        waiting = len(_unfinished(out, others, left_out_too=False))
        kind = None
        if selection.labelled is not None and not waiting:
            with locks.top_level():
                kind = write_labels(out, selection.labelled, names, settings)
    finished = sum(folder.finished for folder in folders.values())
    left_out = tuple(bad.left_out for folder in folders.values() for bad in folder.left_out)
    return Rendered(finished, finished * each, left_out, waiting, kind)


def _unfinished(
    out: Path, folders: Mapping[str, Sequence[SourcePhotograph]], *, left_out_too: bool
) -> list[SourcePhotograph]:
    """The photographs of these folders without a line; those left out too, but of packed ones."""
    unfinished: list[SourcePhotograph] = []
    for name, photographs in folders.items():
        found = read_records(records_path(out, name))
        done = set(found.records)
        if found.packed is not None or not left_out_too:
            done |= {bad.prefix for bad in found.left_out}
        unfinished += [photo for photo in photographs if photo.prefix not in done]
    return unfinished


def _unusable(bad: LeftOut, others: int = 0) -> GlpiError:
    more = f" (and {others} more photographs)" if others else ""
    return GlpiError(f"{bad.left_out}{more}; --skip-bad leaves such photographs out")


def _resume(
    out: Path, name: str, photographs: Sequence[SourcePhotograph], settings: RenderSettings
) -> _Folder:
    """Find out what is finished in a folder, and clear away what a killed run left there.

    Finished is what has a line, and its files with their sizes; they are not opened.
    """
    images, path = out / name, records_path(out, name)
    remove_temporaries(out / RECORDS, path.name)
    remove_temporaries(out, f"{name}.")
    remove_temporaries(images)
    found = read_records(path)
    if found.packed is not None and file_sizes(out).get(found.packed.packed) == found.packed.bytes:
        if images.exists():
            shutil.rmtree(images)
        return _Folder(name, photographs, left_out=found.left_out, packed=True)
    for photograph in photographs:
        record = found.records.get(photograph.prefix)
        if record is not None and photograph.path.stat().st_size != record.source_bytes:
            raise GlpiError(
                f"{photograph.path}: {out} was rendered from another file of this name"
                f" ({record.source_bytes} bytes); give a new folder"
            )
    sizes = file_sizes(out, name)
    finished = {
        prefix: record
        for prefix, record in found.records.items()
        if all(sizes.get(file) == size for file, (size, _) in record.files(settings.suffix).items())
    }
    if path.exists():
        write_records(path, FolderRecords(finished))
    images.mkdir(exist_ok=True)
    todo = {photograph.prefix for photograph in photographs} - finished.keys()
    return _Folder(name, photographs, todo=todo)


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
    rendering = run_unordered(render_photograph, tasks, processes, what="rendering")
    with _sealer(out, settings) as seal, closing(rendering) as results:
        for folder in folders.values():
            if not folder.todo:
                seal(folder)
        for result in results:
            folder = folders[folder_of(result.prefix)]
            if isinstance(result, LeftOut):
                if not skip_bad:
                    raise _unusable(result)
                folder.leave_out(result)
            else:
                append_record(records_path(out, folder.name), result)
                folder.todo.discard(result.prefix)
                yield
            if not folder.todo:
                seal(folder)


@contextmanager
def _sealer(out: Path, settings: RenderSettings) -> Iterator[Callable[[_Folder], None]]:
    """Hands out a function that seals a folder, in a thread; in the end all have been sealed."""
    stop = threading.Event()
    sealing: list[Future[None]] = []

    def seal(folder: _Folder) -> None:
        for done in filter(Future.done, sealing):
            done.result()  # raises here what was raised there
        sealing.append(executor.submit(_seal, out, folder, settings, stop))

    with ThreadPoolExecutor(1) as executor:
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
    found.left_out = sorted(folder.left_out, key=lambda bad: bad.prefix)
    if settings.arrayrecord and found.records:
        names = [
            name for record in found.records.values() for name in record.files(settings.suffix)
        ]
        found.packed = pack(out / f"{folder.name}.array_record", out, names, stop)
    write_records(path, found)
    if found.packed is not None:
        shutil.rmtree(out / folder.name)
