"""Files of a database found by name without regard to case, without asking the disk for each."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from glpi_jax.core.errors import GlpiError


class AmbiguousName(GlpiError):
    """A name that several files match, apart from case."""


class _Names:
    def __init__(self, names: Iterable[str]) -> None:
        self.exact = frozenset(names)
        self._folded: dict[str, list[str]] = {}
        for name in self.exact:
            self._folded.setdefault(name.casefold(), []).append(name)

    def matches(self, name: str) -> list[str]:
        """The name itself, or else those that differ from it in case alone."""
        return [name] if name in self.exact else self._folded.get(name.casefold(), [])


class _Listing(NamedTuple):
    files: _Names
    folders: _Names


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
        matches = self._matches(name, lambda listing: listing.files)
        if len(matches) > 1:
            raise AmbiguousName(f"{name!r} could mean {' or '.join(sorted(matches))}")
        if not matches:
            return None
        if matches[0] != name:
            self.case_differences[name] = matches[0]
        return matches[0]

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name, relative to the root, whatever its case."""
        return bool(self._find_folders(name))

    def folders_with(self, names: Iterable[str]) -> list[str]:
        """Return the folders that hold one of these files or more, whatever the case; sorted.

        Args:
            names: file names without folders.

        Returns:
            Names of folders directly below the root; "" for the root itself.

        Raises:
            GlpiError: a folder that cannot be listed.
        """
        folded = {name.casefold() for name in names}
        return sorted(
            folder
            for folder in ("", *self._listing("").folders.exact)
            if any(name.casefold() in folded for name in self._listing(folder).files.exact)
        )

    def _matches(self, name: str, kind: Callable[[_Listing], _Names]) -> list[str]:
        folder, _, base = name.rpartition("/")
        found = []
        for parent in self._find_folders(folder):
            names = kind(self._listing(parent)).matches(base)
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
            self._listings[folder] = _Listing(_Names(files), _Names(folders))
        return self._listings[folder]
