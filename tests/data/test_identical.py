"""Identical images lie in one part of a strict split; the official split stays as it is."""

import hashlib
import json
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from miniatures import build_miniature
from ml_collections import ConfigDict
from saqt_miniature import build_photographs

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.identical import Identical, fingerprints, identical_images, keep_together
from glpi_jax.data.prepare import prepare_database
from glpi_jax.data.sources import Database, PhotographRows, load_database
from glpi_jax.data.sources.prepared import PREPARED_FILE, RecordReader
from glpi_jax.data.splits import (
    Split,
    check_split,
    official_database_split,
    official_seed,
    read_split,
    strict_split,
    whole_split,
    write_split,
)
from glpi_jax.evaluation.protocols import make_split

PARTS = ("train", "validation", "test")
ROUNDS = range(1, 11)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """CLIVE of twenty photographs of which two are identical."""
    root = build_miniature("clive", tmp_path_factory.mktemp("pair") / "clive", references=20)
    images = load_database("clive", root).images
    shutil.copy(root / images[3], root / images[11])
    return load_database("clive", root)


@pytest.fixture(scope="module")
def distinct(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """CLIVE of twenty different photographs, whose BMP files are of one size."""
    root = build_miniature("clive", tmp_path_factory.mktemp("distinct") / "clive", references=20)
    return load_database("clive", root)


def config_of(database: Database, number: int = 1, protocol: str = "strict") -> ConfigDict:
    config = load_config(f"{shipped_config('authentic')}:clive")
    config.data.root = str(database.root)
    config.split.round, config.protocol = number, protocol
    return config


def plain(database: Database, number: int) -> Split:
    """The strict split without the rule."""
    return strict_split(
        database, train_fraction=0.8, validation_fraction=0.2, seed=official_seed(number)
    )


def shared(database: Database, split: Split) -> set[str]:
    """Names and SHA-256 of images that are in two parts."""
    found = []
    for part in PARTS:
        rows = getattr(split, part)
        names = {database.images[row] for row in rows}
        assert len(names) == len(rows)
        digests = {hashlib.sha256(database.encoded(row)).hexdigest() for row in rows}
        found.append(names | digests)
    return set().union(*(one & other for one, other in combinations(found, 2)))


def test_strict_split_of_a_database_with_a_pair_is_disjoint_by_name_and_content(
    pair: Database,
) -> None:
    places = Counter()
    apart = 0
    for number in ROUNDS:
        before, split = plain(pair, number), make_split(config_of(pair, number), pair)
        apart += bool(shared(pair, before))
        assert not shared(pair, split)
        # No image is lost, the official test part is the beginning of the test part.
        assert sorted([*split.train, *split.validation, *split.test]) == list(range(20))
        assert split.test[: len(before.test)] == before.test
        parts = {part: set(getattr(before, part)) & {3, 11} for part in PARTS}
        part = "test" if parts["test"] else "validation" if parts["validation"] else "train"
        places[part] += 1
        assert {3, 11} <= set(getattr(split, part))
        assert [row for row in split.train if row not in (3, 11)] == [
            row for row in before.train if row not in (3, 11)
        ]
        names = (pair.images[3], pair.images[11])
        assert identical_images(pair, split) == (Identical(names, part, ()),)
    # Without the rule rounds would share them; every part is chosen in one round or more.
    assert apart >= 3
    assert set(places) == set(PARTS)


def test_official_split_of_a_database_with_a_pair_stays_and_reads_no_image(
    pair: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "encoded_size", lambda *_: pytest.fail("asked for a size"))
    for number in ROUNDS:
        split = make_split(config_of(pair, number, "official"), pair)
        assert split == official_database_split(
            pair, train_fraction=0.8, seed=official_seed(number)
        )
        assert split.fingerprints == {}


def test_strict_split_without_identical_images_keeps_every_row_in_its_place(
    distinct: Database,
) -> None:
    for number in ROUNDS:
        split = make_split(config_of(distinct, number), distinct)
        assert split == plain(distinct, number)
        assert identical_images(distinct, split) == ()
        assert split.fingerprints.keys() == set(distinct.images)


def test_only_files_whose_size_another_has_are_read(
    distinct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [distinct.path(row).stat().st_size for row in range(20)]
    colliding = {row for row in range(20) if sizes.count(sizes[row]) > 1}
    assert 0 < len(colliding) < 20
    read: list[int] = []
    encoded = Database.encoded
    monkeypatch.setattr(
        Database, "encoded", lambda self, row: read.append(row) or encoded(self, row)
    )
    found = fingerprints(distinct, threads=2)
    assert sorted(read) == sorted(colliding)
    assert len(set(found.values())) == 20  # of one size, but not of one content
    for row, name in enumerate(distinct.images):
        digest = f"-{hashlib.sha256(distinct.path(row).read_bytes()).hexdigest()}"
        assert found[name] == f"{sizes[row]}{digest if row in colliding else ''}"


def test_images_that_share_a_reference_are_not_read(
    small_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "encoded_size", lambda *_: pytest.fail("asked for a size"))
    assert fingerprints(small_database, threads=1) == {}
    split = strict_split(small_database, train_fraction=0.7, validation_fraction=0.3, seed=1)
    assert keep_together(small_database, split, threads=1, move=True) == split


def test_cross_dataset_source_keeps_a_pair_out_of_training_if_it_validates(pair: Database) -> None:
    config = load_config(f"{shipped_config('cross')}:clive-agiqa3k")
    apart = 0
    for number in ROUNDS:
        config.split.round = number
        before = whole_split(pair, validation_fraction=0.2, seed=official_seed(number))
        split = make_split(config, pair)
        apart += bool(shared(pair, before))
        assert not shared(pair, split)
        assert set(before.validation) <= set(split.validation)
        assert len(split.train) + len(split.validation) == 20
    assert apart >= 2


def test_given_split_leaves_the_copy_out_and_keeps_its_test_part(
    pair: Database, tmp_path: Path
) -> None:
    number = next(n for n in ROUNDS if 3 in plain(pair, n).train and 11 in plain(pair, n).test)
    before = plain(pair, number)
    write_split(tmp_path / "given.json", pair, before)
    config = config_of(pair)
    config.split.kind, config.split.name = "file", str(tmp_path / "given.json")
    split = make_split(config, pair)
    assert split.test == before.test
    assert split.validation == before.validation
    assert split.train == tuple(row for row in before.train if row != 3)
    names = (pair.images[3], pair.images[11])
    assert identical_images(pair, split) == (Identical(names, "test", names[:1]),)
    config.protocol = "official"
    assert make_split(config, pair) == before


def test_part_of_copies_alone_is_an_error(pair: Database) -> None:
    names = (3, 11, 0)
    with pytest.raises(
        GlpiError, match=r"clive: every image of the validation part is identical.*remove the copie"
    ):
        keep_together(pair, Split((0,), (3,), (11,)), threads=1, move=True)
    split = keep_together(pair, Split(names[2:], (1,), names[:2]), threads=1, move=True)
    assert split == Split((0,), (1,), (3, 11))


def test_missing_image_is_named(pair: Database, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(pair.root, root)
    copy = load_database("clive", root)
    copy.path(2).unlink()
    with pytest.raises(GlpiError, match=Path(copy.images[2]).name):
        make_split(config_of(copy), copy)


def test_fingerprints_are_written_with_the_split_and_prove_it(
    pair: Database, tmp_path: Path
) -> None:
    path = tmp_path / "split.json"
    number = next(n for n in ROUNDS if shared(pair, plain(pair, n)))
    split = make_split(config_of(pair, number), pair)
    write_split(path, pair, split)
    written = json.loads(path.read_text())
    found = written["fingerprints"]
    contents = [{found[name] for name in written[part]} for part in PARTS]
    assert len(set().union(*contents)) == sum(map(len, contents)) == 19
    again = read_split(path, pair)
    assert again == split
    assert again.fingerprints == split.fingerprints
    write_split(path, pair, plain(pair, number))
    assert "fingerprints" not in json.loads(path.read_text())
    path.write_text(json.dumps(written | {"fingerprints": {"a": 1}}))
    with pytest.raises(GlpiError, match=r"split\.json: 'fingerprints' must map"):
        read_split(path, pair)


def test_split_with_one_content_in_two_parts_is_refused(pair: Database) -> None:
    found = fingerprints(pair, threads=1)
    with pytest.raises(GlpiError, match=r"are identical, but in the train and the test part"):
        check_split(pair, Split((0, 3), (1,), (11,), found))
    assert check_split(pair, Split((0,), (1,), (3, 11), found))


def test_prepared_database_gets_the_split_of_its_files(pair: Database, tmp_path: Path) -> None:
    folder = prepare_database(pair, tmp_path / "out", progress=False)
    prepared = load_database("prepared", folder)
    number = next(n for n in ROUNDS if shared(pair, plain(pair, n)))
    expected = make_split(config_of(pair, number), pair)
    split = make_split(config_of(prepared, number), prepared)
    assert split == expected
    assert split.fingerprints == expected.fingerprints
    # Earlier versions wrote no sizes.
    table = json.loads((folder / PREPARED_FILE).read_text())
    sizes = table.pop("image_bytes")
    assert sizes == [pair.path(row).stat().st_size for row in range(20)]
    (folder / PREPARED_FILE).write_text(json.dumps(table))
    older = load_database("prepared", folder)
    assert make_split(config_of(older, number), older).fingerprints == expected.fingerprints
    (folder / PREPARED_FILE).write_text(json.dumps(table | {"image_bytes": sizes[1:]}))
    with pytest.raises(GlpiError, match=r"not the table of .* \(19 sizes of 20 images\)"):
        load_database("prepared", folder)


def test_prepared_images_of_a_size_of_their_own_are_not_read(
    distinct: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = load_database(
        "prepared", prepare_database(distinct, tmp_path / "out", progress=False)
    )
    read: list[int] = []
    record = RecordReader.__call__
    monkeypatch.setattr(
        RecordReader, "__call__", lambda self, row: read.append(row) or record(self, row)
    )
    fingerprints(prepared, threads=1)
    assert 0 < len(read) < 20


def test_identical_photographs_keep_all_their_rows_together(tmp_path: Path) -> None:
    folder = build_photographs(tmp_path / "set", photographs=4)
    database = load_database("saqt", folder / "photographs", folder / "labels")
    assert database.photographs is not None
    files = database.photographs.files
    shutil.copy(database.root / files[0], database.root / files[2])
    split = Split(*(PhotographRows(items) for items in ((1, 0), (3,), (2,))))
    joined = keep_together(database, split, threads=1, move=True)
    assert [part.photographs for part in (joined.train, joined.validation, joined.test)] == [
        (1,),
        (3,),
        (2, 0),
    ]
    assert len(joined.test) == 250
    assert identical_images(database, joined) == (Identical((files[0], files[2]), "test", ()),)
