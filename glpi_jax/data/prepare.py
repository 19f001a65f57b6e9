"""Write the prepared form of a database, from which images are read in any order from few files.

For file systems where many small files are slow, as on network disks and buckets. The images stay
encoded as they are. `load_database("prepared", FOLDER)` reads it; see `sources.prepared`.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import staging_folder, write_json
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.images import ImageError
from glpi_jax.data.sources import Database
from glpi_jax.data.sources.prepared import PREPARED_FILE, Shard, prepared_table

# A shard is held in memory while it is written.
SHARD_BYTES = 256 * 1024**2


def prepare_database(database: Database, out: str | os.PathLike[str], *, progress: bool) -> Path:
    """Copy a database into ArrayRecord shards and a table.

    It is made in a hidden folder beside `out` and renamed when it is complete; what an earlier call
    has left that was killed is removed.

    Args:
        database: from `load_database`, with images in files.
        out: the folder to make.
        progress: show progress on stderr.

    Returns:
        `out`, to be read with `load_database("prepared", out)`: the same table, the same images.

    Raises:
        GlpiError: tensorflow-datasets is not installed, `out` exists, the database is prepared
            already or one of photographs, an image cannot be read, or `out` cannot be written.
    """
    folder = Path(out)
    if database.records is not None:
        raise GlpiError(f"{database.root}: is prepared already; a copy of the folder does as well")
    if database.photographs is not None:
        raise GlpiError(
            f"{database.root}: a {database.name} database holds photographs, not images that could"
            " be copied; render them first (glpi saqt render)"
        )
    if os.path.lexists(folder):
        raise GlpiError(f"{folder}: exists already; name a folder that is still to be made")
    try:
        from glpi_jax.data.tfds_builder import write_dataset
    except ModuleNotFoundError as error:
        raise GlpiError(
            f"preparing a database needs {error.name}: pip install 'glpi_jax[datasets]'"
        ) from error
    sizes = [_file_size(database.path(row)) for row in range(len(database))]
    shards = _shard_rows(sizes)
    try:
        with staging_folder(folder) as staging:
            free = shutil.disk_usage(staging).free
            if sum(sizes) > free:
                raise GlpiError(
                    f"{folder}: {sum(sizes) / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
                )
            what = f"prepare {database.name}"
            with progress_bar(len(sizes), unit="image", description=what, enabled=progress) as bar:
                made = write_dataset(database, shards, staging, advance=bar.advance)
            files = zip(sorted(made.glob("*.array_record-*")), shards, strict=True)
            written = [Shard(path.name, len(rows), path.stat().st_size) for path, rows in files]
            # Last: what has no table is not taken for a prepared database.
            write_json(made / PREPARED_FILE, prepared_table(database, written, sizes))
            os.rename(made, folder)
    except (OSError, RuntimeError) as error:  # array_record raises the latter
        cause = getattr(error, "strerror", None) or error
        raise GlpiError(f"{folder}: cannot be written ({cause})") from error
    return folder


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def _shard_rows(sizes: Sequence[int]) -> list[range]:
    """Cut the rows into runs of at most `SHARD_BYTES`, or of one image that is larger."""
    shards, start, held = [], 0, 0
    for row, size in enumerate(sizes):
        if row > start and held + size > SHARD_BYTES:
            shards.append(range(start, row))
            start, held = row, 0
        held += size
    return [*shards, range(start, len(sizes))]
