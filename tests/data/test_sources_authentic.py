"""CLIVE, KonIQ-10k, BID, SPAQ, FLIVE and AGIQA-3K in their published layouts."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from miniatures import build_miniature, cell_array, read_sample, write_csv, write_xls, write_xlsx

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database, load_database


def read(kind: str, root: Path, references: int, variant: str | None = None) -> Database:
    root = build_miniature(kind, root, references=references, variant=variant, draw=False)
    return load_database(kind, root)


@pytest.mark.parametrize(
    "kind", ["clive", "koniq10k", "bid", "spaq", "flive", "agiqa3k", "agiqa3k_alignment"]
)
def test_every_image_stands_alone_in_the_order_of_the_label_file(tmp_path: Path, kind: str) -> None:
    database = read(kind, tmp_path / kind, 30)
    assert len(database) == 30
    assert database.references == database.images
    assert database.reference_order == database.images
    assert (database.name, database.score_name, database.higher_is_better) == (kind, "MOS", True)
    assert set(database.distortions) == set(database.levels) == {None}
    assert database.facts is not None
    assert database.facts.images == database.facts.references


def test_clive(tmp_path: Path) -> None:
    database = read("clive", tmp_path / "clive", 1162)
    published = read_sample("clive")
    assert database.images == tuple(row["image"] for row in published)
    assert database.scores.tolist() == [float(row["score"]) for row in published]
    assert database.label_sd is not None
    assert database.label_sd.tolist() == [float(row["std"]) for row in published]
    assert Counter(Path(image).suffix for image in database.images) == {".JPG": 627, ".bmp": 535}


def test_clive_drops_the_seven_training_images(tmp_path: Path) -> None:
    root = build_miniature("clive", tmp_path / "clive", references=3, draw=False)
    names = scipy.io.loadmat(root / "Data/AllImages_release.mat")["AllImages_release"]
    assert names.shape == (10, 1)
    database = load_database("clive", root)
    assert database.images == ("Images/10.bmp", "Images/100.bmp", "Images/1000.JPG")
    assert database.scores[0] == 82.910714


def test_clive_whose_training_images_are_gone_already(tmp_path: Path) -> None:
    root = build_miniature("clive", tmp_path / "clive", references=3, draw=False)
    for name in ("AllImages_release", "AllMOS_release", "AllStdDev_release"):
        whole = scipy.io.loadmat(root / f"Data/{name}.mat")[name]
        cut = whole[7:] if whole.shape[1] == 1 else whole[:, 7:]
        scipy.io.savemat(root / f"Data/{name}.mat", {name: cut})
    with pytest.raises(
        GlpiError, match=r"AllImages_release\.mat entry 1: the first seven.*'10\.bmp'"
    ):
        load_database("clive", root)


def test_clive_without_deviations(tmp_path: Path) -> None:
    root = build_miniature("clive", tmp_path / "clive", references=3, draw=False)
    (root / "Data/AllStdDev_release.mat").unlink()
    assert load_database("clive", root).label_sd is None


def test_clive_with_files_of_different_lengths(tmp_path: Path) -> None:
    root = build_miniature("clive", tmp_path / "clive", references=3, draw=False)
    names = cell_array(["t1.bmp"], column=True)
    scipy.io.savemat(root / "Data/AllImages_release.mat", {"AllImages_release": names})
    with pytest.raises(GlpiError, match=r"lengths \(10 in AllMOS_release\.mat, 1 in AllImages_rel"):
        load_database("clive", root)


def test_koniq10k(tmp_path: Path) -> None:
    database = read("koniq10k", tmp_path / "koniq", 500)
    published = read_sample("koniq10k")
    assert database.images == tuple(
        f"512x384/{row['image'].removeprefix('1024x768/')}" for row in published
    )
    # The column MOS_zscore, not MOS (3.83 for the first image).
    assert database.scores[0] == pytest.approx(25 * (3.828571 - 1))
    assert database.label_sd is None
    assert "MOS_zscore" in database.label_note


@pytest.mark.parametrize(("variant", "size"), [("1024x768", "1024x768"), ("both", "512x384")])
def test_koniq10k_sizes(tmp_path: Path, variant: str, size: str) -> None:
    database = read("koniq10k", tmp_path / "koniq", 3, variant)
    assert {image.split("/")[0] for image in database.images} == {size}
    assert size in database.label_note


def test_koniq10k_never_mixes_sizes(tmp_path: Path) -> None:
    root = build_miniature("koniq10k", tmp_path / "koniq", references=3, variant="both", draw=False)
    (root / "512x384/10004473376.jpg").unlink()
    with pytest.raises(GlpiError, match=r"1 of 3 labelled images.*: 512x384/10004473376\.jpg"):
        load_database("koniq10k", root)


def test_koniq10k_published_split_goes_by_name(tmp_path: Path) -> None:
    root = build_miniature("koniq10k", tmp_path / "koniq", references=10, draw=False)
    # The miniature's sets file is in another order than its labels.
    assert load_database("koniq10k", root).published_splits.get("official") == (
        *["train"] * 7, "validation", "test", "test",
    )  # fmt: skip
    (root / "koniq10k_distributions_sets.csv").unlink()
    assert load_database("koniq10k", root).published_splits.get("official") is None


def test_koniq10k_bad_sets(tmp_path: Path) -> None:
    root = build_miniature("koniq10k", tmp_path / "koniq", references=2, draw=False)
    sets = root / "koniq10k_distributions_sets.csv"
    write_csv(sets, ("image_name", "set"), [("10004473376.jpg", "training")])
    with pytest.raises(GlpiError, match=r"1 labelled images are in no set \(10007357496\.jpg"):
        load_database("koniq10k", root)
    write_csv(sets, ("image_name", "set"), [("10004473376.jpg", "dev")])
    with pytest.raises(GlpiError, match=r"line 2: set 'dev' is none of training, validation, test"):
        load_database("koniq10k", root)
    write_csv(sets, ("image_name",), [("10004473376.jpg",)])
    with pytest.raises(
        GlpiError, match=r"sets\.csv: column 'set' is missing \(columns found: image"
    ):
        load_database("koniq10k", root)


@pytest.mark.parametrize(
    ("variant", "place"), [(None, "ImageDatabase/"), ("xls", "ImageDatabase/"), ("root", "")]
)
def test_bid(tmp_path: Path, variant: str | None, place: str) -> None:
    database = read("bid", tmp_path / "bid", 586, variant)
    published = read_sample("bid")
    # Numbers have gaps (no 2): the number tells the image, not the row.
    assert database.images[:2] == (
        f"{place}DatabaseImage0001.JPG", f"{place}DatabaseImage0003.JPG",
    )  # fmt: skip
    assert [Path(image).name for image in database.images] == [
        Path(row["image"]).name for row in published
    ]
    assert database.scores.tolist() == [float(row["score"]) for row in published]


@pytest.mark.parametrize("suffix", ["xls", "xlsx"])
def test_bid_workbook_under_the_other_name_and_without_header(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "DatabaseImage0007.JPG").touch()
    rows = [(7, 2.5, "", 3)]
    if suffix == "xls":
        write_xlsx(tmp_path / "DatabaseGrades.xls", {"Sheet1": rows})
    else:
        write_xls(tmp_path / "DatabaseGrades.xlsx", rows)
    database = load_database("bid", tmp_path)
    assert (database.images, database.scores.tolist()) == (("DatabaseImage0007.JPG",), [2.5])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((7.5, 2.5), r"xls row 2: number '7\.5' is not a whole number"),
        ((7, "n/a"), r"xls row 2: mos 'n/a' is not a finite number"),
        ((7, None), r"xls row 2: mos '' is not a finite number"),
        ((7, True), r"xls row 2: mos 'bool:1' is not a finite number"),
    ],
)
def test_bid_bad_rows(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    (tmp_path / "DatabaseImage0007.JPG").touch()
    write_xls(tmp_path / "DatabaseGrades.xls", [("Number", "Grade"), row])
    with pytest.raises(GlpiError, match=message):
        load_database("bid", tmp_path)


def test_spaq(tmp_path: Path) -> None:
    database = read("spaq", tmp_path / "spaq", 31)
    assert database.images[:2] == ("TestImage/00001.jpg", "TestImage/00002.jpg")
    assert database.scores[0] == pytest.approx(2 + 94 * 7 / 30)
    assert (database.scores.min(), database.scores.max()) == (2, 96)


def test_spaq_with_annotations_in_the_root(tmp_path: Path) -> None:
    root = build_miniature("spaq", tmp_path / "spaq", references=2, draw=False)
    name = "MOS and Image attribute scores.xlsx"
    (root / "Annotations" / name).rename(root / name)
    assert len(load_database("spaq", root)) == 2
    (root / name).unlink()
    with pytest.raises(GlpiError, match=r"Annotations/MOS and .*\.xlsx: the label file is missing"):
        load_database("spaq", root)


@pytest.mark.parametrize(("variant", "place"), [(None, "database/"), ("root", "")])
def test_flive(tmp_path: Path, variant: str | None, place: str) -> None:
    database = read("flive", tmp_path / "flive", 30, variant)
    assert database.images[:3] == (
        f"{place}blur_dataset/motion0000.jpg",
        f"{place}voc_emotic_ava/AVA__1.jpg",
        f"{place}EE371R/rq2.jpg",
    )
    assert database.scores[1] == pytest.approx(94.33 * 7 / 30)
    assert database.scores[0] == 0  # a published score, too


def test_flive_published_split(tmp_path: Path) -> None:
    root = build_miniature("flive", tmp_path / "flive", references=10, draw=False)
    test, padded = root / "labels640.csv", root / "labels=640_padded.csv"
    # Every fifth is a test image, every fourth of the others marked valid.
    parts = (
        "test", "train", "train", "train", "validation",
        "test", "train", "train", "validation", "train",
    )  # fmt: skip
    assert load_database("flive", root).published_splits.get("official") == parts
    # A test image that is marked valid besides stays a test image; patches have no label here.
    with padded.open("a") as file:
        file.write("blur_dataset/motion0000.jpg,50,True\nEE371R/rq59.jpg_patch_1.jpg,50,True\n")
    assert load_database("flive", root).published_splits.get("official") == parts
    with padded.open("a") as file:
        file.write("EE371R/rq2.jpg,50,perhaps\n")
    with pytest.raises(GlpiError, match=r"is_valid 'perhaps' is neither True nor False"):
        load_database("flive", root)
    test.unlink()
    assert load_database("flive", root).published_splits.get("official") is None


def test_flive_with_labels_beside_the_images(tmp_path: Path) -> None:
    root = build_miniature("flive", tmp_path / "flive", references=10, draw=False)
    for path in list(root.glob("*.csv")):
        path.rename(root / "database" / path.name)
    database = load_database("flive", root)
    assert len(database) == 10
    assert database.published_splits.get("official") is not None


@pytest.mark.parametrize("variant", ["AGIQA-3K", "ACGIQA-3K", "images", "root"])
def test_agiqa3k_images_in_any_one_folder_are_found(tmp_path: Path, variant: str) -> None:
    root = build_miniature("agiqa3k", tmp_path / "a", references=40, variant=variant, draw=False)
    (root / "other").mkdir()
    (root / "other/readme.txt").touch()
    database = load_database("agiqa3k", root)
    published = read_sample("agiqa3k")[:40]
    place = "" if variant == "root" else f"{variant}/"
    assert database.images == tuple(place + row["name"] for row in published)
    assert database.scores.tolist() == [float(row["mos_quality"]) for row in published]
    assert database.label_sd is not None
    assert database.label_sd.tolist() == [float(row["std_quality"]) for row in published]
    assert database.label_note == "AGIQA-3K's MOS of quality (0 to 5, higher is better)"


def test_agiqa3k_alignment_reads_the_scores_of_alignment(tmp_path: Path) -> None:
    database = read("agiqa3k_alignment", tmp_path / "a", 40)
    published = read_sample("agiqa3k")[:40]
    assert database.scores.tolist() == [float(row["mos_align"]) for row in published]
    assert database.label_sd is not None
    assert database.label_sd.tolist() == [float(row["std_align"]) for row in published]
    assert "MOS of alignment" in database.label_note


def test_agiqa3k_redistributed_table_with_one_more_column_is_read(tmp_path: Path) -> None:
    root = build_miniature("agiqa3k", tmp_path / "a", references=2, draw=False)
    rows = [[*row.values(), row["mos_quality"]] for row in read_sample("agiqa3k")[:2]]
    write_csv(root / "data.csv", (*read_sample("agiqa3k")[0], "mos"), rows)
    assert len(load_database("agiqa3k", root)) == 2


def test_agiqa3k_images_in_two_folders_are_refused(tmp_path: Path) -> None:
    root = build_miniature("agiqa3k", tmp_path / "a", references=3, draw=False)
    (root / "copy").mkdir()
    (root / "copy" / "ATTNGAN_normal_000.JPG").touch()
    with pytest.raises(
        GlpiError, match=r"data\.csv: its images are in .*/AGIQA-3K and .*/copy; keep one copy"
    ):
        load_database("agiqa3k", root)


def test_agiqa3k_without_images_or_columns_fails(tmp_path: Path) -> None:
    root = build_miniature("agiqa3k", tmp_path / "a", references=3, draw=False)
    (root / "AGIQA-3K").rename(tmp_path / "elsewhere")
    with pytest.raises(GlpiError, match=r"data\.csv line 2: 3 of 3 labelled images are not below"):
        load_database("agiqa3k", root)
    write_csv(root / "data.csv", ("name", "mos"), [("a.jpg", 1)])
    with pytest.raises(GlpiError, match=r"data\.csv: column 'mos_align' is missing"):
        load_database("agiqa3k_alignment", root)


def test_listing_a_large_database_asks_the_disk_once_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_miniature("flive", tmp_path / "flive", references=300, draw=False)
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(
        "glpi_jax.data.sources.file_index.os.scandir",
        lambda path: listed.append(path) or scandir(path),
    )
    statted = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **o: statted.append(path) or stat(path, **o))
    assert len(load_database("flive", root)) == 300
    assert len(listed) == len(set(listed)) == 5  # root, database and its three folders
    assert len(statted) < 10


def test_scores_are_read_in_double_precision(tmp_path: Path) -> None:
    (tmp_path / "database").mkdir()
    (tmp_path / "database/a.jpg").touch()
    (tmp_path / "labels_image.csv").write_text("name,mos\na.jpg,75.44372347614072\n")
    assert load_database("flive", tmp_path).scores.tolist() == [75.44372347614072]
    assert load_database("flive", tmp_path).scores.dtype == np.float64
