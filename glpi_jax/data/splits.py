"""Splits of a database by reference, the official one and a strict one, and their files.

Both follow the official recipe for the test part: the index list of the references is shuffled with
Python's `random.Random(seed)` and the first int(round(fraction * n)) train.
"""

import hashlib
import json
import os
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json
from glpi_jax.data.sources import Database, PhotographRows

Key = TypeVar("Key", bound=Hashable)

PARTS = ("train", "validation", "test")
_FORMAT = 1


# An item is what splits divide and split files name: a row, or a photograph with all its rows in a
# database of photographs.


def item_names(database: Database) -> Sequence[str]:
    """Return the name of each item."""
    return database.images if database.photographs is None else database.photographs.files


def item_references(database: Database) -> Sequence[str]:
    """Return the reference of each item."""
    return database.references if database.photographs is None else database.photographs.files


def items_of(rows: Sequence[int]) -> Sequence[int]:
    """Return the items of a part's rows."""
    return rows.photographs if isinstance(rows, PhotographRows) else rows


def rows_of(database: Database, items: Sequence[int]) -> Sequence[int]:
    """Return the rows of items, in their order."""
    return tuple(items) if database.photographs is None else PhotographRows(items)


@dataclass(frozen=True)
class Split:
    """Rows of one Database. No reference is in two parts; only `train` is never empty.

    Of a database of photographs the parts are `PhotographRows`: photographs with all their rows.
    Made by the functions here and by `split_lists.read_list_split`, which check this.

    Attributes:
        train, validation, test: the rows of each part.
        fingerprints: name of an image or photograph → what tells its content from others, see
            `identical.fingerprints`; no fingerprint is in two parts. Empty where nobody compared.
    """

    train: Sequence[int]
    validation: Sequence[int]
    test: Sequence[int]
    fingerprints: Mapping[str, str] = field(default_factory=dict, compare=False)


def official_seed(round_number: int) -> int:
    """The seed of a round (1…10) in the official protocol: round · 12345."""
    return round_number * 12345


def official_split(
    keys_in_index_order: Sequence[Key], *, train_fraction: float, seed: int
) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """Split keys as the official implementation does; both parts come in shuffled order.

    Args:
        keys_in_index_order: what the official index numbers 0…n−1 stand for (references for
            synthetic databases, images for authentic ones).
        train_fraction: 0.8 in the official protocol.
        seed: `official_seed(round)` in the official protocol.

    Returns:
        (training keys, test keys).

    Raises:
        GlpiError: a fraction outside (0, 1), or too few keys to fill both parts.
    """
    if not 0 < train_fraction < 1:
        raise GlpiError(f"train fraction {train_fraction}: must lie between 0 and 1")
    order = list(range(len(keys_in_index_order)))
    random.Random(seed).shuffle(order)
    count = round(train_fraction * len(order))
    if not 0 < count < len(order):
        raise GlpiError(
            f"{len(order)} references are too few to split {train_fraction:g} for training:"
            f" one part would be empty"
        )
    shuffled = [keys_in_index_order[index] for index in order]
    return tuple(shuffled[:count]), tuple(shuffled[count:])


def official_database_split(database: Database, *, train_fraction: float, seed: int) -> Split:
    """The official split by reference: no validation part.

    Rows follow the shuffled order of their references, then the database's.
    """
    train, test = official_split(database.reference_order, train_fraction=train_fraction, seed=seed)
    return _split_by_reference(database, train, (), test)


def strict_split(
    database: Database, *, train_fraction: float, validation_fraction: float, seed: int
) -> Split:
    """The official test part, and a validation part cut from the training references.

    Args:
        database: what to split.
        train_fraction: share of the references outside the test part.
        validation_fraction: share of THOSE that goes to validation, at least one reference.
        seed: the split's seed; the cut for validation is a further shuffle derived from it.

    Raises:
        GlpiError: too few references for three parts, or a fraction outside (0, 1).
    """
    if not 0 < validation_fraction < 1:
        raise GlpiError(f"validation fraction {validation_fraction}: must lie between 0 and 1")
    outside_test, test = official_split(
        database.reference_order, train_fraction=train_fraction, seed=seed
    )
    shuffled = list(outside_test)
    random.Random(f"validation part of split {seed}").shuffle(shuffled)
    count = max(1, round(validation_fraction * len(shuffled)))
    if count >= len(shuffled):
        raise GlpiError(
            f"{database.name}: {len(database.reference_order)} references are too few to split into"
            " training, validation and test parts"
        )
    return _split_by_reference(database, shuffled[count:], shuffled[:count], test)


def whole_split(database: Database, *, validation_fraction: float | None, seed: int) -> Split:
    """All of a database to train on, for tests on other databases.

    Args:
        database: what to split.
        validation_fraction: share of the references that goes to validation, at least one of them;
            None for no validation part.
        seed: the split's seed.

    Raises:
        GlpiError: too few references, or a fraction outside (0, 1).
    """
    order = database.reference_order
    if validation_fraction is None:
        return _split_by_reference(database, order, (), ())
    train, validation = official_split(order, train_fraction=1 - validation_fraction, seed=seed)
    return _split_by_reference(database, train, validation, ())


