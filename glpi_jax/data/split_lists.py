"""Splits as lists of images, one text file a part, such as those of LIQE (zwx8981/LIQE)."""

import os
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import Split, check_split

# What the name of a part's list holds, as in live_train.txt, live_val_clip.txt.
_MARKS = {"train": "train", "validation": "val", "test": "test"}


def read_list_split(folder: str | os.PathLike[str], database: Database) -> Split:
    """Read the split of a folder with a train, a val and a test list; the val list may be missing.

    A list has a line for each image: its name, and after a tab whatever else, which is not read,
    so that labels are the database's own. A name is the image's path below the database's folder,
    or the end of it (`jp2k/img7.bmp`, `I01_01_01.png`) where only one image ends so; case counts
    only where it tells two images apart. Of a name that fits none so, the file name alone counts,
    since copies of a database differ in their folders. Images that no list names belong to no part.

    Args:
        folder: with `*train*.txt`, `*val*.txt` and `*test*.txt`, one file each.
        database: what is split.

    Raises:
        GlpiError: no such folder, a list that is missing, double or unreadable, a name that fits no
            image or several, an image listed twice, or a reference in two parts.
    """
    ending: dict[str, list[int]] = {}
    for row, image in enumerate(database.images):
        parts = image.casefold().split("/")
        for start in range(len(parts)):
            ending.setdefault("/".join(parts[start:]), []).append(row)
    rows = {
        part: _rows(path, ending, database) if path else ()
        for part, path in _list_files(Path(folder)).items()
    }
    if not rows["test"]:
        raise GlpiError(f"{folder}: the list of the test part names no image")
    return check_split(database, Split(rows["train"], rows["validation"], rows["test"]))


def _list_files(folder: Path) -> dict[str, Path | None]:
    """The list of each part."""
    if not folder.is_dir():
        raise GlpiError(f"{folder}: no such folder; it should hold a train, a val and a test list")
    names = sorted(path.name for path in folder.glob("*.txt"))
    files: dict[str, Path | None] = {}
    for part, mark in _MARKS.items():
        found = [name for name in names if mark in name.lower()]
        if len(found) > 1:
            raise GlpiError(
                f"{folder}: {len(found)} lists for the {part} part: {', '.join(found)}; keep one"
            )
        if not found and part != "validation":
            raise GlpiError(f"{folder}: no list for the {part} part, such as {mark}.txt")
        files[part] = folder / found[0] if found else None
    return files


def _rows(path: Path, ending: dict[str, list[int]], database: Database) -> tuple[int, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path}: cannot be read as text ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        name = line.split("\t")[0].strip().replace("\\", "/").removeprefix("./")
        if not name:
            continue
        fitting = _fitting(name, ending, database)
        if len(fitting) != 1:
            what = f"{len(fitting)} images" if fitting else "no image"
            raise GlpiError(
                f"{path} line {number}: {name!r} fits {what} of {database.name}; was the list made"
                " for another database?"
            )
        rows += fitting
    return tuple(rows)


def _fitting(name: str, ending: dict[str, list[int]], database: Database) -> list[int]:
    """The rows of the images that a name of a list fits."""
    # A list of KonIQ-10k may say 1024x768/ of images that lie in 512x384/.
    for end in dict.fromkeys((name, name.rpartition("/")[2])):
        rows = ending.get(end.casefold(), [])
        exact = [row for row in rows if f"/{database.images[row]}".endswith(f"/{end}")]
        if rows:
            return exact or rows
    return []
