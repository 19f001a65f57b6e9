"""The kinds of databases, by name."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.authentic import (
    read_agiqa3k,
    read_agiqa3k_alignment,
    read_bid,
    read_clive,
    read_flive,
    read_koniq10k,
    read_spaq,
)
from glpi_jax.data.sources.collect import DatabaseFolder
from glpi_jax.data.sources.database import Database
from glpi_jax.data.sources.file_index import FileIndex
from glpi_jax.data.sources.generic import read_csv_database, read_liqe, read_pyiqa
from glpi_jax.data.sources.prepared import PREPARED_FILE, read_prepared
from glpi_jax.data.sources.saqt_labels import read_saqt
from glpi_jax.data.sources.synthetic import (
    read_csiq,
    read_kadid10k,
    read_live,
    read_livemd,
    read_tid2013,
)


@dataclass(frozen=True)
class DatabaseKind:
    """How one kind of database is read.

    Attributes:
        read: the reader itself.
        layout: what the folder holds, for messages and lists.
        takes_labels: whether the label file is given by its path; otherwise its name is known.
        labels_in_folder: whether a folder of label files may be given instead.
    """

    read: Callable[[DatabaseFolder], Database]
    layout: str
    takes_labels: bool = False
    labels_in_folder: bool = False


READERS: dict[str, DatabaseKind] = {
    "csv": DatabaseKind(
        read_csv_database, "labels.csv (image, score, …) and the images named in it"
    ),
    "live": DatabaseKind(
        read_live, "jp2k/, jpeg/, wn/, gblur/, fastfading/, dmos_realigned.mat, refnames_all.mat"
    ),
    "csiq": DatabaseKind(
        read_csiq, "dst_imgs/ (or dst_imgs_all/, all_dis_imgs/), csiq.DMOS.xlsx or csiq_label.txt"
    ),
    "tid2013": DatabaseKind(read_tid2013, "distorted_images/, mos_with_names.txt"),
    "kadid10k": DatabaseKind(read_kadid10k, "images/, dmos.csv"),
    "livemd": DatabaseKind(
        read_livemd, "Part 1/blurjpeg/, Part 2/blurnoise/, Imagelists.mat and Scores.mat in each"
    ),
    "clive": DatabaseKind(
        read_clive, "Images/, Data/AllImages_release.mat, AllMOS_release.mat, AllStdDev_release.mat"
    ),
    "koniq10k": DatabaseKind(
        read_koniq10k, "512x384/ or 1024x768/, koniq10k_scores_and_distributions.csv"
    ),
    "bid": DatabaseKind(
        read_bid, "ImageDatabase/ (or its images themselves), DatabaseGrades.xlsx or .xls"
    ),
    "spaq": DatabaseKind(read_spaq, "TestImage/, Annotations/MOS and Image attribute scores.xlsx"),
    "flive": DatabaseKind(
        read_flive, "database/ (voc_emotic_ava/, blur_dataset/, EE371R/), labels_image.csv"
    ),
    "agiqa3k": DatabaseKind(read_agiqa3k, "data.csv, and the images beside it or in one folder"),
    "agiqa3k_alignment": DatabaseKind(
        read_agiqa3k_alignment, "data.csv, and the images beside it or in one folder"
    ),
    "pyiqa": DatabaseKind(read_pyiqa, "the images named in the meta table", takes_labels=True),
    "liqe": DatabaseKind(read_liqe, "the images named in the list", takes_labels=True),
    "saqt": DatabaseKind(
        read_saqt,
        "the photographs, which are distorted as they are read",
        takes_labels=True,
        labels_in_folder=True,
    ),
    "prepared": DatabaseKind(
        read_prepared,
        f"{PREPARED_FILE} and *.array_record files, as `glpi data prepare` wrote them",
    ),
}


def load_database(
    kind: str,
    root: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    skip_bad: bool = False,
) -> Database:
    """Read a database's labels and check that every labelled image is there (none is opened).

    Args:
        kind: a key of `READERS`.
        root: the database's folder, as distributed; for pyiqa, liqe and saqt, the folder that the
            names in the label file are relative to.
        labels: the label file of pyiqa and liqe, the label table of saqt or a folder of them; no
            other kind takes any.
        skip_bad: leave out rows that cannot be used (no image, labelled twice, a score that is no
            finite number, …) and list them in `Database.left_out`.

    Raises:
        GlpiError: unknown kind, missing folder, missing or malformed label file, and, unless they
            are skipped, the first row that cannot be used.
    """
    source = open_source(kind, root, labels, skip_bad=skip_bad)
    return READERS[kind].read(source)


def open_source(
    kind: str,
    root: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None,
    *,
    skip_bad: bool,
) -> DatabaseFolder:
    """Check the arguments of `load_database` and bundle them for a reader."""
    if kind not in READERS:
        raise GlpiError(f"unknown database kind {kind!r}: must be one of {', '.join(READERS)}")
    reader, folder = READERS[kind], Path(root)
    if not folder.is_dir():
        raise GlpiError(f"{folder}: no such folder; give the root folder of the {kind} database")
    if labels is None and reader.takes_labels:
        raise GlpiError(f"a {kind} database needs the path of its label file as labels")
    if labels is not None and not reader.takes_labels:
        raise GlpiError(
            f"{labels}: a {kind} database takes no label file, it has its own: {reader.layout}"
        )
    if labels is not None and not (
        Path(labels).is_file() or (reader.labels_in_folder and Path(labels).is_dir())
    ):
        raise GlpiError(f"{labels}: the label file is missing")
    return DatabaseFolder(
        kind=kind,
        root=folder,
        files=FileIndex(folder),
        layout=reader.layout,
        labels=None if labels is None else Path(labels),
        skip_bad=skip_bad,
    )
