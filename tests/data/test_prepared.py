"""The prepared form: the same database as the files, whole or not at all, damage named."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from miniatures import build_miniature

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.data import prepare as prepare_module
from glpi_jax.data.images import ImageError
from glpi_jax.data.prepare import prepare_database
from glpi_jax.data.sources import Database, check_database, load_database
from glpi_jax.data.sources.prepared import PREPARED_FILE


def prepare(database: Database, out: Path) -> Path:
    return prepare_database(database, out, progress=False)


def assert_equal(database: Database, other: Database) -> None:
    """In all but the root and where the images lie."""
    for column in fields(Database):
        if column.name not in ("root", "records"):
            value, expected = getattr(other, column.name), getattr(database, column.name)
            if isinstance(expected, np.ndarray):
                assert value.dtype == expected.dtype
                np.testing.assert_array_equal(value, expected)
            else:
                assert value == expected, column.name
                assert type(value) is type(expected)
    assert [other.encoded(row) for row in range(len(other))] == [
        database.path(row).read_bytes() for row in range(len(database))
    ]


@pytest.mark.parametrize("kind", ["live", "kadid10k", "koniq10k", "bid"])
def test_a_published_database_comes_back_equal(tmp_path: Path, kind: str) -> None:
    database = load_database(kind, build_miniature(kind, tmp_path / "files", references=6))
    assert_equal(database, load_database("prepared", prepare(database, tmp_path / "out")))


def test_gaps_in_the_table_come_back(small_database: Database, tmp_path: Path) -> None:
    """Rows left out, no level or distortion, a spread of opinions for some images only."""
    labels = tmp_path / "meta.csv"
    lines = "img_name,mos,std,official_split\n00.png,0.1,0.3,train\n01.png,1e-30,,\ngone.png,1,1,\n"
    labels.write_text(lines)
    database = load_database("pyiqa", small_database.root, labels, skip_bad=True)
    assert len(database.left_out) == 1
    assert database.label_sd is not None
    assert np.isnan(database.label_sd).tolist() == [False, True]
    out = prepare(database, tmp_path / "new" / "out")
    assert_equal(database, load_database("prepared", out))
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


@pytest.fixture
def prepared(small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """In four shards of three images."""
    sizes = [os.path.getsize(small_database.path(row)) for row in range(12)]
    assert 4 * min(sizes) > 3 * max(sizes)
    monkeypatch.setattr(prepare_module, "SHARD_BYTES", 3 * max(sizes))
    prepare(small_database, tmp_path / "out")
    return load_database("prepared", tmp_path / "out")


def test_any_order_from_threads_over_several_shards(
    small_database: Database, prepared: Database
) -> None:
    assert len(list(prepared.root.glob("*.array_record-*-of-00004"))) == 4
    assert_equal(small_database, prepared)
    rows = np.random.default_rng(0).integers(0, 12, 400).tolist()
    with ThreadPoolExecutor(8) as executor:
        images = list(executor.map(prepared.encoded, rows))
    expected = [path.read_bytes() for path in map(small_database.path, range(12))]
    assert images == [expected[row] for row in rows]


def test_an_image_larger_than_a_shard_has_one_of_its_own(
    small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "SHARD_BYTES", 1)
    out = prepare(small_database, tmp_path / "out")
    assert len(list(out.glob("*.array_record-*-of-00012"))) == 12
    assert_equal(small_database, load_database("prepared", out))


def test_tfds_reads_it_too(small_database: Database, prepared: Database) -> None:
    source = tfds.builder_from_directory(prepared.root).as_data_source(
        split="images", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert len(source) == 12
    for row, example in enumerate(source):
        assert example == {
            "image": small_database.path(row).read_bytes(),
            "name": small_database.images[row].encode(),
            "score": pytest.approx(small_database.scores[row]),
            "reference": small_database.references[row].encode(),
            "distortion": b"noise",
            "level": small_database.levels[row],
        }


def test_reading_needs_no_tensorflow_datasets(prepared: Database) -> None:
    code = (
        "import sys; sys.modules['tensorflow_datasets'] = None\n"
        "from glpi_jax.data.sources import load_database\n"
        f"print(len(load_database('prepared', {str(prepared.root)!r}).encoded(7)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(prepared.encoded(7))


def test_without_tensorflow_datasets_the_extra_is_named(
    small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.delitem(sys.modules, "glpi_jax.data.tfds_builder", raising=False)
    with pytest.raises(GlpiError, match=r"pip install 'glpi_jax\[datasets\]'"):
        prepare(small_database, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_what_exists_is_left_alone(
    small_database: Database, prepared: Database, tmp_path: Path
) -> None:
    before = (prepared.root / PREPARED_FILE).stat().st_mtime_ns
    with pytest.raises(GlpiError, match="out: exists already"):
        prepare(small_database, prepared.root)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(GlpiError, match="link: exists already"):
        prepare(small_database, tmp_path / "link")
    with pytest.raises(GlpiError, match="out: is prepared already"):
        prepare(prepared, tmp_path / "other")
    assert (prepared.root / PREPARED_FILE).stat().st_mtime_ns == before


def test_nothing_is_left_of_what_could_not_be_finished(
    small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(row: int) -> bytes:
        if row == 5:
            raise KeyboardInterrupt
        return small_database.path(row).read_bytes()

    monkeypatch.setattr(Database, "encoded", lambda self, row: interrupt(row))
    with pytest.raises(KeyboardInterrupt):
        prepare(small_database, tmp_path / "out")
    monkeypatch.undo()
    names = [path.name for path in tmp_path.iterdir()]
    assert names == ["small"]

    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(GlpiError, match=r"out: 0\.0 GB are needed, 0\.0 GB are free"):
            prepare(small_database, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(GlpiError, match="out: cannot be written"):
        prepare(small_database, tmp_path / "file" / "out")
    small_database.path(5).unlink()
    with pytest.raises(ImageError, match=r"05\.png: cannot be read \(No such file"):
        prepare(small_database, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "small"]


def test_an_image_that_vanishes_meanwhile_is_named(
    small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_file_size", lambda path: 1000)
    small_database.path(5).unlink()
    with pytest.raises(ImageError, match=r"05\.png: no such image file"):
        prepare(small_database, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_what_a_killed_process_leaves_is_no_prepared_database(
    small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after the last record, before the table is written."""

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "write_json", die)
    monkeypatch.setattr(prepare_module.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        prepare(small_database, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    [shard] = tmp_path.rglob("*.array_record-*")
    with pytest.raises(GlpiError, match=rf"{PREPARED_FILE}: the label file is missing"):
        load_database("prepared", shard.parent)


def test_what_killed_processes_left_is_removed(small_database: Database, tmp_path: Path) -> None:
    """Only of those that are known to have ended: by its number, on this host."""
    host = socket.gethostname()
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead, alive = process.pid, os.getppid()
    gone = [f".out.{host}.{dead}.tmp", f".out.{host}.{os.getpid()}.tmp"]
    kept = [
        f".out.{host}.{alive}.tmp",
        f".out.{host}x.{dead}.tmp",
        f".out.{dead}.tmp",
        f".other.{host}.{dead}.tmp",
        f".out.{host}.{dead}.tmp.bak",
    ]
    for name in gone + kept:
        (tmp_path / name / "glpi_database").mkdir(parents=True)
    prepare(small_database, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "out", "small"}


def test_no_temporary_folder_is_left_elsewhere(
    small_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    prepare(small_database, tmp_path / "out")
    assert not list((tmp_path / "temporary").iterdir())


def test_sigterm_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = build_miniature("koniq10k", tmp_path / "files", references=6)
    encoded = Database.encoded
    staged = []

    def terminate(database: Database, row: int) -> bytes:
        if row == 3:
            staged.extend(tmp_path.glob(".out.*"))
            signal.raise_signal(signal.SIGTERM)
        return encoded(database, row)

    monkeypatch.setattr(Database, "encoded", terminate)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # or a failure would end the tests
    try:
        code = main(["data", "prepare", "koniq10k", str(root), str(tmp_path / "out")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 75
    assert capsys.readouterr().err.splitlines()[-1] == "glpi: terminated"
    assert len(staged) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def change_table(root: Path, **changes: Any) -> None:
    path = root / PREPARED_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1; prepare the database again"),
        ({"scores": [1.0]}, "the columns have different lengths"),
        ({"scores": None}, "not the table of a prepared database"),
        ({"published_splits": []}, "not the table of a prepared database"),
        ({"shards": [{"file": "a"}]}, "not the table of a prepared database"),
        ({"shards": []}, "not the table of a prepared database"),
    ],
)
def test_a_wrong_table_is_one_error(
    prepared: Database, changes: dict[str, Any], message: str
) -> None:
    change_table(prepared.root, **changes)
    with pytest.raises(GlpiError, match=message):
        load_database("prepared", prepared.root)


def test_a_table_that_is_no_json_or_lacks_a_key(prepared: Database) -> None:
    path = prepared.root / PREPARED_FILE
    table = json.loads(path.read_text())
    del table["levels"]
    path.write_text(json.dumps(table))
    with pytest.raises(GlpiError, match=rf"{PREPARED_FILE}: .*no 'levels'"):
        load_database("prepared", prepared.root)
    path.write_text("{")
    with pytest.raises(GlpiError, match=rf"{PREPARED_FILE}: not the table"):
        load_database("prepared", prepared.root)


def test_a_missing_or_short_shard_is_named_at_once(prepared: Database) -> None:
    *_, last = sorted(prepared.root.glob("*.array_record-*"))
    shards = json.loads((prepared.root / PREPARED_FILE).read_text())["shards"]
    change_table(prepared.root, shards=shards[:-1])
    with pytest.raises(GlpiError, match=rf"{PREPARED_FILE}: the shards do not hold 12 records"):
        load_database("prepared", prepared.root)
    change_table(prepared.root, shards=shards)
    content = last.read_bytes()
    last.write_bytes(content[:-7])
    with pytest.raises(GlpiError, match=rf"{last.name}: has {len(content) - 7} of {len(content)}"):
        load_database("prepared", prepared.root)
    last.unlink()
    with pytest.raises(GlpiError, match=f"{last.name}: this file is missing"):
        load_database("prepared", prepared.root)


def test_a_damaged_record_is_named(prepared: Database) -> None:
    """ArrayRecord keeps a checksum of every record."""
    first = min(prepared.root.glob("*.array_record-*"))
    content = bytearray(first.read_bytes())
    place = content.index(prepared.encoded(1)[100:200])
    content[place] ^= 1
    first.write_bytes(content)
    damaged = load_database("prepared", prepared.root)
    with pytest.raises(ImageError, match=r"out: record 1 \(01\.png\) cannot be read"):
        damaged.encoded(1)
    assert damaged.encoded(11) == prepared.encoded(11)


def test_a_record_of_another_image_is_named(prepared: Database) -> None:
    images = list(prepared.images)
    images[3], images[4] = images[4], images[3]
    change_table(prepared.root, images=images)
    with pytest.raises(ImageError, match=r"record 3 is '03\.png', but .* has '04\.png' there"):
        load_database("prepared", prepared.root).encoded(3)


def test_check_opens_the_images_of_a_prepared_database(
    small_database: Database, tmp_path: Path
) -> None:
    small_database.path(4).write_text("text")
    out = prepare(small_database, tmp_path / "out")
    report = check_database("prepared", out, threads=2, progress=False)
    assert [*report.problems] == [
        f"{out}/04.png: not an image in any format that Pillow reads",
    ]
    assert ("image sizes", "48×40") in report.facts


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_miniature("koniq10k", tmp_path / "files", references=6)
    out = tmp_path / "out"
    assert main(["data", "prepare", "koniq10k", str(root), str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "6 images of koniq10k" in said.err
    assert len(load_database("prepared", out)) == 6
    assert main(["data", "prepare", "koniq10k", str(root), str(out)]) == 2
    assert capsys.readouterr().err == (
        f"glpi: error: {out}: exists already; name a folder that is still to be made\n"
    )

    labels = tmp_path / "meta.csv"
    name = next((root / "512x384").iterdir()).name
    labels.write_text(f"img_name,mos\n512x384/{name},1\n")
    arguments = ["pyiqa", str(root), str(tmp_path / "one"), "--labels", str(labels)]
    assert main(["data", "prepare", *arguments]) == 0
    assert load_database("prepared", tmp_path / "one").name == "meta"
