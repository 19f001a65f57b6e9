"""What a command was given to score: a model, and files, folders, patterns and URLs of images."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import home_expanded
from glpi_jax.data.images import IMAGE_SUFFIXES, walk_images
from glpi_jax.hub.remote import SCHEME
from glpi_jax.hub.sources import SOURCES, looks_like_a_model
from glpi_jax.scoring.fetch import is_foreign_url, is_url
from glpi_jax.scoring.results import Problem
from glpi_jax.scoring.video import VIDEO_SUFFIXES, check_package, is_video

STDIN = "-"

_READ_BYTES = 2**16
_LONGEST_PATH = 2**16
# How files begin that may have been piped in instead of a list; zero bytes are in all of them.
_IMAGE_STARTS = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0",
)  # fmt: skip


def refuse_models(images: Iterable[str]) -> None:
    """Raise a GlpiError if a model was given in the place of an image."""
    for name in images:
        with suppress(OSError):  # of a name that is too long, which is reported later
            if not is_url(name) and looks_like_a_model(name):
                raise GlpiError(f"{name}: a model in the place of an image; --model {name} uses it")


def model_and_images(
    arguments: Sequence[str], tell: Callable[[str], None]
) -> tuple[str | None, Sequence[str]]:
    """Split arguments, of which the first may be a model, into that (or None) and the images.

    `tell` is called with a remark on a folder that may be a misnamed model.

    Raises:
        GlpiError: the first is neither an image nor a model, or a later one is a model.
    """
    first, *more = arguments
    refuse_models(more)
    if first == STDIN or is_url(first) or (is_foreign_url(first) and not first.startswith(SCHEME)):
        return None, arguments
    if looks_like_a_model(first):
        return first, more
    path = Path(first)
    if path.is_dir():
        try:
            next(walk_images(path, lambda error: None))
        except GlpiError:  # without an image, told with the others; it may be a model misnamed
            tell(f"{first} is no model, which is {SOURCES}; it is taken for a folder of images")
    elif not (
        path.exists()
        or glob.has_magic(first)
        or path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    ):
        raise GlpiError(f"{first}: no such image, folder or model; a model is {SOURCES}")
    return None, arguments


def names_video(name: str) -> bool:
    """Whether a path or URL is that of a video whose frames can be scored: a local file."""
    return not is_url(name) and is_video(name)


def count_images(arguments: Sequence[str]) -> int | None:
    """How many images arguments stand for, None if only stdin or a video knows.

    Raises:
        GlpiError: there are videos, and nothing is installed that reads them.
    """
    if STDIN in arguments:
        return None
    count = 0
    for source in list_inputs(arguments):
        count += 1
        if isinstance(source, str) and names_video(source):
            check_package(source)
            return None
    return count


def list_inputs(
    arguments: Sequence[str], *, stdin: BinaryIO | None = None, null: bool = False
) -> Iterator[str | Problem]:
    """Yield the paths and URLs that arguments stand for, while they are found.

    A file is taken whatever its suffix and content, a folder is searched by `walk_images`, which
    leaves videos out, and what does not exist but holds one of `*?[` is a pattern (`**` is any
    depth of folders). `-` is a list of files, folders and URLs on stdin, a line each or (`null`) up
    to a zero byte; nothing in the list is a pattern. Of several arguments, a file that is reached
    twice is given once; a list is taken as it is.

    Yields:
        a path, normalised, or a URL, or a `Problem` for what leads to no image.

    Raises:
        GlpiError: stdin holds no list of paths.
    """
    seen: set[str] = set()
    for argument in arguments:
        if argument == STDIN and stdin is not None:
            listed = False
            for entry in _entries(stdin, b"\0" if null else b"\n"):
                listed = True
                if glob.has_magic(entry) and not (is_url(entry) or os.path.exists(entry)):
                    yield Problem(entry, f"{entry}: no such file; a list takes no patterns")
                else:
                    yield from _images_of(entry)
            if not listed:
                yield Problem(STDIN, "-: no image in the list on stdin")
            continue
        for name in _matches(argument):
            for found in _images_of(name):
                key = found if isinstance(found, str) else found.name
                if len(arguments) == 1 or key not in seen:
                    seen.add(key)
                    yield found


def _matches(argument: str) -> list[str]:
    """The argument, or what it matches if it is a pattern."""
    if is_url(argument) or not glob.has_magic(argument) or os.path.exists(argument):
        return [argument]
    found = sorted(glob.glob(argument, recursive=True))
    if "**" in argument:  # matches the files in the folders that it matches, too
        found = [name for name in found if not os.path.isdir(name)] or found
    return found or [argument]


def _images_of(name: str) -> Iterator[str | Problem]:
    if is_url(name) or is_foreign_url(name):  # reading says what is wrong with the latter
        yield name
        return
    path = Path(name)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        yield Problem(name, f"{name}: cannot be read ({getattr(error, 'strerror', error)})")
        return
    if is_folder:
        yield from _images_of_folder(path)
    elif exists:
        yield str(path)
    elif glob.has_magic(name):
        yield Problem(name, f"{name}: no file or folder matches")
    else:
        yield Problem(name, f"{name}: no such file or folder")


def _images_of_folder(folder: Path) -> Iterator[str | Problem]:
    unlisted: list[GlpiError] = []
    try:
        for path in walk_images(folder, unlisted.append):
            yield from _problems(folder, unlisted)
            yield path
    except GlpiError as error:  # no image, which an error of the folder itself explains better
        if not unlisted:
            unlisted.append(GlpiError(f"{error}{_videos_below(folder)}"))
    yield from _problems(folder, unlisted)


def _videos_below(folder: Path) -> str:
    """What to do if there are videos in a folder without an image."""
    for _, _, names in os.walk(folder):
        if any(os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES for name in names):
            return f"; name its videos, as by '{folder}/**'"
    return ""


def _problems(folder: Path, errors: list[GlpiError]) -> Iterator[Problem]:
    while errors:
        yield Problem(str(folder), str(errors.pop(0)))


def _entries(stream: BinaryIO, separator: bytes) -> Iterator[str]:
    """The entries of a list, without empty ones."""
    blocks = iter(lambda: stream.read(_READ_BYTES), b"")
    rest = b""
    for number, block in enumerate(chain(blocks, [separator])):
        if number == 0 and b"\0" in block:
            if block.startswith(_IMAGE_STARTS):
                raise GlpiError(
                    "-: an image on stdin; - reads a list of paths, so name the image's file"
                )
            if separator != b"\0":
                raise GlpiError(
                    "-: zero bytes on stdin; a list of find -print0 needs --null, an image has to"
                    " be named"
                )
        *entries, rest = (rest + block).split(separator)
        for entry in entries:
            name = entry.removesuffix(b"\r") if separator == b"\n" else entry
            if name:
                yield home_expanded(os.fsdecode(name))
        if len(rest) > _LONGEST_PATH:
            raise GlpiError("stdin: no list of paths; one of them would be longer than 64 kB")
