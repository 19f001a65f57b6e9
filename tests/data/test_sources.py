import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glpi_jax.data.sources import Database, load_database
from glpi_jax.errors import GlpiError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a database folder: its files (empty), labels.csv, database.json."""

    def write_folder(
        labels: str | None, files: tuple[str, ...] = ("a.png",), description: object = None
    ) -> Path:
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if labels is not None:
            (tmp_path / "labels.csv").write_text(labels, encoding="utf-8")
        if description is not None:
            (tmp_path / "database.json").write_text(json.dumps(description))
        return tmp_path

    return write_folder


def test_csv_with_all_columns(write: Write) -> None:
    root = write(
        "\ufeffimage, score,reference,distortion,level\n"
        "sub/a.png,1.5,lake,jpeg,2\n"
        "\n"
        "sub\\b.png,-2e0,lake,,\n",
        files=("sub/a.png", "sub/b.png", "unlabelled.png"),
        description={
            "name": "lakes",
            "score_name": "DMOS",
            "higher_is_better": False,
            "label_note": "difference scores",
        },
    )
    database = load_database("csv", root)
    assert len(database) == 2
    assert database.images == ("sub/a.png", "sub/b.png")
    assert database.path(1) == root / "sub" / "b.png"
    assert database.scores.dtype == np.float64
    assert database.scores.tolist() == [1.5, -2.0]
    assert database.references == ("lake", "lake")
    assert database.reference_order == ("lake",)
    assert database.distortions == ("jpeg", None)
    assert database.levels == (2, None)
    assert (database.name, database.score_name) == ("lakes", "DMOS")
    assert database.higher_is_better is False
    assert database.label_note == "difference scores"


def test_csv_with_required_columns_only(write: Write) -> None:
    root = write("score,image\n3,b.png\n4,a.png\n", files=("a.png", "b.png"))
    database = load_database("csv", str(root))
    assert database.references == ("b.png", "a.png")
    assert database.reference_order == ("a.png", "b.png")
    assert database.distortions == (None, None)
    assert (database.name, database.score_name) == (root.name, "MOS")
    assert database.higher_is_better is True


def test_names_match_without_regard_to_case(write: Write) -> None:
    root = write("image,score\ni25.BMP,1\nI1.bmp,2\n", files=("I25.bmp", "I1.bmp"))
    assert load_database("csv", root).images == ("I25.bmp", "I1.bmp")


def test_exact_name_wins_and_ambiguity_is_an_error(write: Write) -> None:
    files = ("A.png", "a.png")
    root = write("image,score\na.png,1\nA.png,2\n", files=files)
    if len(list(root.glob("*.png"))) == 1:
        pytest.skip("the file system does not tell the two names apart")
    assert load_database("csv", root).images == ("a.png", "A.png")
    write("image,score\na.PNG,1\n")
    with pytest.raises(GlpiError, match=r"'a\.PNG' could mean A\.png or a\.png"):
        load_database("csv", root)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"labels\.csv: the label file is missing"),
        ("", r"labels\.csv: column 'image' is missing"),
        ("image,mos\na.png,1\n", r"column 'score' is missing .*image, score, reference"),
        ("image,score,refrence\na.png,1,x\n", r"unknown or repeated column 'refrence'"),
        ("image,score,score\na.png,1,2\n", r"unknown or repeated column 'score'"),
        ("image,score\n", r"no labels under the header"),
        ("image,score\n\na.png,nan\n", r"line 3: score 'nan' is not a finite number"),
        ("image,score\na.png,inf\n", r"line 2: score 'inf'"),
        ("image,score\na.png,good\n", r"line 2: score 'good'"),
        ("image,score\na.png,\n", r"line 2: score ''"),
        ("image,score\na.png\n", r"line 2: 1 values under 2 columns"),
        ("image,score,level\na.png,1,1.5\n", r"line 2: level '1\.5' is not a whole number"),
        ("image,score\n,1\n", r"line 2: '' is not an image name"),
        ("image,score\n../a.png,1\n", r"line 2: '\.\./a\.png' is not an image name"),
        ("image,score\na.png,1\nA.PNG,2\n", r"'a\.png' is labelled twice"),
        (
            "image,score\na.png,1\nb,1\nc,1\nd,1\ne,1\n",
            r"4 of 5 labelled images are not below .*: b, c, d, …",
        ),
        ('image,score\n"a.png,1\n', r"cannot be read as a CSV table"),
    ],
)
def test_bad_labels(write: Write, labels: str | None, message: str) -> None:
    with pytest.raises(GlpiError, match=message) as caught:
        load_database("csv", write(labels))
    assert "\n" not in str(caught.value)


def test_labels_in_another_encoding(write: Write) -> None:
    root = write(None)
    (root / "labels.csv").write_bytes("image,score\né.png,1\n".encode("latin-1"))
    with pytest.raises(GlpiError, match="UTF-8"):
        load_database("csv", root)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ([], "must hold one JSON object"),
        ({"title": "x"}, "unknown key 'title'"),
        ({"name": 3}, "name must be a str"),
        ({"score_name": "score"}, "score_name must be MOS or DMOS"),
        ({"score_name": "DMOS"}, "add higher_is_better"),
        ({"higher_is_better": "yes"}, "higher_is_better must be a bool"),
    ],
)
def test_bad_description(write: Write, description: object, message: str) -> None:
    with pytest.raises(GlpiError, match=rf"database\.json: .*{message}"):
        load_database("csv", write("image,score\na.png,1\n", description=description))


def test_description_that_is_not_json(write: Write) -> None:
    root = write("image,score\na.png,1\n")
    (root / "database.json").write_text("{")
    with pytest.raises(GlpiError, match=r"database\.json: cannot be read as JSON"):
        load_database("csv", root)


def test_unknown_kind_and_missing_root(tmp_path: Path) -> None:
    with pytest.raises(GlpiError, match=r"unknown database kind 'tid'.*csv, kadid10k"):
        load_database("tid", tmp_path)
    with pytest.raises(GlpiError, match="gone: no such folder; give the root folder of the csv"):
        load_database("csv", tmp_path / "gone")


def test_columns_are_checked(tmp_path: Path) -> None:
    def database(**changes: object) -> Database:
        columns: dict[str, object] = {
            "name": "x",
            "root": tmp_path,
            "images": ("a", "b"),
            "scores": np.array([1.0, 2.0]),
            "references": ("r", "s"),
            "reference_order": ("s", "r"),
            "distortions": (None, None),
            "levels": (None, None),
            "score_name": "MOS",
            "higher_is_better": True,
            "label_note": "note",
        }
        return Database(**{**columns, **changes})  # type: ignore[arg-type]

    assert len(database()) == 2
    for changes, message in (
        ({"levels": (1,)}, "different lengths"),
        ({"images": ("a", "a")}, "listed twice"),
        ({"scores": np.array([1.0, np.nan])}, "finite"),
        ({"scores": np.array([1.0, 2.0], np.float32)}, "float64"),
        ({"reference_order": ("r",)}, "reference_order"),
    ):
        with pytest.raises(GlpiError, match=message):
            database(**changes)


@pytest.fixture
def kadid(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("I01.png", "I02.png", "I01_01_01.png", "I01_10_05.png", "i02_15_03.png"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "dmos.csv").write_text(
        "dist_img,ref_img,dmos,var\n"
        "I02_15_03.png,I02.png,3.2,0.5\n"
        "I01_01_01.png,I01.png,4.57,0.496\n"
        "I01_10_05.png,I01.png,1.1,0.3\n"
    )
    return tmp_path


def test_kadid10k(kadid: Path) -> None:
    database = load_database("kadid10k", kadid)
    assert database.images == (
        "images/i02_15_03.png",
        "images/I01_01_01.png",
        "images/I01_10_05.png",
    )
    assert database.scores.tolist() == [3.2, 4.57, 1.1]
    assert database.references == ("I02", "I01", "I01")
    assert database.reference_order == ("I01", "I02")
    assert database.distortions == ("denoise", "gaussian_blur", "jpeg")
    assert database.levels == (3, 1, 5)
    assert (database.score_name, database.higher_is_better) == ("DMOS", True)


def test_kadid10k_errors(kadid: Path) -> None:
    labels = kadid / "dmos.csv"
    labels.write_text("dist_img,ref_img,dmos,var\nI01_26_01.png,I01.png,1,1\n")
    with pytest.raises(GlpiError, match=r"line 2: 'I01_26_01\.png' is not a KADID-10k name"):
        load_database("kadid10k", kadid)
    labels.unlink()
    with pytest.raises(GlpiError, match=r"dmos\.csv: the label file is missing"):
        load_database("kadid10k", kadid)
