"""Files of a database found by name without regard to case, without asking the disk for each."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import images_below
from glpi_jax.data.sources.manifest import is_rendered


class AmbiguousName(GlpiError):
    """A name that several files match, apart from case."""


Names = dict[str, list[str]]
"""What a name is asked for by, such as the name without case → the names on disk."""


class _Listing(NamedTuple):
    files: Names
    folders: Names


class FileIndex:
    """Finds files below a folder; each folder is listed once, when a name in it is first asked for.

    Copies of TID2013 and CSIQ differ in the case of file and folder names, and label files agree
    with none of them for sure.

    Attributes:
        root: the folder.
        case_differences: name asked for → name on disk, where the two differ.
    """

    def __init__(self, root: Path) -> None:
        """Nothing is read yet."""
        self.root = root
        self.case_differences: dict[str, str] = {}
        self._listings: dict[str, _Listing] = {}
        self._folders: dict[str, list[str]] = {"": [""]}

    def find(self, name: str) -> str | None:
        """The name on disk of a file named relative to the root; None where there is no such file.

        An exact match wins; otherwise the one that differs in case alone.

        Raises:
            AmbiguousName: several names differ from this one in case alone.
            GlpiError: a folder that cannot be listed.
        """
        found = self.only(name, self._matches(name, lambda listing: listing.files))
        if found is not None and found != name:
            self.case_differences[name] = found
        return found

    def only(self, name: str, matches: Sequence[str]) -> str | None:
        """The file that a name means, or None where none matches; of several an `AmbiguousName`."""
        if len(matches) > 1:
            first, second, *others = sorted(matches)
            more = f" (and {len(others)} more)" if others else ""
            raise AmbiguousName(f"{name!r} could mean {first} or {second}{more} in {self.root}")
        return matches[0] if matches else None

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name, relative to the root, whatever its case."""
        return bool(self._find_folders(name))

    def folders_with(self, names: Iterable[str]) -> list[str]:
        """Return the folders that hold a file of these names, whatever the case; sorted.

        Searched are the root, which is "", and the folders directly below it.

        Raises:
            GlpiError: a folder that cannot be listed.
        """
        folded = {name.casefold() for name in names}
        folders = ("", *chain.from_iterable(self._listing("").folders.values()))
        return sorted(
            folder for folder in folders if not folded.isdisjoint(self._listing(folder).files)
        )

    def _matches(self, name: str, kind: Callable[[_Listing], Names]) -> list[str]:
        folder, _, base = name.rpartition("/")
        found = []
        for parent in self._find_folders(folder):
            names = kind(self._listing(parent)).get(base.casefold(), [])
            names = [base] if base in names else names
            found += [f"{parent}/{name}" if parent else name for name in names]
        return found

    def _find_folders(self, folder: str) -> list[str]:
        if folder not in self._folders:
            self._folders[folder] = self._matches(folder, lambda listing: listing.folders)
        return self._folders[folder]

    def _listing(self, folder: str) -> _Listing:
        if folder not in self._listings:
            files, folders = [], []
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        # The listing itself tells which it is; the disk is asked about links alone.
                        with suppress(OSError):  # a link that leads nowhere
                            if entry.is_file():
                                files.append(entry.name)
                            elif entry.is_dir():
                                folders.append(entry.name)
            except OSError as error:
                raise GlpiError(
                    f"{self.root / folder}: this folder cannot be listed ({error.strerror})"
                ) from error
            self._listings[folder] = _Listing(_by(str.casefold, files), _by(str.casefold, folders))
        return self._listings[folder]


class PhotographIndex:
    """Finds the photographs of a folder and its subfolders, where `list_images` finds them too.

    SAQT's tables have a photograph's file name or its stem alone. All folders are walked once, when
    such a name is first asked for.
    """

    def __init__(self, files: FileIndex) -> None:
        """Nothing is read yet."""
        self._files = files

    def find(self, name: str) -> str | None:
        """The name on disk, relative to the root, of a photograph that is named so, or None.

        A name with folders is relative to the root. An exact match wins; otherwise the one that
        differs in case alone.

        Raises:
            AmbiguousName: several photographs have this name.
            GlpiError: a name that leads out of the root, or a folder that cannot be listed.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        if not name or path.is_absolute() or ".." in path.parts:
            raise GlpiError(f"{name!r} is not the name of a photograph inside the folder")
        if len(path.parts) == 1:
            folded = self._photographs[0].get(path.name.casefold(), [])
            exact = [file for file in folded if _base(file) == path.name]
            found = self._files.only(name, exact or folded)
            if found is not None:
                if not exact:
                    self._files.case_differences[name] = found
                return found
        return self._files.find(str(path))  # of any suffix, hidden ones too

    def find_stem(self, stem: str) -> str | None:
        """As `find`, the photograph with this file name, apart from the suffix."""
        return self._files.only(stem, self._photographs[1].get(stem, []))

    @cached_property
    def _photographs(self) -> tuple[Names, Names]:
        """By name without case, and by stem; what another user has locked holds none."""
        root = str(self._files.root)
        locked: list[GlpiError] = []
        paths = list(images_below(root, locked.append, skip=is_rendered))
        if locked and not paths:
            raise locked[0]
        beginning = len(os.path.join(root, ""))
        files = [path[beginning:] for path in paths]
        by_name = _by(lambda file: _base(file).casefold(), files)
        return by_name, _by(lambda file: os.path.splitext(_base(file))[0], files)


def _by(key: Callable[[str], str], names: Iterable[str]) -> Names:
    found: Names = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return found


def _base(file: str) -> str:
    return file.rpartition("/")[2]
