import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniatures import build_miniature

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database, Facts, load_database

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


def test_a_folder_or_a_dead_link_is_no_image(write: Write) -> None:
    root = write("image,score\na.png,1\nb.png,2\nc.png,3\nd.png,4\nsub,5\n", files=("a.png",))
    (root / "sub/b.png").mkdir(parents=True)
    (root / "b.png").mkdir()
    (root / "c.png").symlink_to(root / "gone.png")
    (root / "d.png").symlink_to(root / "d.png")
    with pytest.raises(GlpiError, match=r"line 3: 4 of 5 labelled images are not below .*: b\.png"):
        load_database("csv", root)
    assert load_database("csv", root, skip_bad=True).images == ("a.png",)
    # A file and a folder whose names differ in case alone are told apart.
    if not (root / "B.PNG").exists():
        (root / "B.png").symlink_to(root / "a.png")
        write("image,score\nb.PNG,1\nSUB/b.png,2\n")
        assert load_database("csv", root, skip_bad=True).images == ("B.png",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"labels\.csv: the label file is missing"),
        ("", r"labels\.csv: column 'image' is missing"),
        ("image,mos\na.png,1\n", r"column 'score' is missing .*image, score, reference"),
        ("image;score\na.png;1\n", r"'image' is missing \(known .*; columns found: image;score\)"),
        ("image,score,refrence\na.png,1,x\n", r"unknown or repeated column 'refrence'"),
        ("image,score,score\na.png,1,2\n", r"unknown or repeated column 'score'"),
        ("image,score\n", r"labels\.csv: the file holds no labels"),
        ("image,score\n\na.png,nan\n", r"line 3: score 'nan' is not a finite number"),
        ("image,score\na.png,inf\n", r"line 2: score 'inf'"),
        ("image,score\na.png,good\n", r"line 2: score 'good'"),
        ("image,score\na.png,\n", r"line 2: score ''"),
        ("image,score\na.png\n", r"line 2: 1 values under 2 columns"),
        ("image,score,level\na.png,1,1.5\n", r"line 2: level '1\.5' is not a whole number"),
        ("image,score\na.png,1e39\n", r"line 2: score '1e39' is too large for float32"),
        ("image,score\na.png,-3.5e38\n", r"line 2: score '-3\.5e38' is too large for float32"),
        (f"image,score,level\na.png,1,{10**18}\n", r"line 2: level '10+' has more than 18 digits"),
        (f"image,score,level\na.png,1,{'9' * 5000}\n", r"level '9+' has more than 18 digits"),
        ("image,score\n,1\n", r"line 2: '' is not an image name"),
        ("image,score\n../a.png,1\n", r"line 2: '\.\./a\.png' is not an image name"),
        (
            "image,score\na.png,1\nA.PNG,2\n",
            r"line 3: 'a\.png' is labelled twice \(first in line 2\)",
        ),
        (
            "image,score\na.png,1\nb,1\nc,1\nd,1\ne,1\n",
            r"line 3: 4 of 5 labelled images are not below .*: b, c, d, …; a csv database holds",
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
        ({"score_name": "DMOS"}, 'DMOS like this .* say which, as in {"higher_is_better": false}'),
        ({"higher_is_better": "yes"}, "higher_is_better must be a bool"),
    ],
)
def test_bad_description(write: Write, description: object, message: str) -> None:
    with pytest.raises(GlpiError, match=rf"database\.json: .*{message}"):
        load_database("csv", write("image,score\na.png,1\n", description=description))


def test_description_that_is_not_json(write: Write) -> None:
    root = write("image,score\na.png,1\n")
    (root / "database.json").write_text("{")
    with pytest.raises(GlpiError, match=r"database\.json: cannot be read"):
        load_database("csv", root)


def test_unknown_kind_and_missing_root(tmp_path: Path) -> None:
    with pytest.raises(
        GlpiError, match=r"unknown database kind 'tid'.*csv, pyiqa, liqe, live, csiq,"
    ):
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
        ({"label_sd": np.zeros(3)}, "different lengths"),
        ({"published_splits": {"official": ("train",)}}, "different lengths"),
        ({"images": ("a", "a")}, "listed twice"),
        ({"scores": np.array([1.0, np.nan])}, "finite"),
        ({"scores": np.array([1.0, 2.0], np.float32)}, "float64"),
        ({"reference_order": ("r",)}, "reference_order"),
    ):
        with pytest.raises(GlpiError, match=message):
            database(**changes)


def test_published_facts_are_absent_from_ones_own_database(write: Write) -> None:
    database = load_database("csv", write("image,score\na.png,1\n"))
    assert (database.facts, database.label_sd) == (None, None)
    assert (database.published_splits, database.left_out) == ({}, ())


def test_label_file_is_refused_by_kinds_that_know_its_name(write: Write) -> None:
    root = write("image,score\na.png,1\n")
    with pytest.raises(GlpiError, match=r"labels\.csv: a csv database takes no label file"):
        load_database("csv", root, root / "labels.csv")


@pytest.mark.parametrize(
    ("kind", "images", "references", "low", "high"),
    [
        ("live", 779, 29, -2.64, 111.77),
        ("csiq", 866, 30, 0, 1),
        ("tid2013", 3000, 25, 0.24, 7.21),
        ("kadid10k", 10125, 81, 1, 4.93),
        ("livemd", 450, 15, 0.61, 84.67),
        ("clive", 1162, 1162, 3.42, 92.43),
        ("koniq10k", 10073, 10073, 3.91, 88.39),
        ("bid", 586, 586, 0.16, 4.92),
        ("spaq", 11125, 11125, 2, 96),
        ("flive", 39810, 39810, 0, 94.33),
        ("agiqa3k", 2982, 2982, 0, 4.49),
        ("agiqa3k_alignment", 2982, 2982, 0.02, 4.29),
    ],
)
def test_published_facts(
    tmp_path: Path, kind: str, images: int, references: int, low: float, high: float
) -> None:
    root = build_miniature(kind, tmp_path / kind, references=2, images_per_reference=1, draw=False)
    assert load_database(kind, root).facts == Facts(images, references, (low, high))
