"""Rows that cannot be used: one clear error each, or left out and named."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from miniatures import BUILDERS, build_miniature

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import READERS, load_database

PUBLISHED = list(BUILDERS)


def test_left_out_rows_are_named_in_order(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "C.png", "c.png"):
        (tmp_path / name).touch()
    if len(list(tmp_path.glob("[cC].png"))) == 1:
        pytest.skip("the file system does not tell the two names apart")
    (tmp_path / "labels.csv").write_text(
        "image,score,level\n"
        "a.png,1,1\n"
        "gone.png,2,1\n"
        "a.png,3,1\n"
        "b.png,nan,1\n"
        "b.png,high,1\n"
        "b.png,4\n"
        "C.PNG,5,1\n"
        "../b.png,6,1\n"
        "b.png,7,low\n"
        "b.png,8,2\n"
    )
    with pytest.raises(GlpiError, match=r"line 4: 'a\.png' is labelled twice"):
        load_database("csv", tmp_path)
    database = load_database("csv", tmp_path, skip_bad=True)
    assert database.images == ("a.png", "b.png")
    assert database.scores.tolist() == [1, 8]
    labels = tmp_path / "labels.csv"
    assert database.left_out == (
        f"{labels} line 3: the image 'gone.png' is missing",
        f"{labels} line 4: 'a.png' is labelled twice (first in line 2); keep one row for it",
        f"{labels} line 5: score 'nan' is not a finite number",
        f"{labels} line 6: score 'high' is not a finite number",
        f"{labels} line 7: 2 values under 3 columns",
        f"{labels} line 8: 'C.PNG' could mean C.png or c.png in {tmp_path}",
        f"{labels} line 9: '../b.png' is not an image name inside the folder",
        f"{labels} line 10: level 'low' is not a whole number",
    )


@pytest.mark.parametrize("kind", PUBLISHED)
def test_image_that_is_missing(tmp_path: Path, kind: str) -> None:
    root = build_miniature(kind, tmp_path / kind, references=3, images_per_reference=2, draw=False)
    whole = load_database(kind, root)
    assert whole.left_out == ()
    whole.path(2).unlink()
    with pytest.raises(
        GlpiError, match=rf" \d+: 1 of \d+ labelled images are not below .*{kind} d"
    ):
        load_database(kind, root)
    database = load_database(kind, root, skip_bad=True)
    assert database.images == (*whole.images[:2], *whole.images[3:])
    assert database.scores.tolist() == [*whole.scores[:2], *whole.scores[3:]]
    (reason,) = database.left_out
    assert reason.endswith("is missing")
    parts = whole.published_splits.get("official")
    kept = None if parts is None else (*parts[:2], *parts[3:])
    assert database.published_splits.get("official") == kept


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("kind", [*PUBLISHED, "csv"])
def test_wrong_folder_always_fails_with_the_layout(
    tmp_path: Path, kind: str, skip_bad: bool
) -> None:
    with pytest.raises(GlpiError, match="the label file is missing") as caught:
        load_database(kind, tmp_path, skip_bad=skip_bad)
    assert READERS[kind].layout in str(caught.value)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_labels_without_any_image_always_fail(tmp_path: Path, kind: str) -> None:
    root = build_miniature(kind, tmp_path / kind, references=3, images_per_reference=2, draw=False)
    for image in load_database(kind, root).images:
        (root / image).unlink()
    with pytest.raises(GlpiError, match=r"(\d+) of \1 labelled images are not below"):
        load_database(kind, root, skip_bad=True)


def test_labels_without_any_usable_row_always_fail(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "labels.csv").write_text("image,score\na.png,\n")
    with pytest.raises(GlpiError, match=r"no row can be used \(.*line 2: score '' is not"):
        load_database("csv", tmp_path, skip_bad=True)


def test_missing_column_always_fails(tmp_path: Path) -> None:
    (tmp_path / "dmos.csv").write_text("dist_img,dmos\nI01_01_01.png,1\n")
    with pytest.raises(
        GlpiError, match=r"column 'ref_img' is missing \(columns found: dist_img, d"
    ):
        load_database("kadid10k", tmp_path, skip_bad=True)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("live", "dmos_realigned.mat"),
        ("csiq", "csiq.DMOS.xlsx"),
        ("clive", "Data/AllMOS_release.mat"),
        ("livemd", "Part 1/Scores.mat"),
        ("bid", "DatabaseGrades.xlsx"),
        ("spaq", "Annotations/MOS and Image attribute scores.xlsx"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_damaged_label_file(tmp_path: Path, kind: str, name: str, damage: str) -> None:
    root = build_miniature(kind, tmp_path / kind, references=2, images_per_reference=2, draw=False)
    content = (root / name).read_bytes()
    damaged = {"cut": content[: len(content) // 2], "foreign": b"image,mos\na,1\n", "empty": b""}
    (root / name).write_bytes(damaged[damage])
    with pytest.raises(GlpiError) as caught:
        load_database(kind, root)
    assert str(caught.value).startswith(str(root / name))
    assert "\n" not in str(caught.value)


def test_damaged_xls(tmp_path: Path) -> None:
    root = build_miniature("bid", tmp_path / "bid", references=2, variant="xls", draw=False)
    path = root / "DatabaseGrades.xls"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(GlpiError, match=r"Grades\.xls: cannot be read as an Excel workbook \("):
        load_database("bid", root)


def test_text_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "mos_with_names.txt").write_bytes("5.5 é.bmp\n".encode("latin-1"))
    with pytest.raises(GlpiError, match=r"names\.txt: cannot be read as text in UTF-8"):
        load_database("tid2013", tmp_path)


def test_mat_without_its_variable_or_with_a_matrix(tmp_path: Path) -> None:
    root = build_miniature(
        "livemd", tmp_path / "md", references=1, images_per_reference=2, draw=False
    )
    scipy.io.savemat(root / "Part 1/Scores.mat", {"MOS": np.zeros((1, 2))})
    with pytest.raises(GlpiError, match=r"Scores\.mat: the variable 'DMOSscores' is missing"):
        load_database("livemd", root)
    scipy.io.savemat(root / "Part 1/Scores.mat", {"DMOSscores": np.zeros((2, 2))})
    with pytest.raises(GlpiError, match=r"DMOSscores is not a vector .*\(shape \(2, 2\)"):
        load_database("livemd", root)
    scipy.io.savemat(root / "Part 1/Scores.mat", {"DMOSscores": np.array([[1, np.nan]])})
    with pytest.raises(GlpiError, match=r"Scores\.mat entry 2: dmos 'nan' is not a finite number"):
        load_database("livemd", root)
