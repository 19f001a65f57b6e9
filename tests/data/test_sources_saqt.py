"""Label tables of SAQT and the photographs beside them."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from saqt_miniature import build_photographs

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.prepare import prepare_database
from glpi_jax.data.sources import Database, check_database, load_database
from glpi_jax.distortions import find_distortion
from glpi_jax.saqt.render import render_photographs
from glpi_jax.saqt.render_photograph import RenderSettings
from glpi_jax.saqt.selection import select_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_photographs(tmp_path / "set", photographs=3)


def labels_of(folder: Path) -> Path:
    return folder / "labels/labels_001.csv"


def edit(folder: Path, change: Callable[[list[list[str]]], Any]) -> None:
    """Change the rows of the table, the first of which is its header."""
    with labels_of(folder).open(newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with labels_of(folder).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.mark.parametrize("columns", ["old", "new"])
def test_both_tables_give_the_same_rows(tmp_path: Path, columns: Any) -> None:
    folder = build_photographs(tmp_path / "set", photographs=3, columns=columns)
    database = load_database("saqt", folder / "photographs", labels_of(folder))
    assert len(database) == 375
    with labels_of(folder).open(newline="") as file:
        table = list(csv.reader(file))[1:]
    for row, (name, score, *_) in enumerate(table):
        assert database.images[row] == name
        assert database.scores[row] == float(score)
        assert database.references[row] == ("photo3.png", "photo2.bmp", "photo1.png")[row // 125]
        assert database.distortions[row] == find_distortion(row % 125 // 5 + 1).name
        assert database.levels[row] == row % 5 + 1
    assert database.reference_order == ("photo1.png", "photo2.bmp", "photo3.png")
    assert (database.score_name, database.higher_is_better) == ("DMOS", True)
    assert database.path(130) == folder / "photographs/photo2.bmp"
    assert database.encoded(130) == (folder / "photographs/photo2.bmp").read_bytes()
    assert database.left_out == ()


def test_a_folder_of_tables_is_one_database_whatever_the_order_of_rows(folder: Path) -> None:
    whole = load_database("saqt", folder / "photographs", folder / "labels")
    header, *lines = labels_of(folder).read_text().splitlines()
    (folder / "labels/b.csv").write_text("\n".join([header, *lines[125:][::-1]]) + "\n")
    (folder / "labels/a.csv").write_text("\n".join([header, *lines[124::-1]]) + "\n")
    labels_of(folder).unlink()
    parts = load_database("saqt", folder / "photographs", folder / "labels")
    # b.csv begins with the last photograph
    order = [*range(125), *range(250, 375), *range(125, 250)]
    assert list(parts.images) == [whole.images[row] for row in order]
    np.testing.assert_array_equal(parts.scores, whole.scores[order])
    assert list(parts.references) == [whole.references[row] for row in order]


def test_tables_that_were_not_all_replaced_are_refused(folder: Path) -> None:
    labels_of(folder).rename(folder / "labels/labels_002.csv")
    with pytest.raises(GlpiError, match=r"labels_001\.csv is missing beside labels_002\.csv"):
        load_database("saqt", folder / "photographs", folder / "labels")
    alone = folder / "labels/labels_002.csv"
    assert len(load_database("saqt", folder / "photographs", alone)) == 375


def test_images_of_another_suffix(folder: Path) -> None:
    text = labels_of(folder).read_text()
    labels_of(folder).write_text(text.replace(".bmp,", ".png,").replace("photo2.png", "photo2.bmp"))
    database = load_database("saqt", folder / "photographs", folder / "labels")
    assert database.images[5] == "001/photo3_02_01.png"


def test_blank_lines_are_no_rows(folder: Path) -> None:
    whole = load_database("saqt", folder / "photographs", folder / "labels")
    text = labels_of(folder).read_text()
    lines = text.splitlines(keepends=True)
    labels_of(folder).write_text("".join([*lines[:4], "\n", ",,,,,\n", *lines[4:], " \n", "\n"]))
    database = load_database("saqt", folder / "photographs", folder / "labels")
    assert list(database.images) == list(whole.images)
    np.testing.assert_array_equal(database.scores, whole.scores)
    labels_of(folder).write_text("".join([*lines[:4], "\n", "001/photo3_01_04.bmp\n"]))
    with pytest.raises(GlpiError, match="line 6: not as many values as columns"):
        load_database("saqt", folder / "photographs", folder / "labels")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.pop(7), "001/photo3 has no label for type 2 level 2"),
        (lambda rows: rows.append(rows[7]), "001/photo3 has several labels for type 2 level 2"),
    ],
)
def test_photographs_without_all_labels(folder: Path, change: Any, words: str) -> None:
    edit(folder, change)
    source = ("saqt", folder / "photographs", folder / "labels")
    with pytest.raises(GlpiError, match=f"1 of 3 photographs cannot be used: {words}"):
        load_database(*source)
    rest = load_database(*source, skip_bad=True)
    assert rest.left_out == (words,)
    assert rest.reference_order == ("photo1.png", "photo2.bmp")
    assert rest.images[0] == "001/photo2_01_01.bmp"
    assert rest.scores[0] == 5.1


@pytest.mark.parametrize("columns", ["old", "new"])
def test_photographs_that_are_missing(tmp_path: Path, columns: Any) -> None:
    folder = build_photographs(tmp_path / "set", photographs=3, columns=columns)
    for name in ("photo3.png", "photo1.png"):
        (folder / "photographs" / name).unlink()
    (folder / "photographs/photo1.png").mkdir()  # a folder is none
    source = ("saqt", folder / "photographs", folder / "labels")
    name = {"old": r"photo3\.\*", "new": r"photo3\.png"}[columns]
    message = rf"labels: 2 of 3 photographs cannot be used: the photograph {name} is not in .*skip"
    with pytest.raises(GlpiError, match=message):
        load_database(*source)
    rest = load_database(*source, skip_bad=True)
    assert len(rest.left_out) == 2
    assert (len(rest), rest.scores[0]) == (125, 5.1)
    (folder / "photographs/photo2.bmp").unlink()
    with pytest.raises(GlpiError, match="no photograph can be used"):
        load_database(*source, skip_bad=True)


def test_a_stem_that_two_photographs_have(tmp_path: Path) -> None:
    folder = build_photographs(tmp_path / "set", photographs=1, columns="old")
    (folder / "photographs/photo1.txt").write_text("no photograph")
    source = ("saqt", folder / "photographs", folder / "labels")
    load_database(*source)
    (folder / "photographs/photo1.JPG").touch()
    with pytest.raises(GlpiError, match=r"'photo1' could mean photo1\.JPG or photo1\.png"):
        load_database(*source)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[0].__setitem__(0, "image"), "not a SAQT label table: its columns"),
        (lambda rows: rows[3].pop(), "line 4: not as many values as columns"),
        (lambda rows: rows[3].__setitem__(0, "001/a_26_01.bmp"), "line 4: '001/a_26_01.bmp' is"),
        (lambda rows: rows[3].__setitem__(0, "001/a_01_01.png"), "line 4: '001/a_01_01.png' is"),
        (lambda rows: rows[3].__setitem__(1, "nan"), "line 4: label 'nan' is no finite number"),
        (lambda rows: rows[3].__setitem__(1, "high"), "line 4: label 'high' is no finite number"),
        (lambda rows: rows[3].__setitem__(1, "1e39"), "line 4: label '1e39' is no finite"),
        (lambda rows: rows[3].__setitem__(2, "b.png"), "images of 'photo3.png' and 'b.png' have"),
        (
            lambda rows: [row.__setitem__(2, "../x.png") for row in rows[1:126]],
            "'../x.png' is not the name of a photograph",
        ),
        (
            lambda rows: [row.__setitem__(2, "photo1.png") for row in rows[1:126]],
            "photo1.png is labelled under two names",
        ),
        (lambda rows: rows.__delitem__(slice(1, None)), "the tables hold no labels"),
    ],
)
def test_tables_that_are_not_as_they_should_be(folder: Path, change: Any, words: str) -> None:
    edit(folder, change)
    with pytest.raises(GlpiError) as caught:
        load_database("saqt", folder / "photographs", folder / "labels")
    assert words in str(caught.value)
    assert "labels" in str(caught.value) or "photograph" in str(caught.value)


def test_labels_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    photographs = folder / "photographs"
    with pytest.raises(GlpiError, match="needs the path of its label file"):
        load_database("saqt", photographs)
    with pytest.raises(GlpiError, match="nowhere: the label file is missing"):
        load_database("saqt", photographs, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GlpiError, match="empty: no table in this folder"):
        load_database("saqt", photographs, tmp_path / "empty")
    with pytest.raises(GlpiError, match="the label file is missing"):  # a folder is none for pyiqa
        load_database("pyiqa", photographs, tmp_path / "empty")


def test_check_decodes_each_photograph_once(folder: Path) -> None:
    source = ("saqt", folder / "photographs", folder / "labels")
    report = check_database(*source, threads=2, progress=False)
    assert report.problems == ()
    assert dict(report.facts)["image sizes"] == "52×48"
    (folder / "photographs/photo2.bmp").write_text("text")
    [problem] = check_database(*source, threads=2, progress=False).problems
    assert "photo2.bmp: not an image" in problem


def test_photographs_are_not_prepared(folder: Path, tmp_path: Path) -> None:
    database = load_database("saqt", folder / "photographs", folder / "labels")
    with pytest.raises(GlpiError, match="render them first"):
        prepare_database(database, tmp_path / "prepared", progress=False)
    assert not (tmp_path / "prepared").exists()


@pytest.fixture(params=["old", "new"])
def scattered(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Photographs in folders that the tables do not name."""
    folder = build_photographs(tmp_path / "set", photographs=3, columns=request.param)
    root = folder / "photographs"
    (root / "sea/north").mkdir(parents=True)
    (root / "photo1.png").rename(root / "sea/north/photo1.png")
    (root / "photo3.png").rename(root / "sea/photo3.png")
    return folder


