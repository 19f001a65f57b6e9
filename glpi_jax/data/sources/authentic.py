"""Databases of images that each stand alone: CLIVE, KonIQ-10k, BID, SPAQ, FLIVE, AGIQA-3K.

Every image is its own reference. An official index number is a place in the label file, as in the
authors' loaders (SYSU-Video/GlintIQA, glintiqa/data/datasets.py).
"""

from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources.collect import DatabaseFolder, DatabaseKind, Label, Labels, collect
from glpi_jax.data.sources.database import Database, Facts, PartName
from glpi_jax.data.sources.table_files import Row, read_csv, read_mat, read_sheet

# Shown to the raters of CLIVE for practice, and first in its arrays.
_CLIVE_TRAINING_IMAGES = 7

_KONIQ_PARTS: dict[str, PartName] = {
    "training": "train",
    "validation": "validation",
    "test": "test",
}


# AGIQA-3K: kind → end of the columns' names, what the score is of, the published range.
_AGIQA_SCORES = {
    "agiqa3k": ("quality", "quality", (0.0, 4.49)),
    "agiqa3k_alignment": ("align", "alignment", (0.02, 4.29)),
}


def read_clive(source: DatabaseFolder) -> Database:
    """CLIVE (LIVE in the Wild): `Images/`, `Data/AllImages_release.mat` and its like.

    The first seven entries, which only trained the raters, are dropped.
    """
    scores = source.label_file("Data/AllMOS_release.mat")
    names = source.label_file("Data/AllImages_release.mat")
    columns = {"mos": (scores, "AllMOS_release"), "name": (names, "AllImages_release")}
    deviations = source.optional_file("Data/AllStdDev_release.mat")
    if deviations is not None:
        columns["std"] = (deviations, "AllStdDev_release")
    table = read_mat(columns)
    for row in table.rows[:_CLIVE_TRAINING_IMAGES]:
        if not row.text("name").startswith("t"):
            raise GlpiError(
                f"{names} entry {row.number}: the first seven images should be those that trained"
                f" the raters (t1.bmp …), not {row.text('name')!r}; use the file as published"
            )
    table.rows = table.rows[_CLIVE_TRAINING_IMAGES:]

    def parse(row: Row) -> Label:
        name = row.image_name("name")
        return Label((f"Images/{name}",), row.number_of("mos"), sd=row.optional_number_of("std"))

    return collect(source, table, parse).standing_alone(
        label_note="CLIVE's MOS (0 to 100, higher is better)",
        facts=Facts(images=1162, references=1162, score_range=(3.42, 92.43)),
    )


def read_koniq10k(source: DatabaseFolder) -> Database:
    """KonIQ-10k: `512x384/`, or else `1024x768/`; `koniq10k_scores_and_distributions.csv`.

    The score is `MOS_zscore`, on which the official code trains. The column SD is on the scale of
    `MOS` (1 to 5), so it is not taken. Where both sizes are there the smaller is read, as in the
    official code; for the larger, give a root without `512x384/`.

    The published split, if `koniq10k_distributions_sets.csv` is there: its column `set`.
    """
    path = source.label_file("koniq10k_scores_and_distributions.csv")
    table = read_csv(path, ("image_name", "MOS_zscore"))
    # Never a mixture of the two: a row whose image is in the other size alone is missing.
    size = "512x384" if source.files.has_folder("512x384") else "1024x768"

    def parse(row: Row) -> Label:
        return Label((f"{size}/{row.image_name('image_name')}",), row.number_of("MOS_zscore"))

    labels = collect(source, table, parse)
    return labels.standing_alone(
        label_note=f"KonIQ-10k's MOS_zscore (0 to 100, higher is better); images of {size}",
        facts=Facts(images=10073, references=10073, score_range=(3.91, 88.39)),
        official_parts=_koniq_parts(source, labels),
    )


def _koniq_parts(source: DatabaseFolder, labels: Labels) -> tuple[PartName, ...] | None:
    path = source.optional_file("koniq10k_distributions_sets.csv")
    if path is None:
        return None
    rows = read_csv(path, ("image_name", "set")).rows
    parts = {row.text("image_name"): row.choice("set", _KONIQ_PARTS) for row in rows}
    names = [row.text("image_name") for row in labels.rows.values()]
    without = [name for name in names if name not in parts]
    if without:
        raise GlpiError(
            f"{path}: {len(without)} labelled images are in no set ({without[0]}, …); use the"
            " file as published, or take it away"
        )
    return tuple(parts[name] for name in names)


