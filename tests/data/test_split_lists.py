"""Splits as lists of images, one text file a part."""

from pathlib import Path

import numpy as np
import pytest

from glpi_jax.data.sources import Database
from glpi_jax.data.split_lists import read_list_split
from glpi_jax.data.splits import Split
from glpi_jax.errors import GlpiError

# As LIVE lies on disk: the same file name in several folders.
IMAGES = ("databaserelease2/jp2k/img1.bmp", "databaserelease2/wn/img1.bmp", "wn/img2.bmp", "a.bmp")


@pytest.fixture
def table() -> Database:
    return Database(
        name="table",
        root=Path("nowhere"),
        images=IMAGES,
        scores=np.arange(4.0),
        references=("one", "one", "two", "three"),
        reference_order=("one", "two", "three"),
        distortions=(None,) * 4,
        levels=(None,) * 4,
        score_name="MOS",
        higher_is_better=True,
        label_note="",
    )


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
