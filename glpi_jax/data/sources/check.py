"""A database looked at closely: every image decoded, counts and scores compared with the facts."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.images import ImageError, decode_image
from glpi_jax.data.sources.database import Database
from glpi_jax.data.sources.photographs import VARIANTS
from glpi_jax.data.sources.readers import READERS, StrPath, open_source

# Of the range's length: published ranges are rounded, some to whole numbers.
_RANGE_TOLERANCE = 0.01


@dataclass(frozen=True)
class CheckReport:
    """What `check_database` found.

    Attributes:
        name: the database's name.
        root: its folder.
        facts: (what, value) pairs to print, in order.
        problems: what is wrong, one line each; empty for a whole database.
    """

    name: str
    root: Path
    facts: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def check_database(
    kind: str, root: StrPath, labels: StrPath | None = None, *, threads: int, progress: bool
) -> CheckReport:
    """Read a database and decode every labelled image.

    Problems are: rows of the label file that cannot be used, images that cannot be decoded in full,
    and, for published databases, other counts or another range of scores than published.

    Args:
        kind, root, labels: as for `load_database`.
        threads: images decoded at a time, at least 1.
        progress: show progress on stderr.

    Raises:
        GlpiError: fewer threads than 1, or what `load_database` raises for the database as a whole:
            unknown kind, wrong folder, missing or unreadable label file, no row that can be used.
    """
    if threads < 1:
        raise GlpiError(f"threads {threads}: must be at least 1")
    source = open_source(kind, root, labels, skip_bad=True)
    database = READERS[kind].read(source)
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable = []
    # Of a photograph's rows, which are all made from it, one will do.
    rows = range(0, len(database), 1 if database.photographs is None else VARIANTS)
    with (
        progress_bar(
            len(rows), unit="image", description=f"check {database.name}", enabled=progress
        ) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):
        # Ended early, map cancels what it has not begun.
        for result in pool.map(partial(_decode, database), rows):
            if isinstance(result, ImageError):
                unreadable.append(str(result))
            else:
                sizes[result] += 1
            bar.advance()
    facts, disagreements = _counts_and_scores(database)
    facts.append(("image sizes", _sizes(sizes)))
    for name, parts in database.published_splits.items():
        counts = Counter(parts)
        described = ", ".join(f"{counts[part]} {part or 'in no part'}" for part in counts)
        facts.append((f"split {name}", described))
    renamed = source.files.case_differences
    if renamed:
        asked, found = next(iter(renamed.items()))
        facts.append(
            ("names in another case", f"{len(renamed)} ({found} on disk for {asked}), all found")
        )
    return CheckReport(
        name=database.name,
        root=database.root,
        facts=tuple(facts),
        problems=(*database.left_out, *unreadable, *disagreements),
    )


def _decode(database: Database, row: int) -> tuple[int, int] | ImageError:
    """Return (width, height) or the error of a row's image."""
    path = database.path(row)
    try:
        data = database.encoded(row)
        height, width, _ = decode_image(data, str(path), apply_orientation=False).shape
    except ImageError as error:
        return error
    try:
        with Image.open(BytesIO(data)) as image:
            image.verify()  # what decoding does not look at, such as checksums
    except Exception as error:  # Pillow raises nearly anything on damaged files
        return ImageError(f"{path}: damaged image ({' '.join(str(error).split())})")
    return width, height


def _counts_and_scores(database: Database) -> tuple[list[tuple[str, str]], list[str]]:
    """Counts and scores, with the published ones, and how they differ from these."""
    counts = {"images": len(database), "references": len(database.reference_order)}
    lowest, highest = float(database.scores.min()), float(database.scores.max())
    direction = "higher" if database.higher_is_better else "lower"
    facts = {what: str(count) for what, count in counts.items()}
    facts["scores"] = f"{database.score_name} {lowest:g} to {highest:g}, {direction} is better"
    published = database.facts
    if published is None:
        return list(facts.items()), []
    low, high = published.score_range
    expected = {"images": published.images, "references": published.references}
    described = {**expected, "scores": f"{low:g} to {high:g}"}
    problems = [
        f"{counts[what]} {what}, but {database.name} has {expected[what]}"
        for what in counts
        if counts[what] != expected[what]
    ]
    tolerance = _RANGE_TOLERANCE * (high - low)
    outside = lowest < low - tolerance or highest > high + tolerance
    # Of a part of the images the extremes may be missing, of all of them they may not.
    short = not problems and (lowest > low + tolerance or highest < high - tolerance)
    if outside or short:
        problems.append(
            f"scores from {lowest:g} to {highest:g}, but {database.name}'s run from {low:g} to"
            f" {high:g}; is this the published label file?"
        )
    return [
        (what, f"{fact} (published: {described[what]})") for what, fact in facts.items()
    ], problems


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    """The size if there is one, else the smallest and the largest by area."""
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    if not by_area:
        return "none could be read"
    ends = [f"{width}×{height}" for width, height in dict.fromkeys((by_area[0], by_area[-1]))]
    return " to ".join(ends)
