"""Splits as lists of images, one text file a part."""

from pathlib import Path

import numpy as np
import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database
from glpi_jax.data.split_lists import read_list_split
from glpi_jax.data.splits import Split

# As LIVE lies on disk: the same file name in several folders.
IMAGES = ("databaserelease2/jp2k/img1.bmp", "databaserelease2/wn/img1.bmp", "wn/img2.bmp", "a.bmp")


def database(images: tuple[str, ...], references: tuple[str, ...]) -> Database:
    return Database(
        name="table",
        root=Path("nowhere"),
        images=images,
        scores=np.arange(float(len(images))),
        references=references,
        reference_order=tuple(dict.fromkeys(references)),
        distortions=(None,) * len(images),
        levels=(None,) * len(images),
        score_name="MOS",
        higher_is_better=True,
        label_note="",
    )


@pytest.fixture
def table() -> Database:
    return database(IMAGES, ("one", "one", "two", "three"))


def write(folder: Path, **lists: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_names_may_be_the_end_of_a_path(table: Database, tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        live_train_clip="wn/img1.bmp\t80.1\twhite noise\n\njp2k/img1.bmp\t2\n",
        live_val_clip="img2.bmp\t3\n",
        live_test_clip="./a.bmp\n",
    )
    assert read_list_split(folder, table) == Split(train=(1, 0), validation=(2,), test=(3,))
    (folder / "live_val_clip.txt").unlink()
    assert read_list_split(folder, table).validation == ()


@pytest.mark.parametrize(
    ("images", "listed"),
    [
        (("512x384/1.jpg", "512x384/2.JPG"), ("1024x768/1.jpg", "1024x768/2.jpg")),
        (("dst_imgs/AWGN/a.AWGN.1.png", "dst_imgs/BLUR/a.BLUR.1.png"),
         ("dst_imgs/awgn/a.AWGN.1.png", "dst_imgs/blur/A.blur.1.PNG")),
        (("a.AWGN.1.png", "a.BLUR.1.png"), ("awgn/a.AWGN.1.png", "blur/a.BLUR.1.png")),
        (("x/a.png", "x/A.png"), ("x/a.png", "x/A.png")),  # case tells them apart
        (("x/a.png", "x/A.png"), ("y/a.png", "y/A.png")),
        (("wn/1.bmp", "wn/2.bmp", "jp2k/1.bmp"), ("WN/1.bmp", "white/2.bmp")),
    ],
)  # fmt: skip
def test_copies_with_other_folders_and_case(
    tmp_path: Path, images: tuple[str, ...], listed: tuple[str, ...]
) -> None:
    folder = write(tmp_path / "lists", train=listed[0], test=listed[1])
    split = read_list_split(folder, database(images, images))
    assert split == Split(train=(0,), validation=(), test=(1,))


@pytest.mark.parametrize("name", ["white/img1.bmp", "A.BMP", "y/a.bmp"])
def test_a_name_that_several_copies_have_stays_ambiguous(tmp_path: Path, name: str) -> None:
    images = ("jp2k/img1.bmp", "wn/img1.bmp", "x/a.bmp", "x/A.bmp", "z/a.bmp", "b.bmp")
    folder = write(tmp_path / "lists", train=name, test="b.bmp")
    with pytest.raises(GlpiError, match=r"train\.txt line 1: '.*' fits \d images of table"):
        read_list_split(folder, database(images, images))


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "img1.bmp", "test": "a.bmp"}, r"train\.txt line 1: 'img1.bmp' fits 2 images of"),
        ({"train": "a.bmp\nb.bmp", "test": "a.bmp"}, r"line 2: 'b.bmp' fits no image of table"),
        ({"train": "a.bmp"}, r"no list for the test part, such as test\.txt"),
        ({"test": "a.bmp"}, "no list for the train part"),
        ({"train": "a.bmp", "test": "\n"}, "the list of the test part names no image"),
        ({"train": "", "test": "a.bmp"}, "the train part is empty"),
        ({"train": "a.bmp\na.bmp", "test": "img2.bmp"}, "train part lists an image twice"),
        ({"train": "wn/img1.bmp", "test": "jp2k/img1.bmp"}, "reference 'one' is in both"),
        (
            {"a_train": "a.bmp", "b_train": "a.bmp", "test": "img2.bmp"},
            r"2 lists for the train part: a_train\.txt, b_train\.txt; keep one",
        ),
    ],
)
def test_bad_lists(table: Database, tmp_path: Path, lists: dict[str, str], message: str) -> None:
    with pytest.raises(GlpiError, match=message):
        read_list_split(write(tmp_path / "lists", **lists), table)


def test_missing_folder(table: Database, tmp_path: Path) -> None:
    with pytest.raises(GlpiError, match="nowhere: no such folder"):
        read_list_split(tmp_path / "nowhere", table)


def test_binary_list(table: Database, tmp_path: Path) -> None:
    folder = write(tmp_path, test="a.bmp")
    (folder / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GlpiError, match=r"train\.txt: cannot be read as text"):
        read_list_split(folder, table)
