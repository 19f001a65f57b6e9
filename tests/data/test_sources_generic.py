"""Label files of other projects: pyiqa's meta tables and LIQE's lists."""

import json
from pathlib import Path

import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import load_database


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of empty images."""
    root = tmp_path / "images"
    for name in ("a.jpg", "b.jpg", "I01_01_1.bmp", "I01_01_2.bmp", "i25_01_1.bmp", "jp2k/img2.bmp"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_pyiqa_table_of_photographs(tmp_path: Path, images: Path) -> None:
    labels = tmp_path / "meta_info_KonIQ10kDataset.csv"
    labels.write_text(
        "img_name,mos,std,official_split,ratio802_seed123_split01,c1\n"
        "b.jpg,63.5,0.5,train,test,0\n"
        "a.jpg,12.25,,val,,4\n"
    )
    database = load_database("pyiqa", images, labels)
    assert database.name == "meta_info_KonIQ10kDataset"
    assert database.root == images
    assert database.images == database.references == ("b.jpg", "a.jpg")
    assert database.reference_order == ("a.jpg", "b.jpg")
    assert database.scores.tolist() == [63.5, 12.25]
    assert (database.score_name, database.higher_is_better) == ("MOS", True)
    assert database.label_note == "MOS from meta_info_KonIQ10kDataset.csv"
    assert database.label_sd is not None
    assert database.label_sd[0] == 0.5
    assert str(database.label_sd[1]) == "nan"
    assert database.published_splits.get("official") == ("train", "validation")
    assert database.published_splits == {
        "official": ("train", "validation"),
        "ratio802_seed123_split01": ("test", None),
    }
    assert database.facts is None


def test_pyiqa_table_of_distorted_references(tmp_path: Path, images: Path) -> None:
    labels = tmp_path / "meta_info_TID2013Dataset.csv"
    # With tabs, which pyiqa uses at times for all the name says.
    labels.write_text(
        "ref_name\tdist_name\tmos\tstd\n"
        "I01.BMP\tI01_01_1.bmp\t5.51429\t0.13013\n"
        "I01.BMP\tI01_01_2.bmp\t5.56757\t0.16533\n"
        "i25.bmp\tI25_01_1.bmp\t5.5\t0.1\n"
    )
    description = tmp_path / "meta_info_TID2013Dataset.json"
    description.write_text(json.dumps({"higher_is_better": True, "name": "tid"}))
    database = load_database("pyiqa", images, labels)
    assert (database.name, database.higher_is_better) == ("tid", True)
    assert database.images == ("I01_01_1.bmp", "I01_01_2.bmp", "i25_01_1.bmp")
    assert database.references == ("I01.BMP", "I01.BMP", "i25.bmp")
    assert database.reference_order == ("I01.BMP", "i25.bmp")
    assert database.scores.tolist() == [5.51429, 5.56757, 5.5]
    assert database.published_splits == {}


@pytest.mark.parametrize(
    ("header", "score_name"),
    # LIVE's DMOS is headed "mos", KADID-10k's "dmos" rises with quality.
    [("ref_name,dist_name,mos", "MOS"), ("ref_name,dist_name,dmos", "DMOS")],
)
def test_pyiqa_direction_must_be_said(
    tmp_path: Path, images: Path, header: str, score_name: str
) -> None:
    labels = tmp_path / "meta_info_LIVEIQADataset.csv"
    labels.write_text(f"{header}\nrefimgs/stream.bmp,jp2k/img2.bmp,15.5\n")
    message = (
        rf"LIVEIQADataset\.json: a {score_name} like this .* \{{\"higher_is_better\": false\}}"
    )
    with pytest.raises(GlpiError, match=message):
        load_database("pyiqa", images, labels)
    labels.with_suffix(".json").write_text('{"higher_is_better": false, "score_name": "DMOS"}')
    database = load_database("pyiqa", images, labels)
    assert (database.score_name, database.higher_is_better) == ("DMOS", False)
    assert database.references == ("refimgs/stream.bmp",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "img_name,score\na.jpg,1\n",
            r"column 'mos' is missing \(columns found: img_name, score\)",
        ),
        ("dist_name,mos\na.jpg,1\n", r"column 'ref_name' is missing"),
        ("name,mos\na.jpg,1\n", r"column 'img_name' is missing"),
        ("", r"column 'img_name' is missing \(columns found: none\)"),
        ("img_name,mos,mos\na.jpg,1,2\n", r"unknown or repeated column 'mos'"),
        (
            "img_name,mos,official_split\na.jpg,1,0\n",
            r"line 2: official_split '0' is none of train, val, test",
        ),
        ("img_name,mos,std\na.jpg,1,wide\n", r"line 2: std 'wide' is not a finite number"),
        ("img_name,mos\n../a.jpg,1\n", r"line 2: '\.\./a\.jpg' is not an image name"),
    ],
)
def test_pyiqa_bad_tables(tmp_path: Path, images: Path, labels: str, message: str) -> None:
    path = tmp_path / "meta.csv"
    path.write_text(labels)
    with pytest.raises(GlpiError, match=rf"meta\.csv.*{message}"):
        load_database("pyiqa", images, path)


def test_pyiqa_row_in_an_unknown_part_can_be_left_out(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_text("img_name,mos,official_split\na.jpg,1,dev\nb.jpg,2,test\n")
    database = load_database("pyiqa", images, path, skip_bad=True)
    assert (database.images, database.published_splits.get("official")) == (("b.jpg",), ("test",))
    assert database.left_out == (
        f"{path} line 2: official_split 'dev' is none of train, val, test",
    )


@pytest.mark.parametrize("name", ["meta {0}.csv", "meta {x}.csv", "meta {.csv"])
def test_pyiqa_table_with_braces_in_its_name(tmp_path: Path, images: Path, name: str) -> None:
    (tmp_path / name).write_text("img_name,mos\na.jpg,1\n")
    assert load_database("pyiqa", images, tmp_path / name).label_note == f"MOS from {name}"


def test_pyiqa_bad_description(tmp_path: Path, images: Path) -> None:
    labels = tmp_path / "meta.csv"
    labels.write_text("img_name,mos\na.jpg,1\n")
    labels.with_suffix(".json").write_text('{"lower_better": true}')
    with pytest.raises(GlpiError, match=r"meta\.json: unknown key 'lower_better'"):
        load_database("pyiqa", images, labels)


def test_liqe_list(tmp_path: Path, images: Path) -> None:
    labels = tmp_path / "live_all.txt"
    labels.write_text("jp2k/img2.bmp\t96.261739\t1.629456\nb.jpg\t0.000000\t2.000000\n")
    database = load_database("liqe", images, labels)
    assert database.name == "live_all"
    assert database.images == ("jp2k/img2.bmp", "b.jpg")
    # As in the list: LIVE turned, so that higher is better.
    assert database.scores.tolist() == [96.261739, 0.0]
    assert (database.score_name, database.higher_is_better) == ("MOS", True)
    assert "111.77 - DMOS and CSIQ as 1 - DMOS" in database.label_note
    assert "live_all.txt" in database.label_note
    assert database.label_sd is not None
    assert database.label_sd.tolist() == [1.629456, 2.0]
    assert database.distortions == (None, None)
    assert database.references == database.images
    assert database.reference_order == ("b.jpg", "jp2k/img2.bmp")


def test_liqe_list_with_scenes(tmp_path: Path, images: Path) -> None:
    labels = tmp_path / "bid_val_clip.txt"
    labels.write_text("a.jpg\t3.79\tother realistic\tlandscape\tstill_life\tinvalid\n")
    database = load_database("liqe", images, labels)
    assert database.scores.tolist() == [3.79]
    assert database.distortions == ("other realistic",)
    assert database.label_sd is None


@pytest.mark.parametrize("end", ["", " ", "\t", " \t\r"])
def test_liqe_list_with_empty_values(tmp_path: Path, images: Path, end: str) -> None:
    labels = tmp_path / "list.txt"
    labels.write_text(f"a.jpg\t3.5\t{end}\n b.jpg\t2.5\t0.5{end}\n", newline="")
    database = load_database("liqe", images, labels)
    assert (database.images, database.scores.tolist()) == (("a.jpg", "b.jpg"), [3.5, 2.5])
    assert database.label_sd is not None
    assert [str(value) for value in database.label_sd] == ["nan", "0.5"]
    labels.write_text(f"a.jpg\t3.5\tblur\tcity\t\t{end}\n")
    assert load_database("liqe", images, labels).distortions == ("blur",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "the file holds no labels"),
        ("a.jpg 3.79 0.5\n", "1 values in the first line, but each must hold name, score, std or"),
        ("a.jpg\t1\t2\t3\n", "4 values in the first line"),
        ("a.jpg\t1\t0.5\nb.jpg\t2\n", "line 2: 2 values under 3 columns"),
        ("a.jpg\tgood\t0.5\n", "line 1: score 'good' is not a finite number"),
    ],
)
def test_liqe_bad_lists(tmp_path: Path, images: Path, labels: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(labels)
    with pytest.raises(GlpiError, match=rf"list\.txt.*{message}"):
        load_database("liqe", images, path)


@pytest.mark.parametrize("kind", ["pyiqa", "liqe"])
def test_label_file_must_be_given_and_there(tmp_path: Path, images: Path, kind: str) -> None:
    with pytest.raises(GlpiError, match=f"a {kind} database needs the path of its label file"):
        load_database(kind, images)
    with pytest.raises(GlpiError, match=r"gone\.csv: the label file is missing"):
        load_database(kind, images, tmp_path / "gone.csv")
