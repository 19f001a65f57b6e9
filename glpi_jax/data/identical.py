"""Images whose files are identical, and splits that keep them in one part.

Published databases hold some: two photographs of CLIVE, nineteen images of AGIQA-3K. A split by
image may train on one and test on the other.
"""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database
from glpi_jax.data.sources.photographs import VARIANTS
from glpi_jax.data.splits import (
    PARTS,
    Split,
    check_split,
    item_names,
    item_references,
    items_of,
    rows_of,
)


class Identical(NamedTuple):
    """Images with the same content.

    Attributes:
        images: their names, in the order of the database.
        part: the part that holds them.
        left_out: those of `images` that are in no part.
    """

    images: tuple[str, ...]
    part: str
    left_out: tuple[str, ...]


def fingerprints(database: Database, *, threads: int) -> dict[str, str]:
    """Return a fingerprint of each image file; equal files have equal ones, others do not.

    Images that share a reference with others are skipped, since a split keeps those in one part
    anyway. Only files whose size another file has are read.

    Args:
        database: what is split; of a database of photographs, the photographs are compared.
        threads: number of files read at a time, at least 1.

    Returns:
        Name → size in bytes, with "-" and the SHA-256 behind it where several files have that size.

    Raises:
        ImageError: a file cannot be read.
    """
    references = item_references(database)
    count = Counter(references)
    alone = [item for item, reference in enumerate(references) if count[reference] == 1]

    # The first of an item's rows reads the same file as the others.
    rows_each = 1 if database.photographs is None else VARIANTS

    def size(item: int) -> int:
        return database.encoded_size(rows_each * item)

    def digest(item: int) -> str:
        return hashlib.sha256(database.encoded(rows_each * item)).hexdigest()

    with ThreadPoolExecutor(threads) as pool:
        sizes = dict(zip(alone, pool.map(size, alone), strict=True))
        files = Counter(sizes.values())
        shared = [item for item in alone if files[sizes[item]] > 1]
        digests = dict(zip(shared, pool.map(digest, shared), strict=True))
    names = item_names(database)
    return {
        names[item]: f"{sizes[item]}-{digests[item]}" if item in digests else f"{sizes[item]}"
        for item in alone
    }


def keep_together(database: Database, split: Split, *, threads: int, move: bool) -> Split:
    """Return the split with identical images in one part: test, else validation, else train.

    Args:
        database: what is split.
        split: of the database.
        threads: number of files read at a time, at least 1.
        move: move the other images of a group to that part; False leaves them out, so that a split
            that somebody else made gets no further test image.

    Returns:
        The same rows in the same order if no identical images are in different parts; else moved
        images are the last of their new part. `fingerprints` is filled.

    Raises:
        GlpiError: no image is left for training or validation, or a file cannot be read.
    """
    found = fingerprints(database, threads=threads)
    names = item_names(database)
    before = {part: list(items_of(getattr(split, part))) for part in PARTS}
    # Of the parts of a group the last one counts.
    part_of = {found.get(names[item]): part for part in PARTS for item in before[part]}
    part_of.pop(None, None)
    after: dict[str, list[int]] = {part: [] for part in PARTS}
    moved: list[tuple[str, int]] = []
    for part in PARTS:
        for item in before[part]:
            target = part_of.get(found.get(names[item]), part)
            if target == part:
                after[part].append(item)
            elif move:
                moved.append((target, item))
    for target, item in moved:
        after[target].append(item)
    for part in PARTS:
        if before[part] and not after[part]:
            raise GlpiError(
                f"{database.name}: every image of the {part} part is identical to one of another"
                " part; remove the copies from the database, or choose another config.split"
            )
    parts = {part: rows_of(database, after[part]) for part in PARTS} if after != before else {}
    return check_split(database, replace(split, **parts, fingerprints=found))


def identical_images(database: Database, split: Split) -> tuple[Identical, ...]:
    """Return the groups of identical images, by fingerprint, of which a split has one in a part."""
    names = item_names(database)
    part_of = {names[item]: part for part in PARTS for item in items_of(getattr(split, part))}
    groups: dict[str, list[str]] = {}
    for name, fingerprint in split.fingerprints.items():
        groups.setdefault(fingerprint, []).append(name)
    found = []
    for images in groups.values():
        parts = [part_of[image] for image in images if image in part_of]
        if len(images) > 1 and parts:
            left_out = tuple(image for image in images if image not in part_of)
            found.append(Identical(tuple(images), parts[0], left_out))
    return tuple(found)
