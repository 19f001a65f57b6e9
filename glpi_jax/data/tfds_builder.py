"""A database as a TFDS dataset in ArrayRecord files, written without TensorFlow.

TFDS's usual `GeneratorBasedBuilder` collects the records before it writes them and, once they
exceed 1000 MiB, puts them into temporary files through TensorFlow; most databases are larger. So
this is a `ShardBasedBuilder`, which is given the shards' borders and writes each shard straight
through: no TensorFlow, no temporary copy, and the memory of one shard.

Needs the extra `datasets`.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from glpi_jax.data.sources import Database

SPLIT = "images"


def write_dataset(
    database: Database, shards: Sequence[range], folder: Path, *, advance: Callable[[], None]
) -> Path:
    """Write a database's images and labels as a TFDS dataset.

    Image files are copied as they are, not decoded; `shards` are the rows of each shard, in order
    and without a gap. `advance` is called after each image.

    Returns:
        The folder inside the empty folder `folder` that holds the dataset.
    """
    # What it shows is on stdout, and knows nothing of the number of images.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder = GlpiDatabase(database, shards, advance, folder)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return Path(builder.data_dir)


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Ask nobody: TFDS makes a temporary folder for the answer, which it leaves behind."""


class GlpiDatabase(tfds.core.ShardBasedBuilder):
    """The builder; TFDS calls what it makes `glpi_database`."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. TFDS would look for checksums beside this file, and for that import
    # importlib_resources, which it does not install (4.9.10).
    url_infos = None

    def __init__(
        self,
        database: Database,
        shards: Sequence[range],
        advance: Callable[[], None],
        folder: Path,
    ) -> None:
        """See `write_dataset`."""
        self._database, self._shards, self._advance = database, shards, advance
        super().__init__(data_dir=folder, file_format="array_record")

    def _info(self) -> Any:
        database = self._database
        direction = "higher" if database.higher_is_better else "lower"
        return _Info(
            builder=self,
            description=f"{database.name}: {database.label_note}; {direction} is better.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="the file as it was"),
                    "name": tfds.features.Text(doc="the file's name"),
                    "score": tfds.features.Scalar(
                        np.float32, doc=f"{database.score_name}, {direction} is better"
                    ),
                    "reference": tfds.features.Text(doc="id of the content that is shown"),
                    "distortion": tfds.features.Text(doc="empty where there is none"),
                    "level": tfds.features.Scalar(np.int64, doc="-1 where there is none"),
                }
            ),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        return {SPLIT: [lambda rows=rows: self._examples(rows) for rows in self._shards]}

    def _examples(self, rows: range) -> Iterator[tuple[int, dict[str, Any]]]:
        database = self._database
        for row in rows:
            level = database.levels[row]
            example = {
                "image": database.encoded(row),
                "name": database.images[row],
                "score": database.scores[row],
                "reference": database.references[row],
                "distortion": database.distortions[row] or "",
                "level": -1 if level is None else level,
            }
            yield row, example
            self._advance()
