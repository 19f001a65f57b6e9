"""Files of a database found by name without regard to case, without asking the disk for each."""

import os
from pathlib import Path
from typing import NamedTuple

from glpi_jax.errors import GlpiError


class AmbiguousName(GlpiError):
    """A name that several files match, apart from case."""


class _Listing(NamedTuple):
    names: frozenset[str]
    by_folded_name: dict[str, list[str]]


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
        """The name on disk of a file named relative to the root, or None.

        An exact match wins; otherwise the one that differs in case alone.

        Raises:
            AmbiguousName: several names differ from this one in case alone.
            GlpiError: a folder that cannot be listed.
        """
        folder, _, base = name.rpartition("/")
        matches = self._matches(folder, base)
        if len(matches) > 1:
            raise AmbiguousName(f"{name!r} could mean {' or '.join(sorted(matches))}")
        if not matches:
            return None
        if matches[0] != name:
            self.case_differences[name] = matches[0]
        return matches[0]

    def _matches(self, folder: str, base: str) -> list[str]:
        found = []
        for parent in self._find_folders(folder):
            listing = self._listing(parent)
            exact = base in listing.names
            names = [base] if exact else listing.by_folded_name.get(base.casefold(), [])
            found += [f"{parent}/{name}" if parent else name for name in names]
        return found

    def _find_folders(self, folder: str) -> list[str]:
        if folder not in self._folders:
            parent, _, base = folder.rpartition("/")
            self._folders[folder] = self._matches(parent, base)
        return self._folders[folder]

    def _listing(self, folder: str) -> _Listing:
        if folder not in self._listings:
            try:
                names = os.listdir(self.root / folder)
            except NotADirectoryError:
                names = []
            except OSError as error:
                raise GlpiError(
                    f"{self.root / folder}: this folder cannot be listed ({error.strerror})"
                ) from error
            folded: dict[str, list[str]] = {}
            for name in names:
                folded.setdefault(name.casefold(), []).append(name)
            self._listings[folder] = _Listing(frozenset(names), folded)
        return self._listings[folder]