def load(folder: Path) -> Database:
    return load_database("saqt", folder / "photographs", folder / "labels")


def test_photographs_are_found_in_subfolders(scattered: Path) -> None:
    database = load(scattered)
    assert [database.references[row] for row in (0, 125, 250)] == [
        "sea/photo3.png",
        "photo2.bmp",
        "sea/north/photo1.png",
    ]
    assert database.encoded(0) == (scattered / "photographs/sea/photo3.png").read_bytes()
    assert database.images[0] == "001/photo3_01_01.bmp"


@pytest.mark.parametrize("other", ["photo1.png", "lake/photo1.png"])
def test_one_name_in_two_folders_is_refused(scattered: Path, other: str) -> None:
    path = scattered / "photographs" / other
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(
        GlpiError, match=rf"'photo1.*' could mean {other} or sea/north/photo1\.png in .*photographs"
    ):
        load(scattered)


def test_rendered_images_are_no_photographs(scattered: Path) -> None:
    out = scattered / "photographs/out"
    settings = RenderSettings((1,), (1,), 0, None, "png", False, False)
    render_photographs(
        select_all(scattered / "photographs"),
        out,
        settings,
        shard=(1, 1),
        processes=1,
        skip_bad=False,
        progress=False,
    )
    (out / "001/photo1_01_01.png").rename(out / "001/photo1.png")
    assert load(scattered).references[374] == "sea/north/photo1.png"


