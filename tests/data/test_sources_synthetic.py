"""LIVE, CSIQ, TID2013, KADID-10k and LIVE-MD in their published layouts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from miniatures import LIVE_REFERENCES, build_miniature, cell_array, read_sample, write_xlsx

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.splits import official_database_split, official_seed


def read(kind: str, root: Path, **options: object) -> Database:
    return load_database(kind, build_miniature(kind, root, draw=False, **options))  # type: ignore[arg-type]


def row_of(database: Database, image: str) -> int:
    return database.images.index(image)


@pytest.fixture(scope="module")
def live_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("databases") / "live"
    return build_miniature("live", root, references=29, images_per_reference=99, draw=False)


def test_live(live_root: Path) -> None:
    database = load_database("live", live_root)
    assert len(database) == 779
    assert (database.name, database.score_name, database.higher_is_better) == (
        "live",
        "DMOS",
        False,
    )
    assert database.facts is not None
    assert (database.facts.images, database.facts.references) == (779, 29)
    # As published; what LIQE's list turned is turned back.
    scores = dict(zip(database.images, database.scores.tolist(), strict=True))
    assert scores["jp2k/img2.bmp"] == pytest.approx(15.512954, abs=2e-6)
    assert scores["jpeg/img57.bmp"] == pytest.approx(-2.640015, abs=2e-6)
    assert database.label_sd is not None
    assert database.label_sd[row_of(database, "jp2k/img2.bmp")] == 1.629456
    assert Counter(database.distortions) == {
        "jp2k": 169, "jpeg": 175, "wn": 145, "gblur": 145, "fastfading": 145,
    }  # fmt: skip
    assert set(database.levels) == {None}


def test_live_entry_belongs_to_its_place_in_the_arrays(live_root: Path) -> None:
    database = load_database("live", live_root)
    # Place 227 is jpeg/img1, place 460 wn/img1, place 981 the last image.
    for image, place in (("jpeg/img1.bmp", 227), ("wn/img1.bmp", 460), ("gblur/img1.bmp", 634)):
        reference = database.references[row_of(database, image)]
        assert reference == LIVE_REFERENCES[place % 29]


def test_live_order_is_that_of_the_official_loader(live_root: Path) -> None:
    database = load_database("live", live_root)
    assert database.reference_order == tuple(LIVE_REFERENCES)  # ascending by file name
    # Within a reference: jp2k, jpeg, wn, gblur, fastfading, then by number.
    folders = list(dict.fromkeys(image.split("/")[0] for image in database.images))
    assert folders == ["jp2k", "jpeg", "wn", "gblur", "fastfading"]
    numbers = [int(i[8:-4]) for i in database.images if i.startswith("jp2k/")]
    assert numbers == sorted(numbers)


def test_live_originals_are_never_scored(live_root: Path) -> None:
    database = load_database("live", live_root)
    originals = scipy.io.loadmat(live_root / "dmos_realigned.mat")["orgs"][0]
    assert originals.sum() == 203
    assert originals[0] == 1  # jp2k/img1 is one
    assert "jp2k/img1.bmp" not in database.images
    assert not any(image.startswith("refimgs/") for image in database.images)


def test_live_of_another_release_is_refused(tmp_path: Path, live_root: Path) -> None:
    (tmp_path / "refnames_all.mat").write_bytes((live_root / "refnames_all.mat").read_bytes())
    arrays = {name: np.zeros((1, 5)) for name in ("dmos_new", "dmos_std", "orgs")}
    scipy.io.savemat(tmp_path / "dmos_realigned.mat", arrays)
    with pytest.raises(GlpiError, match=r"different lengths \(5 in dmos_realigned\.mat"):
        load_database("live", tmp_path)
    names = {"refnames_all": cell_array(["bikes.bmp"] * 5, column=False)}
    scipy.io.savemat(tmp_path / "refnames_all.mat", names)
    with pytest.raises(GlpiError, match="5 entries, LIVE release 2 has 982"):
        load_database("live", tmp_path)


def test_live_without_the_realigned_scores(tmp_path: Path) -> None:
    (tmp_path / "dmos.mat").touch()
    with pytest.raises(GlpiError, match=r"dmos_realigned\.mat: the label file is missing; a live"):
        load_database("live", tmp_path)


def test_csiq(tmp_path: Path) -> None:
    database = read("csiq", tmp_path / "csiq", references=30, images_per_reference=99)
    assert len(database) == 866
    assert Counter(database.distortions)["contrast"] == 116
    assert (database.score_name, database.higher_is_better) == ("DMOS", False)
    # 1600 is a number in the sheet and must not become "1600.0".
    row = row_of(database, "dst_imgs/awgn/1600.AWGN.1.png")
    assert database.scores[row] == 0.062
    assert (database.references[row], database.distortions[row]) == ("1600", "awgn")
    assert database.levels[row] == 1
    assert database.label_sd is not None
    assert database.label_sd[row] == 0.061
    # "jpeg 2000" in the sheet.
    row = row_of(database, "dst_imgs/jpeg2000/sunsetcolor.jpeg2000.5.png")
    assert (database.scores[row], database.distortions[row]) == (1.0, "jpeg2000")


def test_csiq_order_is_that_of_the_official_loader(tmp_path: Path) -> None:
    database = read("csiq", tmp_path / "csiq", references=30, images_per_reference=99)
    order = database.reference_order
    assert order[:3] == ("woman", "veggies", "turtle")  # descending
    assert order[-2:] == ("aerial_city", "1600")
    # "_" sorts before "c", so the descending order has it after.
    assert order.index("sunsetcolor") < order.index("sunset_sparrow")
    of_woman = [
        i for i, r in zip(database.images, database.references, strict=True) if r == "woman"
    ]
    kinds = list(dict.fromkeys(image.split("/")[1] for image in of_woman))
    assert kinds == ["awgn", "jpeg", "jpeg2000", "fnoise", "blur", "contrast"]
    # What random.Random(12345).shuffle leaves at the last six of 30 places.
    split = official_database_split(database, train_fraction=0.8, seed=official_seed(1))
    tested = list(dict.fromkeys(database.references[row] for row in split.test))
    assert tested == [order[index] for index in (9, 25, 26, 0, 23, 13)]
    assert tested[3] == "woman"


@pytest.mark.parametrize(("variant", "place"), [("flat", "dst_imgs_all"), ("text", "all_dis_imgs")])
def test_csiq_flat_with_text_labels(tmp_path: Path, variant: str, place: str) -> None:
    database = read(
        "csiq", tmp_path / "flat", references=5, images_per_reference=99, variant=variant
    )
    usual = read("csiq", tmp_path / "usual", references=5, images_per_reference=99)
    assert database.images[0] == f"{place}/1600.AWGN.1.png"
    assert database.label_sd is None
    assert database.reference_order == usual.reference_order
    # The text goes by type, the sheet by image: within a reference both have one order.
    for reference in usual.reference_order:
        flat, nested = (
            [
                (Path(image).name, score)
                for image, score, shown in zip(
                    table.images, table.scores.tolist(), table.references, strict=True
                )
                if shown == reference
            ]
            for table in (database, usual)
        )
        assert flat == nested


def test_csiq_folders_in_another_case(tmp_path: Path) -> None:
    root = build_miniature(
        "csiq", tmp_path / "csiq", references=2, images_per_reference=29, draw=False
    )
    (root / "dst_imgs/awgn").rename(root / "dst_imgs/AWGN")
    (root / "dst_imgs/blur").rename(root / "dst_imgs/Blur")
    database = load_database("csiq", root)
    assert database.images[0] == "dst_imgs/AWGN/1600.AWGN.1.png"
    assert "dst_imgs/Blur/1600.BLUR.1.png" in database.images


def test_csiq_sheet_with_padding_and_without_its_columns(tmp_path: Path) -> None:
    root = build_miniature(
        "csiq", tmp_path / "csiq", references=1, images_per_reference=1, draw=False
    )
    header = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")
    rows = [header, (1600, 1, "noise", 1, 0.061, 0.062), (None, 2, None, None, None, None)]
    write_xlsx(root / "csiq.DMOS.xlsx", {"all_by_image": rows}, first_cell=(4, 4))
    assert load_database("csiq", root).scores.tolist() == [0.062]
    bad = [header, (1600, 1, "fog", 1, 0.061, 0.062)]
    write_xlsx(root / "csiq.DMOS.xlsx", {"all_by_image": bad}, first_cell=(4, 4))
    with pytest.raises(
        GlpiError, match=r"xlsx row 5: dst_type 'fog' is none of noise, jpeg, jpeg 2"
    ):
        load_database("csiq", root)
    write_xlsx(root / "csiq.DMOS.xlsx", {"all_by_image": [header[:-1]]})
    with pytest.raises(GlpiError, match="no row of sheet 'all_by_image' holds the columns image"):
        load_database("csiq", root)
    write_xlsx(root / "csiq.DMOS.xlsx", {"by_image": rows})
    with pytest.raises(GlpiError, match="the workbook has no sheet 'all_by_image'"):
        load_database("csiq", root)


def test_tid2013(tmp_path: Path) -> None:
    database = read("tid2013", tmp_path / "tid", references=25, images_per_reference=120)
    assert len(database) == 3000
    assert (database.score_name, database.higher_is_better) == ("MOS", True)
    assert database.reference_order == tuple(f"I{number:02d}" for number in range(1, 26))
    row = row_of(database, "distorted_images/I03_10_4.bmp")
    assert database.references[row] == "I03"
    assert (database.distortions[row], database.levels[row]) == ("jpeg", 4)
    assert database.scores[row] == pytest.approx(7.2 - 5.2 - 0.1 - 0.003)
    assert database.label_sd is not None
    assert database.label_sd[row] == pytest.approx(0.17)
    assert Counter(database.distortions) == dict.fromkeys(set(database.distortions), 125)
    assert len(set(database.distortions)) == 24


def test_tid2013_names_in_another_case(tmp_path: Path) -> None:
    # The disk has i25_01_1.bmp where the label file says I25_01_1.bmp.
    database = read("tid2013", tmp_path / "tid", references=25, images_per_reference=1)
    assert database.images[-1] == "distorted_images/i25_01_1.bmp"
    assert database.references[-1] == "I25"


def test_tid2013_deviations(tmp_path: Path) -> None:
    root = build_miniature(
        "tid2013", tmp_path / "tid", references=1, images_per_reference=2, draw=False
    )
    deviations = root / "mos_std.txt"
    deviations.write_text("0.1\n")
    with pytest.raises(GlpiError, match=r"mos_std\.txt: 1 lines, but 2 in mos_with_names\.txt"):
        load_database("tid2013", root)
    deviations.write_text("0.1\nlow\n")
    with pytest.raises(GlpiError, match=r"mos_std\.txt line 2: std 'low' is not a finite number"):
        load_database("tid2013", root)
    assert len(load_database("tid2013", root, skip_bad=True)) == 1
    deviations.unlink()
    assert load_database("tid2013", root).label_sd is None


@pytest.mark.parametrize("name", ["I01_25_1.bmp", "I01_00_1.bmp", "I01_01.bmp", "lena.bmp"])
def test_tid2013_foreign_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "mos_with_names.txt").write_text(f"5.5 {name}\n")
    with pytest.raises(GlpiError, match=rf"line 1: '{name}' is not a TID2013 name"):
        load_database("tid2013", tmp_path)


@pytest.mark.parametrize("variant", [None, "ref_imgs"])
def test_kadid10k(tmp_path: Path, variant: str | None) -> None:
    database = read(
        "kadid10k", tmp_path / "kadid", references=6, images_per_reference=125, variant=variant
    )
    published = read_sample("kadid10k")
    assert len(database) == 750
    assert database.scores.tolist() == [float(row["dmos"]) for row in published]
    assert database.images == tuple(f"images/{row['dist_img']}" for row in published)
    assert database.reference_order == ("I01", "I02", "I03", "I04", "I05", "I06")
    row = row_of(database, "images/I02_15_03.png")
    assert database.references[row] == "I02"
    assert (database.distortions[row], database.levels[row]) == ("denoise", 3)
    assert database.distortions[row_of(database, "images/I01_10_05.png")] == "jpeg"
    # Published as DMOS, but the least distorted image has the highest.
    assert (database.score_name, database.higher_is_better) == ("DMOS", True)
    assert database.scores[row_of(database, "images/I01_01_01.png")] == 4.57
    assert database.label_sd is not None
    assert database.label_sd[0] == 0.496  # "var": carried as it is


def test_kadid10k_with_sorted_references_and_shuffled_rows(tmp_path: Path) -> None:
    root = build_miniature(
        "kadid10k", tmp_path / "kadid", references=2, images_per_reference=2, draw=False
    )
    header, *rows = (root / "dmos.csv").read_text().splitlines()
    (root / "dmos.csv").write_text("\n".join([header, *rows[::-1]]))
    database = load_database("kadid10k", root)
    assert database.references == ("I02", "I02", "I01", "I01")
    assert database.reference_order == ("I01", "I02")
    assert database.images[0] == "images/I02_01_02.png"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("I01_26_01.png,I01.png,1,1", r"line 2: 'I01_26_01\.png' is not a KADID-10k name"),
        ("I01_01_01.png,I02.png,1,1", r"line 2: 'I01_01_01\.png' does not belong to 'I02\.png'"),
        ("I01_01_01.png,I01.png,good,1", r"line 2: dmos 'good' is not a finite number"),
        ("I01_01_01.png,I01.png,1", r"line 2: 3 values under 4 columns"),
    ],
)
def test_kadid10k_bad_rows(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "dmos.csv").write_text(f"dist_img,ref_img,dmos,var\n{row}\n")
    with pytest.raises(GlpiError, match=message):
        load_database("kadid10k", tmp_path)


@pytest.mark.parametrize("variant", [None, "underscore"])
def test_livemd(tmp_path: Path, variant: str | None) -> None:
    database = read(
        "livemd", tmp_path / "md", references=15, images_per_reference=15, variant=variant
    )
    assert len(database) == 450
    assert len(database.reference_order) == 15
    assert database.reference_order[:3] == ("babygirl", "bikerace", "cows")
    assert (database.score_name, database.higher_is_better) == ("DMOS", False)
    assert Counter(database.distortions) == {"blurjpeg": 225, "blurnoise": 225}
    # Both parts have an image of this name; Part 1 comes first.
    first, second = "Part 1/blurjpeg", "Part 2/blurnoise"
    if variant:
        first, second = first.replace(" ", "_"), second.replace(" ", "_")
    rows = [row_of(database, f"{place}/cows_blur1.bmp") for place in (first, second)]
    assert rows[0] < 225 <= rows[1]
    assert [database.references[row] for row in rows] == ["cows", "cows"]


def test_livemd_with_part_2_in_another_order(tmp_path: Path) -> None:
    root = build_miniature(
        "livemd", tmp_path / "md", references=3, images_per_reference=1, draw=False
    )
    names = ["cows_blur1.bmp", "babygirl_blur1.bmp", "bikerace_blur1.bmp"]
    scipy.io.savemat(root / "Part 2/Imagelists.mat", {"distimgs": cell_array(names, column=True)})
    scipy.io.savemat(root / "Part 2/Scores.mat", {"DMOSscores": np.array([[1.5, 2.5, 3.5]])})
    database = load_database("livemd", root)
    assert database.reference_order == ("babygirl", "bikerace", "cows")
    assert [Path(image).name for image in database.images[3:]] == names
    assert database.scores[3:].tolist() == [1.5, 2.5, 3.5]


def test_livemd_without_its_second_part(tmp_path: Path) -> None:
    root = build_miniature(
        "livemd", tmp_path / "md", references=1, images_per_reference=1, draw=False
    )
    (root / "Part 2/Imagelists.mat").unlink()
    with pytest.raises(GlpiError, match=r"Part 2/Imagelists\.mat: the label file is missing"):
        load_database("livemd", root)
    names = cell_array(["cows.bmp"], column=True)
    scipy.io.savemat(root / "Part 2/Imagelists.mat", {"distimgs": names})
    with pytest.raises(GlpiError, match=r"Scores\.mat entry 1: 'cows\.bmp' is not a LIVE-MD name"):
        load_database("livemd", root)
