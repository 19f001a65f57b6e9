"""Which photographs are rendered, in which order, and whether they can be."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import list_images, read_image
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.sources.file_index import AmbiguousName, FileIndex, PhotographIndex
from glpi_jax.data.sources.manifest import is_rendered
from glpi_jax.saqt.labels import photograph_prefix, read_matches
from glpi_jax.saqt.render_photograph import RenderSettings, why_unusable
from glpi_jax.saqt.rendered import LeftOut, SourcePhotograph

_HEADERS_AT_A_TIME = 16  # reading one is waiting for the disk


@dataclass(frozen=True)
class Selection:
    """The photographs to render.

    Attributes:
        photographs: in order.
        left_out: why others cannot be used, one line each.
        labelled: the label tables as a database of kind "saqt", if they decided.
    """

    photographs: tuple[SourcePhotograph, ...]
    left_out: tuple[str, ...] = ()
    labelled: Database | None = None


def select_all(root: Path) -> Selection:
    """All image files of a folder and its subfolders, rendered ones left out, sorted by name.

    Raises:
        GlpiError: no image, two that would give images of the same names, or a bad name.
    """
    paths = list_images([root], skip=is_rendered)
    return _selection(enumerate(sorted(paths, key=lambda path: (path.name, path))))


def select_matched(root: Path, table: Path, *, skip_bad: bool) -> Selection:
    """Those of a similarity table, in its order, in a folder or its subfolders.

    Raises:
        GlpiError: as `read_matches`; photographs that are not there or have one name, unless they
            are skipped; two that would give images of the same names, or a bad name.
    """
    if not root.is_dir():
        raise GlpiError(f"{root}: no such folder; give the folder of the photographs")
    index = PhotographIndex(FileIndex(root))
    found, bad = [], []
    for row, match in enumerate(read_matches(table)):
        try:
            name = index.find(match.source)
            if name is None:
                bad.append(f"{table}: the photograph {match.source!r} is not in {root}")
            else:
                found.append((row, root / name))
        except AmbiguousName as error:
            bad.append(f"{table}: {error}")
    if bad and not (skip_bad and found):
        more = f" (and {len(bad) - 1} more)" if bad[1:] else ""
        raise GlpiError(
            f"{bad[0]}{more}; mend the folder or the table, or leave them out with --skip-bad"
        )
    return _selection(found, bad)


def select_labelled(root: Path, labels: Path, *, skip_bad: bool) -> Selection:
    """Those of label tables, in their order, and the tables themselves.

    Raises:
        GlpiError: as for `load_database` of kind "saqt"; image names that do not begin with a
            folder's number; a bad name.
    """
    database = load_database("saqt", root, labels, skip_bad=skip_bad)
    assert database.photographs is not None
    files, prefixes = database.photographs.files, database.photographs.prefixes
    for prefix in prefixes:
        folder, _, rest = prefix.partition("/")
        if not (folder.isdecimal() and folder.isascii() and rest and "/" not in rest):
            raise GlpiError(f"{labels}: {prefix!r} is no image name of the form 001/photograph")
    named = [(prefix, root / file) for prefix, file in zip(prefixes, files, strict=True)]
    return Selection(_photographs(named), database.left_out, database)


def _selection(found: Iterable[tuple[int, Path]], left_out: Sequence[str] = ()) -> Selection:
    by_stem: dict[str, Path] = {}
    named = []
    for row, path in found:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise GlpiError(f"{other} and {path} would give images of the same names; rename one")
        named.append((photograph_prefix(path.name, row), path))
    return Selection(_photographs(named), tuple(left_out))


def _photographs(named: Sequence[tuple[str, Path]]) -> tuple[SourcePhotograph, ...]:
    for prefix, path in named:
        try:
            f"{prefix} {path.name}".encode()
        except UnicodeEncodeError:
            raise GlpiError(f"{path}: the file name is not valid UTF-8; rename the file") from None
    return tuple(SourcePhotograph(prefix, path) for prefix, path in named)


def check_headers(
    photographs: Sequence[SourcePhotograph], settings: RenderSettings
) -> list[LeftOut]:
    """Those that cannot be rendered as far as their headers tell; nothing is decoded."""

    def check(photograph: SourcePhotograph) -> LeftOut | None:
        path = photograph.path
        try:
            try:
                with Image.open(path) as image:
                    width, height = image.size
            except Exception:  # Pillow raises nearly anything; the reader says what it means
                height, width, _ = read_image(path, apply_orientation=False).shape
        except GlpiError as error:
            return LeftOut(photograph.prefix, str(error))
        reason = why_unusable(path, width, height, settings)
        return LeftOut(photograph.prefix, reason) if reason else None

    with ThreadPoolExecutor(_HEADERS_AT_A_TIME) as executor:
        return [found for found in executor.map(check, photographs) if found is not None]
