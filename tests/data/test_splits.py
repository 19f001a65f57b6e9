import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import (
    Split,
    official_database_split,
    official_seed,
    official_split,
    published_split,
    read_split,
    split_references,
    split_sha256,
    strict_split,
    whole_split,
    write_split,
)


def database(references: int, per_reference: int = 3) -> Database:
    """A table alone: no image exists."""
    names = tuple(f"r{i:02d}_{j}.png" for i in range(references) for j in range(per_reference))
    contents = tuple(name.split("_")[0] for name in names)
    return Database(
        name="table",
        root=Path("nowhere"),
        images=names,
        scores=np.arange(len(names), dtype=np.float64),
        references=contents,
        reference_order=tuple(sorted(set(contents))),
        distortions=(None,) * len(names),
        levels=(None,) * len(names),
        score_name="MOS",
        higher_is_better=True,
        label_note="",
    )


def test_official_split_of_tid2013_round_1() -> None:
    train, test = official_split(range(25), train_fraction=0.8, seed=official_seed(1))
    assert len(train) == 20
    assert test == (11, 9, 0, 23, 13)


@pytest.mark.parametrize(("count", "trained"), [(29, 23), (30, 24), (81, 65), (586, 469)])
def test_official_split_rounds_the_count(count: int, trained: int) -> None:
    keys = [f"k{index}" for index in range(count)]
    train, test = official_split(keys, train_fraction=0.8, seed=0)
    assert len(train) == trained
    assert sorted(train + test) == sorted(keys)
    order = list(range(count))
    random.Random(0).shuffle(order)
    assert [*train, *test] == [keys[index] for index in order]


def test_seeds_of_rounds() -> None:
    assert [official_seed(index) for index in (1, 2, 10)] == [12345, 24690, 123450]


def test_official_database_split_follows_the_shuffled_references() -> None:
    table = database(10)
    split = official_database_split(table, train_fraction=0.8, seed=12345)
    train, test = official_split(table.reference_order, train_fraction=0.8, seed=12345)
    assert split.validation == ()
    assert [table.references[row] for row in split.train] == [r for r in train for _ in range(3)]
    assert [table.references[row] for row in split.test] == [r for r in test for _ in range(3)]


def test_strict_split() -> None:
    table = database(10)
    split = strict_split(table, train_fraction=0.8, validation_fraction=0.25, seed=12345)
    official = official_database_split(table, train_fraction=0.8, seed=12345)
    assert split.test == official.test
    assert sorted(split.train + split.validation) == sorted(official.train)
    parts = [
        set(split_references(table, rows)) for rows in (split.train, split.validation, split.test)
    ]
    assert [len(part) for part in parts] == [6, 2, 2]
    # Written down so that a seed keeps meaning the same split.
    assert sorted(parts[1]) == ["r01", "r09"]
    assert len(set.union(*parts)) == 10


def test_strict_split_depends_on_the_seed_and_keeps_one_for_validation() -> None:
    table = database(11)
    splits = [
        strict_split(table, train_fraction=0.8, validation_fraction=0.01, seed=seed)
        for seed in range(6)
    ]
    assert all(len(split_references(table, split.validation)) == 1 for split in splits)
    assert len({split.validation for split in splits}) > 1
    again = strict_split(table, train_fraction=0.8, validation_fraction=0.01, seed=3)
    assert again == splits[3]


def test_too_few_references() -> None:
    with pytest.raises(GlpiError, match="1 references are too few"):
        official_database_split(database(1), train_fraction=0.8, seed=0)
    with pytest.raises(GlpiError, match="2 references are too few"):
        strict_split(database(2), train_fraction=0.5, validation_fraction=0.2, seed=0)
    smallest = strict_split(database(3), train_fraction=0.8, validation_fraction=0.2, seed=0)
    assert [len(smallest.train), len(smallest.validation), len(smallest.test)] == [3, 3, 3]


def test_fractions_are_checked() -> None:
    with pytest.raises(GlpiError, match="train fraction 1"):
        official_split([1, 2], train_fraction=1, seed=0)
    with pytest.raises(GlpiError, match="validation fraction 0"):
        strict_split(database(9), train_fraction=0.8, validation_fraction=0, seed=0)


def test_whole_split_has_no_test_part() -> None:
    table = database(10)
    everything = whole_split(table, validation_fraction=None, seed=0)
    assert (sorted(everything.train), everything.validation, everything.test) == (
        list(range(30)),
        (),
        (),
    )
    split = whole_split(table, validation_fraction=0.2, seed=0)
    assert (len(split.train), len(split.validation), split.test) == (24, 6, ())
    assert split != whole_split(table, validation_fraction=0.2, seed=1)


