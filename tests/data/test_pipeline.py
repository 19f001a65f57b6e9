import json
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.data import loader
from glpi_jax.data.crops import Crops, Placement
from glpi_jax.data.images import ImageError
from glpi_jax.data.loader import ImageLoader, evaluation_crops
from glpi_jax.data.pipeline import to_iterator, training_dataset, training_rows
from glpi_jax.data.prepare import prepare_database
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.transforms import grid_crops, image_rng, random_crops

Batch = dict[str, np.ndarray]


AS_STORED = Preprocessing((), "bilinear", apply_orientation=False)


def dataset(database: Database, rows: tuple[int, ...], **changes: Any) -> grain.MapDataset:
    settings: dict[str, Any] = {
        "crop": 16,
        "batch_size": 4,
        "seed": 0,
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "cache_bytes": 0,
        "preprocessing": AS_STORED,
        "process_index": 0,
        "process_count": 1,
    }
    return training_dataset(database, rows, **{**settings, **changes})


def rows_of(batch: Batch) -> list[int]:
    """The database rows in a batch: the fixture's images carry them in the red channel."""
    return batch["image"][:, 0, 0, 0].tolist()


def assert_same(batch: Batch, other: Batch) -> None:
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key])


ROWS = tuple(range(10))


def test_batch_layout_and_scores(small_database: Database) -> None:
    batch = dataset(small_database, ROWS)[0]
    assert batch["image"].shape == (4, 16, 16, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["score"].dtype == np.float32
    assert batch["score"].tolist() == [row / 2 for row in rows_of(batch)]


def test_every_epoch_visits_every_row_once_in_a_new_order(small_database: Database) -> None:
    """Batches of 4 from 10 rows straddle the epochs; five batches are two epochs."""
    batches = dataset(small_database, ROWS)
    seen = [row for step in range(10) for row in rows_of(batches[step])]
    epochs = [seen[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(ROWS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_crops_are_new_in_every_epoch_and_cut_from_the_image(small_database: Database) -> None:
    batches = dataset(small_database, (3,), horizontal_flip=0, vertical_flip=0, batch_size=1)
    image = np.asarray(Image.open(small_database.path(3)))
    windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16, 3)).reshape(-1, 16, 16, 3)
    crops = [batches[step]["image"][0] for step in range(6)]
    assert all((windows == crop).all(axis=(1, 2, 3)).any() for crop in crops)
    assert len({crop.tobytes() for crop in crops}) > 3


def test_fewer_rows_than_a_batch(small_database: Database) -> None:
    batch = dataset(small_database, (5, 7), batch_size=8)[0]
    assert sorted(rows_of(batch)) == [5] * 4 + [7] * 4


def test_seed_decides_order_and_crops(small_database: Database) -> None:
    assert_same(dataset(small_database, ROWS)[3], dataset(small_database, ROWS)[3])
    changed = dataset(small_database, ROWS, seed=1)
    assert rows_of(changed[0]) + rows_of(changed[1]) != rows_of(
        dataset(small_database, ROWS)[0]
    ) + rows_of(dataset(small_database, ROWS)[1])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_make_the_batches_of_one(
    small_database: Database, processes: int
) -> None:
    whole = dataset(small_database, ROWS)
    shares = [
        dataset(small_database, ROWS, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    for step in range(8):
        expected = whole[step]
        for index, share in enumerate(shares):
            batch = share[step]
            assert len(batch["score"]) == 4 // processes
            assert_same(batch, {key: values[index::processes] for key, values in expected.items()})


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("rows", [ROWS, (5, 7, 2)])
def test_the_rows_of_a_batch_are_those_that_it_has(
    small_database: Database, rows: tuple[int, ...], processes: int
) -> None:
    """Over the ends of epochs too, also of several in a batch."""
    shares = [
        dataset(small_database, rows, seed=9, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    for batch in range(9):
        seen = [rows_of(share[batch]) for share in shares]
        together = [row for place in zip(*seen, strict=True) for row in place]
        assert training_rows(rows, seed=9, batch_size=4, batch=batch) == together


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (3, 4)])
def test_threads_change_nothing(small_database: Database, threads: int, prefetch: int) -> None:
    batches = dataset(small_database, ROWS, cache_bytes=10_000)
    iterator = to_iterator(batches, threads=threads, prefetch=prefetch, workers=0)
    expected = dataset(small_database, ROWS)
    for step in range(12):
        assert_same(next(iterator), expected[step])
    iterator.close()


def test_state_resumes_in_mid_epoch_in_a_fresh_iterator(small_database: Database) -> None:
    iterator = to_iterator(dataset(small_database, ROWS), threads=2, prefetch=3, workers=0)
    for _ in range(7):
        next(iterator)
    state = json.dumps(iterator.get_state())
    expected = [next(iterator) for _ in range(5)]
    iterator.close()
    fresh = to_iterator(dataset(small_database, ROWS), threads=1, prefetch=1, workers=0)
    next(fresh)
    fresh.set_state(json.loads(state))
    for batch in expected:
        assert_same(next(fresh), batch)
    fresh.close()


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[[Database], Database]:
    """The same database, read from ArrayRecord files."""

    def make(database: Database) -> Database:
        prepare_database(database, tmp_path / "prepared", progress=False)
        return load_database("prepared", tmp_path / "prepared")

    return make


@pytest.mark.parametrize(
    "changes", [{}, {"crop": 64}, {"preprocessing": Preprocessing((20, 30), "bicubic", False)}]
)
def test_files_and_records_give_the_same_batches(
    small_database: Database, prepare: Callable[[Database], Database], changes: dict[str, Any]
) -> None:
    from_records = dataset(prepare(small_database), ROWS, **changes)
    iterator = to_iterator(from_records, threads=3, prefetch=4, workers=0)
    from_files = dataset(small_database, ROWS, **changes)
    for step in range(8):
        assert_same(next(iterator), from_files[step])
    iterator.close()


def test_workers_change_nothing_on_one_of_two_hosts(
    small_database: Database, prepare: Callable[[Database], Database]
) -> None:
    """Processes take seconds to start, so this is one test: batches, resumption, errors, Ctrl-C.

    The second of two hosts reads records in two workers, from a state that threads left, and meets
    a damaged image at step 6. The expected batches are cut from what one host reads from files.
    """
    rows = tuple(range(12))
    whole = dataset(small_database, rows, batch_size=2, cache_bytes=2 * IMAGE_BYTES)
    [bad] = rows_of({"image": whole[5]["image"][1::2]})
    expected = [{key: values[1::2] for key, values in whole[step].items()} for step in range(5)]
    small_database.path(bad).write_text("text")

    share = {"batch_size": 2, "process_index": 1, "process_count": 2}
    threaded = to_iterator(dataset(small_database, rows, **share), threads=1, prefetch=1, workers=0)
    assert_same(next(threaded), expected[0])
    state = json.dumps(threaded.get_state())
    threaded.close()

    records = dataset(prepare(small_database), rows, cache_bytes=2 * IMAGE_BYTES, **share)
    in_workers = to_iterator(records, threads=1, prefetch=2, workers=2)
    in_workers.set_state(json.loads(state))
    for step in (1, 2, 3):
        batch = next(in_workers)
        assert_same(batch, expected[step])
        assert all(type(values) is np.ndarray for values in batch.values())
    state = json.dumps(in_workers.get_state())
    processes = multiprocessing.active_children()
    assert len(processes) == 2
    for process in processes:  # as Ctrl-C in a terminal does, and the end of a job
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
    ended = multiprocessing.connection.wait([process.sentinel for process in processes], 0.5)
    assert ended == []
    assert_same(next(in_workers), expected[4])
    with pytest.raises(ImageError, match=rf"{bad:02d}\.png: not an image"):
        next(in_workers)
    in_workers.close()

    threaded.set_state(json.loads(state))
    assert_same(next(threaded), expected[4])
    threaded.close()


def test_a_loader_for_a_worker_takes_its_budget_but_no_image_along(
    small_database: Database, decoded: list[str]
) -> None:
    loader = ImageLoader(small_database, preprocessing=AS_STORED, cache_bytes=IMAGE_BYTES)
    first = loader(0)
    assert len(pickle.dumps(loader)) < len(pickle.dumps(small_database)) + 500
    copy = pickle.loads(pickle.dumps(loader))
    for _ in range(2):
        np.testing.assert_array_equal(copy(0), first)
    assert decoded == ["00.png", "00.png"]


def test_slicing_resumes_at_a_step(small_database: Database) -> None:
    batches = dataset(small_database, ROWS)
    assert_same(batches[7:][0], batches[7])


def test_small_images_are_padded_and_resized(small_database: Database) -> None:
    assert dataset(small_database, ROWS, crop=64)[0]["image"].shape == (4, 64, 64, 3)
    size = Preprocessing((20, 20), "bilinear", False)
    resized = dataset(small_database, ROWS, crop=20, preprocessing=size)
    assert resized[0]["image"].shape == (4, 20, 20, 3)


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images decoded so far.

    Grain's threads finish the batch that they are at after `close`, so an earlier test may decode
    during this one: its images are in another folder.
    """
    names: list[str] = []
    lock = threading.Lock()
    original = loader.decode_image

    def counting(data: bytes, name: str, *, apply_orientation: bool) -> np.ndarray:
        if Path(name).is_relative_to(tmp_path):
            with lock:
                names.append(Path(name).name)
        return original(data, name, apply_orientation=apply_orientation)

    monkeypatch.setattr(loader, "decode_image", counting)
    return names


IMAGE_BYTES = 40 * 48 * 3


@pytest.mark.parametrize(
    ("cache_bytes", "decodes"),
    [(0, 30), (IMAGE_BYTES - 1, 30), (4 * IMAGE_BYTES + 1, 4 + 3 * 6), (10 * IMAGE_BYTES, 10)],
)
def test_cache_keeps_what_its_budget_allows(
    small_database: Database, decoded: list[str], cache_bytes: int, decodes: int
) -> None:
    batches = dataset(small_database, ROWS, cache_bytes=cache_bytes, batch_size=10)
    plain = dataset(small_database, ROWS, batch_size=10)
    cached = [batches[step] for step in range(3)]
    assert len(decoded) == decodes
    for step, batch in enumerate(cached):
        assert_same(batch, plain[step])


def test_cache_under_threads(small_database: Database, decoded: list[str]) -> None:
    loader = ImageLoader(small_database, preprocessing=AS_STORED, cache_bytes=12 * IMAGE_BYTES)
    with ThreadPoolExecutor(8) as executor:
        images = list(executor.map(loader, list(range(12)) * 20))
    assert all(image[0, 0, 0] == index % 12 for index, image in enumerate(images))
    before = len(decoded)
    with pytest.raises(ValueError, match="read-only"):
        loader(0)[0, 0, 0] = 1
    assert len(decoded) == before


@pytest.fixture
def alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many decoded images there were each time that one was decoded; they are tall.

    As in `decoded`, only this test's.
    """
    counts: list[int] = []
    images: dict[int, weakref.ref[np.ndarray]] = {}
    lock = threading.Lock()

    def decode(data: bytes, name: str, *, apply_orientation: bool) -> np.ndarray:
        # As wide as the crop: the crop is then a contiguous part of the image.
        image = np.zeros((400, 16, 3), np.uint8)
        if Path(name).is_relative_to(tmp_path):
            with lock:
                images[len(counts)] = weakref.ref(image)
                counts.append(sum(reference() is not None for reference in images.values()))
        return image

    monkeypatch.setattr(loader, "decode_image", decode)
    return counts


@pytest.mark.parametrize(("threads", "most"), [(0, 1), (1, 1), (3, 3)])
def test_training_holds_no_more_images_than_threads(
    small_database: Database, alive: list[int], threads: int, most: int
) -> None:
    """Whatever the batch and the prefetch: photographs of 13 megapixels would fill the memory."""
    batches = dataset(small_database, ROWS, horizontal_flip=0, vertical_flip=0, batch_size=8)
    iterator = to_iterator(batches, threads=threads, prefetch=4, workers=0)
    for _ in range(10):
        next(iterator)
    iterator.close()
    assert len(alive) >= 80
    assert max(alive) <= most


@pytest.mark.parametrize("placement", ["random", "grid"])
def test_evaluation_holds_no_more_images_than_threads(
    small_database: Database,
    alive: list[int],
    placement: Placement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tall_image = loader.decode_image
    pairs = threading.Barrier(2, timeout=60)

    def decode_in_pairs(data: bytes, name: str, *, apply_orientation: bool) -> np.ndarray:
        image = tall_image(data, name, apply_orientation=apply_orientation)
        if Path(name).is_relative_to(small_database.root):
            pairs.wait()
        return image

    monkeypatch.setattr(loader, "decode_image", decode_in_pairs)
    rows = tuple(range(12)) * 5
    results = list(evaluate(small_database, rows, crops=Crops(1, placement), threads=2))
    assert len(results) == len(alive) == 60
    assert max(alive) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5, "process_count": 2}, "batch size 5 cannot be shared by 2 processes"),
        ({"batch_size": 0}, "batch size 0"),
        ({"process_index": 2, "process_count": 2}, "process 2 of 2"),
        ({"crop": 0}, "crop 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**32}, "seed 4294967296"),
        ({"horizontal_flip": 2}, "horizontal flip probability 2"),
        ({"cache_bytes": -1}, "cache_bytes -1"),
    ],
)
def test_bad_settings(small_database: Database, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GlpiError, match=message):
        dataset(small_database, ROWS, **changes)


def test_no_rows_and_bad_iterator_settings(small_database: Database) -> None:
    with pytest.raises(GlpiError, match="no training rows"):
        dataset(small_database, ())
    with pytest.raises(GlpiError, match="threads 2, prefetch 0"):
        to_iterator(dataset(small_database, ROWS), threads=2, prefetch=0, workers=0)
    with pytest.raises(GlpiError, match="threads 0, prefetch 0"):
        to_iterator(dataset(small_database, ROWS), threads=0, prefetch=0, workers=1)
    with pytest.raises(GlpiError, match="workers -1"):
        to_iterator(dataset(small_database, ROWS), threads=2, prefetch=2, workers=-1)


def test_unreadable_image_is_named_through_the_iterator(small_database: Database) -> None:
    small_database.path(2).write_text("text")
    iterator = to_iterator(dataset(small_database, (2,)), threads=1, prefetch=1, workers=0)
    with pytest.raises(ImageError, match=r"02\.png: not an image"):
        next(iterator)
    iterator.close()


def evaluate(
    database: Database, rows: tuple[int, ...], **changes: Any
) -> Iterator[tuple[int, np.ndarray]]:
    settings: dict[str, Any] = {
        "crop": 16,
        "crops": Crops(5, "random"),
        "preprocessing": AS_STORED,
        "threads": 2,
    }
    return evaluation_crops(database, rows, **{**settings, **changes})


def test_random_evaluation_crops_depend_on_the_name_alone(
    small_database: Database, decoded: list[str]
) -> None:
    rows = (9, 2, 11, 0, 4, 7, 1)
    results = list(evaluate(small_database, rows))
    assert tuple(row for row, _ in results) == rows
    assert sorted(decoded) == sorted(small_database.images[row] for row in rows)
    for row, crops in results:
        image = np.asarray(Image.open(small_database.path(row)))
        rng = image_rng(small_database.images[row], 0)
        np.testing.assert_array_equal(crops, random_crops(image, 16, 5, rng))
    alone = dict(evaluate(small_database, (4,), threads=1))
    np.testing.assert_array_equal(alone[4], dict(results)[4])
    assert (dict(evaluate(small_database, (4,), crops=Crops(5, "random", 1)))[4] != alone[4]).any()


def test_files_and_records_give_the_same_evaluation_crops(
    small_database: Database, prepare: Callable[[Database], Database]
) -> None:
    from_records = dict(evaluate(prepare(small_database), ROWS))
    for row, crops in evaluate(small_database, ROWS):
        np.testing.assert_array_equal(from_records[row], crops)


def test_grid_evaluation_crops(small_database: Database) -> None:
    [(row, crops)] = evaluate(small_database, (3,), crops=Crops(6))
    image = np.asarray(Image.open(small_database.path(3)))
    assert row == 3
    np.testing.assert_array_equal(crops, grid_crops(image, 16, 6))


def test_evaluation_resizes_first(small_database: Database) -> None:
    size = Preprocessing((16, 16), "bicubic", False)
    [(_, crops)] = evaluate(small_database, (3,), preprocessing=size, crops=Crops(2, "random"))
    assert crops.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(crops[0], crops[1])


def test_evaluation_decodes_only_a_few_images_ahead(
    small_database: Database, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Immediate:
        """Runs what is submitted at once, so that the count is exact."""

        def __init__(self, threads: int) -> None: ...

        def submit(self, function: Any, row: int) -> Future[np.ndarray]:
            future: Future[np.ndarray] = Future()
            future.set_result(function(row))
            return future

        def shutdown(self, *, wait: bool, cancel_futures: bool) -> None: ...

    monkeypatch.setattr(loader, "ThreadPoolExecutor", Immediate)
    crops = evaluate(small_database, tuple(range(12)), threads=1)
    counts = [len(decoded)] + [len(decoded) for _ in crops]
    assert counts == [0, *range(3, 12), 12, 12, 12]


def test_unreadable_image_is_named_in_its_turn(small_database: Database) -> None:
    small_database.path(1).write_bytes(b"")
    crops = evaluate(small_database, (0, 1, 2))
    assert next(crops)[0] == 0
    with pytest.raises(ImageError, match=r"01\.png: the file is empty"):
        next(crops)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 0}, "crop 0"),
        ({"threads": 0}, "threads 0"),
    ],
)
def test_bad_evaluation_settings(
    small_database: Database, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(GlpiError, match=message):
        evaluate(small_database, (0,), **changes)