def test_a_folder_that_cannot_be_listed_hides_no_other(
    scattered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scattered / "photographs/lost+found").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith(locked):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    locked = "lost+found"
    assert len(load(scattered)) == 375
    locked = "photographs"
    with pytest.raises(GlpiError, match="photographs: this folder cannot be listed"):
        load(scattered)


def test_names_in_another_case_and_of_any_suffix(folder: Path) -> None:
    root = folder / "photographs"
    (root / "sea").mkdir()
    (root / "photo1.png").rename(root / "sea/Photo1.PNG")
    (root / "photo2.bmp").rename(root / "photo2.raw")
    labels_of(folder).write_text(labels_of(folder).read_text().replace("photo2.bmp", "photo2.raw"))
    database = load(folder)
    assert database.reference_order == ("photo2.raw", "photo3.png", "sea/Photo1.PNG")
    (root / "photo1.png").touch()  # an exact match wins
    assert load(folder).references[374] == "photo1.png"


def test_photographs_that_lie_in_folders(folder: Path) -> None:
    (folder / "photographs/sea").mkdir()
    (folder / "photographs/photo1.png").rename(folder / "photographs/sea/photo1.png")

    def move(rows: list[list[str]]) -> None:
        for row in rows:
            if row[2] == "photo1.png":
                row[2] = "sea/photo1.png"

    edit(folder, move)
    database = load_database("saqt", folder / "photographs", folder / "labels")
    assert database.references[374] == "sea/photo1.png"
    assert database.photographs is not None
    assert database.photographs.file_name(2) == "photo1.png"
    with Image.open(database.path(374)) as photograph:
        assert photograph.size == (52, 48)