def test_published_split() -> None:
    parts = ("train", "validation", "test", None, "train", "test")
    table = replace(database(6, per_reference=1), published_splits={"official": parts})
    assert published_split(table, "official") == Split((0, 4), (1,), (2, 5))
    with pytest.raises(GlpiError, match=r"no published split 'other' \(known: official\)"):
        published_split(table, "other")
    with pytest.raises(GlpiError, match="is its split file in the folder"):
        published_split(database(6), "official")
    without = replace(table, published_splits={"half": ("train",) * 6})
    with pytest.raises(GlpiError, match="'half' has no test part"):
        published_split(without, "half")


def test_published_split_that_shares_a_reference_is_refused() -> None:
    table = replace(database(2), published_splits={"bad": ("train",) * 4 + ("test",) * 2})
    with pytest.raises(GlpiError, match="reference 'r01' is in both"):
        published_split(table, "bad")


def reordered(table: Database) -> Database:
    rows = np.random.default_rng(0).permutation(len(table)).tolist()
    return replace(
        table,
        images=tuple(table.images[row] for row in rows),
        references=tuple(table.references[row] for row in rows),
        scores=table.scores[rows],
    )


def test_written_split_is_read_back_whatever_the_row_order(tmp_path: Path) -> None:
    table = database(10)
    split = strict_split(table, train_fraction=0.8, validation_fraction=0.2, seed=1)
    path = tmp_path / "deep" / "split.json"
    write_split(path, table, split)
    assert read_split(path, table) == split
    other = reordered(table)
    again = read_split(path, other)
    assert again != split
    for rows, other_rows in zip(
        (split.train, split.validation, split.test),
        (again.train, again.validation, again.test),
        strict=True,
    ):
        assert [table.images[row] for row in rows] == [other.images[row] for row in other_rows]
    assert split_sha256(table, split) == split_sha256(other, again)
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]


def test_same_split_whatever_the_row_order() -> None:
    table = database(10)
    digests = {
        split_sha256(data, strict_split(data, train_fraction=0.8, validation_fraction=0.2, seed=5))
        for data in (table, reordered(table))
    }
    assert len(digests) == 1


def test_digest_tells_splits_apart() -> None:
    table = database(10)
    split = strict_split(table, train_fraction=0.8, validation_fraction=0.2, seed=1)
    swapped = Split(split.validation, split.train, split.test)
    assert split_sha256(table, split) != split_sha256(table, swapped)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = database(10)
    path = tmp_path / "split.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr("glpi_jax.core.files.os.replace", fail)
    split = official_database_split(table, train_fraction=0.8, seed=0)
    with pytest.raises(GlpiError, match="disk full"):
        write_split(path, table, split)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("split.json", "old")]


def test_bad_split_files(tmp_path: Path) -> None:
    table = database(10)
    path = tmp_path / "split.json"
    with pytest.raises(GlpiError, match="no such split file"):
        read_split(path, table)
    path.write_text("{")
    with pytest.raises(GlpiError, match=r"split\.json: cannot be read as JSON"):
        read_split(path, table)
    path.write_text("[]")
    with pytest.raises(GlpiError, match="not a split file of format 1"):
        read_split(path, table)

    split = strict_split(table, train_fraction=0.8, validation_fraction=0.2, seed=1)
    write_split(path, table, split)
    good = json.loads(path.read_text())

    def read_changed(**changes: object) -> None:
        path.write_text(json.dumps({**good, **changes}))
        read_split(path, table)

    with pytest.raises(GlpiError, match="'test' must be a list of image names"):
        read_changed(test=3)
    with pytest.raises(GlpiError, match=r"1 images of 'test' are not in table \(x\.png\)"):
        read_changed(test=["x.png"])
    with pytest.raises(GlpiError, match="was edited"):
        read_changed(test=good["test"][1:])
    with pytest.raises(GlpiError, match="test part lists an image twice"):
        read_changed(test=good["test"][:1] * 2)
    with pytest.raises(GlpiError, match="train part is empty"):
        read_changed(train=[])
    with pytest.raises(GlpiError, match=r"reference 'r\d\d' is in both the train and the test"):
        read_changed(test=good["test"] + good["train"][:1], train=good["train"][1:])