def published_split(database: Database, name: str) -> Split:
    """A split that came with the database, such as KonIQ-10k's "official"; rows in its order.

    Images that it gives no part belong to none.

    Raises:
        GlpiError: the database has no such split, or it has no training or test part.
    """
    if name not in database.published_splits:
        known = ", ".join(database.published_splits) or "none: is its split file in the folder?"
        raise GlpiError(f"{database.name} has no published split {name!r} (known: {known})")
    parts = database.published_splits[name]
    rows = {part: tuple(row for row, own in enumerate(parts) if own == part) for part in PARTS}
    if not rows["test"]:
        raise GlpiError(f"{database.name}: the published split {name!r} has no test part")
    return check_split(database, Split(rows["train"], rows["validation"], rows["test"]))


def split_references(database: Database, rows: Sequence[int]) -> tuple[str, ...]:
    """The distinct references of some rows, sorted."""
    references = item_references(database)
    return tuple(sorted({references[item] for item in items_of(rows)}))


def split_sha256(database: Database, split: Split) -> str:
    """A hexadecimal digest of which image is in which part, whatever the order of rows.

    Of a database of photographs, which photograph.
    """
    parts = {part: sorted(names) for part, names in _names_by_part(database, split).items()}
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_split(path: str | os.PathLike[str], database: Database, split: Split) -> None:
    """Write a split as JSON, by file name; an existing file is replaced in one step.

    Photographs stand for all their images. Fingerprints are written if the split has any.
    """
    content: dict[str, Any] = {
        "format": _FORMAT,
        "database": database.name,
        "sha256": split_sha256(database, split),
        **_names_by_part(database, split),
    }
    if split.fingerprints:
        content["fingerprints"] = dict(split.fingerprints)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(path), content)


def read_split(path: str | os.PathLike[str], database: Database) -> Split:
    """Read a split back as rows of a database, whose rows may come in another order.

    Images of the database that the file does not name belong to no part.

    Raises:
        GlpiError: not a split file, edited since it was written, or it names images that the
            database does not have.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GlpiError(f"{path}: no such split file") from None
    except (OSError, ValueError) as error:
        raise GlpiError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise GlpiError(f"{path}: not a split file of format {_FORMAT}")
    item_of = {name: item for item, name in enumerate(item_names(database))}
    rows: dict[str, Sequence[int]] = {}
    for part in PARTS:
        names = content.get(part)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise GlpiError(f"{path}: {part!r} must be a list of image names")
        unknown = [name for name in names if name not in item_of]
        if unknown:
            raise GlpiError(
                f"{path}: {len(unknown)} images of {part!r} are not in {database.name}"
                f" ({', '.join(unknown[:3])}); was the split made for another database?"
            )
        rows[part] = rows_of(database, [item_of[name] for name in names])
    fingerprints = content.get("fingerprints", {})
    if not isinstance(fingerprints, dict) or not all(
        isinstance(value, str) for value in fingerprints.values()
    ):
        raise GlpiError(f"{path}: 'fingerprints' must map image names to texts")
    split = check_split(database, Split(**rows, fingerprints=fingerprints))
    if split_sha256(database, split) != content.get("sha256"):
        raise GlpiError(f"{path}: the names do not match the file's sha256; it was edited")
    return split


def trained_references(path: str | os.PathLike[str], database: Database) -> frozenset[str]:
    """The references of a database whose images a split file lists for training.

    Returns:
        None of them, too, if the file is of another database, missing or no split file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names = set(content["train"]) if content["database"] == database.name else set()
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    items = zip(item_names(database), item_references(database), strict=True)
    return frozenset(reference for name, reference in items if name in names)


def _split_by_reference(database: Database, *parts: Sequence[str]) -> Split:
    """Split by the references of the training, the validation and the test part."""
    of_reference: dict[str, list[int]] = {}
    for item, reference in enumerate(item_references(database)):
        of_reference.setdefault(reference, []).append(item)
    train, validation, test = (
        rows_of(database, [item for reference in part for item in of_reference[reference]])
        for part in parts
    )
    return check_split(database, Split(train, validation, test))


def check_split(database: Database, split: Split) -> Split:
    """Return the split if it keeps its promises: no row twice, no reference in two parts.

    Nor is a fingerprint, if the split has them.

    Raises:
        GlpiError: it does not, nothing trains, or a database of photographs is not split by them.
    """
    references, names = item_references(database), item_names(database)
    part_of_reference: dict[str, str] = {}
    first_of_content: dict[str, tuple[str, str]] = {}
    for part in PARTS:
        rows = getattr(split, part)
        if database.photographs is not None and not isinstance(rows, PhotographRows):
            raise GlpiError(
                f"{database.name}: a database of photographs is split by photograph; take"
                " --config.split.kind=ratio or file"
            )
        items = items_of(rows)
        if len(set(items)) != len(items):
            raise GlpiError(f"{database.name}: the {part} part lists an image twice")
        if not items and part == "train":
            raise GlpiError(f"{database.name}: the {part} part is empty")
        for item in items:
            other = part_of_reference.setdefault(references[item], part)
            if other != part:
                raise GlpiError(
                    f"{database.name}: reference {references[item]!r} is in both the {other} and"
                    f" the {part} part; make the split again"
                )
            if names[item] in split.fingerprints:
                twin, other = first_of_content.setdefault(
                    split.fingerprints[names[item]], (names[item], part)
                )
                if other != part:
                    raise GlpiError(
                        f"{database.name}: {twin!r} and {names[item]!r} are identical, but in the"
                        f" {other} and the {part} part; make the split again"
                    )
    return split


def _names_by_part(database: Database, split: Split) -> dict[str, list[str]]:
    names = item_names(database)
    return {part: [names[item] for item in items_of(getattr(split, part))] for part in PARTS}
