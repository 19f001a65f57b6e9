"""Photographs on disk, found by the names that SAQT's tables have for them."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import images_below
from glpi_jax.data.sources.file_index import AmbiguousName, FileIndex
from glpi_jax.data.sources.manifest import is_rendered


class PhotographIndex:
    """Finds the photographs of a folder and its subfolders, where `list_images` finds them too.

    The tables have a photograph's file name or its stem alone. All folders are walked once, when
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
            folded = self._by_folded_name.get(path.name.casefold(), [])
            exact = [file for file in folded if _base(file) == path.name]
            found = self._only(name, exact or folded)
            if found is not None:
                if not exact:
                    self._files.case_differences[name] = found
                return found
        return self._files.find(str(path))  # of any suffix, hidden ones too

    def find_stem(self, stem: str) -> str | None:
        """The name on disk of the photograph with this file name, apart from the suffix, or None.

        Raises:
            AmbiguousName: several photographs have it.
            GlpiError: a folder that cannot be listed.
        """
        return self._only(stem, self._by_stem.get(stem, []))

    def _only(self, name: str, matches: Sequence[str]) -> str | None:
        if len(matches) > 1:
            first, second, *others = sorted(matches)
            more = f" (and {len(others)} more)" if others else ""
            raise AmbiguousName(
                f"{name!r} could mean {first} or {second}{more} in {self._files.root}"
            )
        return matches[0] if matches else None

    @cached_property
    def _by_folded_name(self) -> dict[str, list[str]]:
        return self._by(lambda file: _base(file).casefold())

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._by(lambda file: os.path.splitext(_base(file))[0])

    def _by(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self._all:
            found.setdefault(key(file), []).append(file)
        return found

    @cached_property
    def _all(self) -> list[str]:
        """The photographs, relative to the root; what another user has locked holds none."""
        root = str(self._files.root)
        locked: list[GlpiError] = []
        paths = list(images_below(root, locked.append, skip=is_rendered))
        if locked and not paths:
            raise locked[0]
        beginning = len(os.path.join(root, ""))
        return [path[beginning:] for path in paths]


def _base(file: str) -> str:
    return file.rpartition("/")[2]