def read_bid(source: DatabaseFolder) -> Database:
    """BID: `DatabaseGrades.xlsx` or `.xls`, images in `ImageDatabase/` or beside it.

    The sheet's first column is the number in `DatabaseImage0001.JPG`, the second the MOS.
    """
    path = source.label_file("DatabaseGrades.xlsx", "DatabaseGrades.xls")
    table = read_sheet(path, ("number", "mos"), has_header=False)
    # The first row may be a header of other names.
    table.rows = [row for row in table.rows if row.number > 1 or row.text("number").isdecimal()]

    def parse(row: Row) -> Label:
        name = f"DatabaseImage{row.whole_number_of('number'):04d}.JPG"
        return Label((f"ImageDatabase/{name}", name), row.number_of("mos"))

    return collect(source, table, parse).standing_alone(
        label_note="BID's MOS (0 to 5, higher is better)",
        facts=Facts(images=586, references=586, score_range=(0.16, 4.92)),
    )


def read_spaq(source: DatabaseFolder) -> Database:
    """SPAQ: `TestImage/00001.jpg`, `Annotations/MOS and Image attribute scores.xlsx`."""
    name = "MOS and Image attribute scores.xlsx"
    table = read_sheet(source.label_file(f"Annotations/{name}", name), ("Image name", "MOS"))

    def parse(row: Row) -> Label:
        return Label((f"TestImage/{row.image_name('Image name')}",), row.number_of("MOS"))

    return collect(source, table, parse).standing_alone(
        label_note="SPAQ's MOS (0 to 100, higher is better)",
        facts=Facts(images=11125, references=11125, score_range=(2.0, 96.0)),
    )


def read_flive(source: DatabaseFolder) -> Database:
    """FLIVE (PaQ-2-PiQ): `labels_image.csv` (name, mos) and images such as `EE371R/rq59.jpg`.

    Images are in `database/` or in the root, the label files in either. The published split, if
    both of its files are there: `labels640.csv` lists the test part, `labels=640_padded.csv` marks
    the validation part (`is_valid`), and all others train. Names in them without a label here, such
    as those of patches, are passed over.
    """
    path = source.label_file("labels_image.csv", "database/labels_image.csv")
    table = read_csv(path, ("name", "mos"))

    def parse(row: Row) -> Label:
        name = row.image_name("name")
        return Label((f"database/{name}", name), row.number_of("mos"))

    labels = collect(source, table, parse)
    return labels.standing_alone(
        label_note="FLIVE's MOS of whole images (0 to 100, higher is better)",
        facts=Facts(images=39810, references=39810, score_range=(0.0, 94.33)),
        official_parts=_flive_parts(path.parent, labels),
    )


def _flive_parts(folder: Path, labels: Labels) -> tuple[PartName, ...] | None:
    test, padded = folder / "labels640.csv", folder / "labels=640_padded.csv"
    if not (test.is_file() and padded.is_file()):
        return None
    test_rows = read_csv(test, ("name_image",)).rows
    parts: dict[str, PartName] = {}
    for row in read_csv(padded, ("name_image", "is_valid")).rows:
        answer = row.text("is_valid").lower()
        if answer not in ("true", "false"):
            raise row.bad(f"is_valid {answer!r} is neither True nor False")
        if answer == "true":
            parts[row.text("name_image")] = "validation"
    # Last, since an image in both lists is a test image.
    parts |= {row.text("name_image"): "test" for row in test_rows}
    return tuple(parts.get(row.text("name"), "train") for row in labels.rows.values())


def read_agiqa3k(source: DatabaseFolder) -> Database:
    """AGIQA-3K: `data.csv`, and generated images beside it or in one folder of any name.

    The score is `mos_quality`, the deviation `std_quality`; of the kind agiqa3k_alignment, how an
    image fits its prompt, `mos_align` and `std_align`.
    """
    column, meaning, score_range = _AGIQA_SCORES[source.kind]
    table = read_csv(source.label_file("data.csv"), ("name", f"mos_{column}"))
    # Copies name the folder of the images differently.
    names = [row.text("name") for row in table.rows if len(row.cells) == len(table.columns)]
    folders = source.files.folders_with(names)
    if len(folders) > 1:
        places = " and ".join(str(source.root / folder) for folder in folders)
        raise GlpiError(
            f"{table.path}: its images are in {places}; keep one copy of them below {source.root}"
        )
    place = f"{folders[0]}/" if folders and folders[0] else ""

    def parse(row: Row) -> Label:
        return Label(
            (place + row.image_name("name"),),
            row.number_of(f"mos_{column}"),
            sd=row.optional_number_of(f"std_{column}"),
        )

    return collect(source, table, parse).standing_alone(
        label_note=f"AGIQA-3K's MOS of {meaning} (0 to 5, higher is better)",
        facts=Facts(images=2982, references=2982, score_range=score_range),
    )


KINDS = {
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
    **dict.fromkeys(
        _AGIQA_SCORES,
        DatabaseKind(read_agiqa3k, "data.csv, and the images beside it or in one folder"),
    ),
}
