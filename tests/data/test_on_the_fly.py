"""Photographs distorted as they are read: the images, and that they are a rendered set's."""

import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import grain
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from saqt_miniature import build_photographs, build_rendered

from glpi_jax.core.errors import GlpiError
from glpi_jax.data import loader
from glpi_jax.data.crops import Crops
from glpi_jax.data.images import ImageError
from glpi_jax.data.loader import ImageLoader, evaluation_crops
from glpi_jax.data.on_the_fly import Distorting
from glpi_jax.data.pipeline import to_iterator, training_dataset
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.data.sources import Database, load_database
from glpi_jax.data.splits import (
    Split,
    official_database_split,
    read_split,
    strict_split,
    write_split,
)
from glpi_jax.distortions import TOTAL_VARIATION, distort, find_distortion, seed_for
from glpi_jax.distortions.dncnn import load_dncnn

PHOTOGRAPHS, SEED = 3, 7
FIXED = Distorting(seed=SEED, redraw=False, dncnn="")
REDRAWN = Distorting(seed=SEED, redraw=True, dncnn="")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_photographs(tmp_path_factory.mktemp("saqt") / "set", photographs=PHOTOGRAPHS)


@pytest.fixture(scope="module")
def database(folder: Path) -> Database:
    return load_database("saqt", folder / "photographs", folder / "labels")


@pytest.fixture(scope="module")
def rendered(folder: Path) -> Database:
    return load_database("csv", build_rendered(folder / "rendered", folder, seed=SEED))


AS_STORED = Preprocessing((), "bilinear", apply_orientation=False)


def split(database: Database) -> Split:
    return strict_split(database, train_fraction=0.67, validation_fraction=0.5, seed=1)


def dataset(
    database: Database, distorting: Distorting | None = FIXED, **changes: Any
) -> grain.MapDataset:
    settings: dict[str, Any] = {
        "crop": 16,
        "batch_size": 50,
        "seed": 0,
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "cache_bytes": 0,
        "preprocessing": AS_STORED,
        "process_index": 0,
        "process_count": 1,
        "rows": split(database).train,
    }
    settings |= changes
    return training_dataset(database, settings.pop("rows"), distorting=distorting, **settings)


def assert_same(batch: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert batch.keys() == other.keys()
    for key in batch:
        np.testing.assert_array_equal(batch[key], other[key])


@pytest.mark.parametrize(
    "changes", [{}, {"preprocessing": Preprocessing((20, 24), "bicubic", False), "crop": 18}]
)
def test_batches_are_those_of_the_rendered_set(
    database: Database, rendered: Database, changes: dict[str, Any]
) -> None:
    """Two epochs and a half, whose batches run on over the ends; every type and level is there."""
    on_the_fly = dataset(database, cache_bytes=8000, **changes)
    from_files = dataset(rendered, None, **changes)
    iterator = to_iterator(on_the_fly, threads=2, prefetch=2, workers=0)
    for step in range(6):
        assert_same(next(iterator), from_files[step])
    iterator.close()


def test_first_epoch_is_the_rendered_set_and_others_differ_in_draws_alone(
    database: Database, rendered: Database
) -> None:
    """Without flips and with a crop of the whole image only the draws are left to differ."""
    assert database.photographs is not None
    whole = {"crop": 52, "batch_size": 125, "horizontal_flip": 0, "vertical_flip": 0}
    redrawn, plain = dataset(database, REDRAWN, **whole), dataset(rendered, None, **whole)
    kind_of = {
        np.float32(database.scores[row]): database.photographs.variant(row).distortion
        for row in split(database).train
    }
    assert_same(redrawn[0], plain[0])
    epochs = []
    for epoch in (1, 2):
        batch, expected = redrawn[epoch], plain[epoch]
        np.testing.assert_array_equal(batch["score"], expected["score"])  # the order too
        changed = (batch["image"] != expected["image"]).any(axis=(1, 2, 3))
        kinds = {kind_of[score] for score in batch["score"][changed]}
        assert kinds == {kind for kind in kind_of.values() if find_distortion(kind).random}
        epochs.append(dict(zip(batch["score"].tolist(), batch["image"], strict=True)))
    assert any((image != epochs[1][score]).any() for score, image in epochs[0].items())


def test_seeds_of_epochs() -> None:
    seeds = [REDRAWN.seed_of(epoch) for epoch in range(100)]
    assert seeds[0] == SEED
    assert len(set(seeds)) == 100
    assert [FIXED.seed_of(epoch) for epoch in range(3)] == [SEED] * 3
    other = Distorting(SEED + 1, True, "")
    assert not set(seeds) & {other.seed_of(epoch) for epoch in range(100)}


def test_workers_and_hosts_and_resumption_change_nothing(database: Database) -> None:
    """Workers take seconds to start, so one test: two of them on the second of two hosts."""
    whole = dataset(database, REDRAWN, batch_size=20)
    share = dataset(
        database, REDRAWN, batch_size=20, process_index=1, process_count=2, cache_bytes=10_000
    )
    threaded = to_iterator(share, threads=2, prefetch=2, workers=0)
    next(threaded)
    state = json.dumps(threaded.get_state())
    threaded.close()
    in_workers = to_iterator(share, threads=1, prefetch=2, workers=2)
    in_workers.set_state(json.loads(state))
    for step in range(1, 9):  # into the second epoch
        expected = {key: values[1::2] for key, values in whole[step].items()}
        assert_same(next(in_workers), expected)
    assert len(multiprocessing.active_children()) == 2
    in_workers.close()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photographs decoded so far."""
    names: list[str] = []
    original: Callable[..., np.ndarray] = loader.decode_image

    def counting(data: bytes, name: str, **settings: Any) -> np.ndarray:
        names.append(Path(name).name)
        return original(data, name, **settings)

    monkeypatch.setattr(loader, "decode_image", counting)
    return names


def test_photographs_are_kept_not_images(
    database: Database, folder: Path, decoded: list[str]
) -> None:
    size = 52 * 48 * 3
    rows = range(125 * PHOTOGRAPHS)
    cached = dataset(database, rows=rows, cache_bytes=PHOTOGRAPHS * size)
    batches = [cached[step] for step in range(3)]
    assert sorted(decoded) == sorted(path.name for path in (folder / "photographs").iterdir())
    assert_same(batches[2], dataset(database, rows=rows)[2])
    assert len(decoded) > 2 * PHOTOGRAPHS


def crops_of(database: Database, rows: Any, distorting: Distorting | None) -> dict[int, np.ndarray]:
    return dict(
        evaluation_crops(
            database,
            rows,
            crop=16,
            crops=Crops(2, "random"),
            preprocessing=AS_STORED,
            threads=1,
            distorting=distorting,
        )
    )


def test_evaluation_is_that_of_the_rendered_set_and_decodes_a_photograph_once(
    database: Database, rendered: Database, decoded: list[str]
) -> None:
    rows = range(250)
    made = crops_of(database, rows, REDRAWN)
    assert decoded == ["photo3.png", "photo2.bmp"]
    expected = crops_of(rendered, rows, None)
    for row in rows:
        assert database.images[row] == rendered.images[row]
        np.testing.assert_array_equal(made[row], expected[row])


def test_distorting_needs_neither_jax_nor_grain(database: Database) -> None:
    assert database.photographs is not None
    image = np.zeros((40, 36, 3), np.uint8)
    image[10:20] = 200
    FIXED.distort(image, "photo3.png", database.photographs.variant(70), 0)
    code = (
        "import pickle, sys, numpy as np\n"
        "distorting, image, variant = pickle.loads(sys.stdin.buffer.read())\n"
        "made = distorting.distort(image, 'photo3.png', variant, 0)\n"
        "assert not {'jax', 'grain', 'flax'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.stdout.buffer.write(made.tobytes())\n"
    )
    variant = database.photographs.variant(70)  # type 15, which needs a denoiser
    assert variant.distortion == 15
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((FIXED, image, variant)),
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    expected = distort(image, 15, 1, rng=seed_for("photo3.png", 15, 1, SEED))
    assert done.stdout == expected.tobytes()


def test_denoiser_of_the_config(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if in a worker process, whose JAX must leave the accelerator alone."""
    path = tmp_path / "dncnn.safetensors"
    distorting = Distorting(SEED, False, str(path))
    with pytest.raises(GlpiError, match=r"dncnn\.safetensors: no such checkpoint file"):
        distorting.denoiser()
    rng = np.random.default_rng(0)
    channels = [1, *[64] * 16, 1]
    weights = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        kernel = rng.normal(0, np.sqrt(2 / (9 * inputs)), (outputs, inputs, 3, 3))
        weights[f"model.{2 * layer}.weight"] = kernel.astype(np.float32)
        weights[f"model.{2 * layer}.bias"] = np.zeros(outputs, np.float32)
    save_file(weights, path)

    updates = {}
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    assert database.photographs is not None
    image = rng.integers(0, 256, (48, 50, 3), dtype=np.uint8)
    made = distorting.distort(image, "photo3.png", database.photographs.variant(72), 0)
    assert len(pickle.dumps(distorting)) < 1000  # each process reads the weights
    assert updates["jax_platforms"] == "cpu"
    draws = seed_for("photo3.png", 15, 3, SEED)
    expected = distort(image, 15, 3, rng=draws, denoiser=load_dncnn(path))
    np.testing.assert_array_equal(made, expected)
    draws = seed_for("photo3.png", 15, 3, SEED)
    assert (made != distort(image, 15, 3, rng=draws)).any()
    assert FIXED.denoiser() is TOTAL_VARIATION


def test_photographs_that_cannot_be_distorted_are_named(tmp_path: Path) -> None:
    folder = build_photographs(tmp_path / "set", photographs=1, size=(31, 36))
    small = load_database("saqt", folder / "photographs", folder / "labels")
    loader = ImageLoader(small, preprocessing=AS_STORED, cache_bytes=0, distorting=FIXED)
    loader(0)
    with pytest.raises(ImageError, match=r"photo1\.png: jpeg2000: the image is 31x36"):
        loader(40)
    small.path(0).write_text("text")
    fresh = pickle.loads(pickle.dumps(loader))
    with pytest.raises(ImageError, match=r"photo1\.png: not an image"):
        fresh(0)
    with pytest.raises(GlpiError, match="nothing says how"):
        ImageLoader(small, preprocessing=AS_STORED, cache_bytes=0)


def test_split_by_photograph_and_its_file(
    database: Database, rendered: Database, tmp_path: Path
) -> None:
    parts, expected = split(database), split(rendered)
    for part in ("train", "validation", "test"):
        rows = getattr(parts, part)
        assert list(rows) == list(getattr(expected, part))
        assert len(rows) == 125
        assert rows[-1] == list(rows)[-1]
        assert rows[3:5] == list(rows)[3:5]
        np.testing.assert_array_equal(np.asarray(rows), list(rows))
    for seed in range(4):  # two photographs in the order of the shuffle
        pairs = [
            official_database_split(either, train_fraction=0.67, seed=seed).train
            for either in (database, rendered)
        ]
        assert list(pairs[0]) == list(pairs[1])
    write_split(tmp_path / "split.json", database, parts)
    named = json.loads((tmp_path / "split.json").read_text())
    names = [*named["train"], *named["validation"], *named["test"]]
    assert sorted(names) == sorted(path.name for path in database.root.iterdir())
    assert read_split(tmp_path / "split.json", database) == parts
    with pytest.raises(GlpiError, match="not in rendered"):
        read_split(tmp_path / "split.json", rendered)


def test_a_set_of_full_size_keeps_no_column_in_memory(tmp_path: Path) -> None:
    """Ten tables of a thousand photographs, 1.25 million rows, are a few megabytes."""
    from glpi_jax.data.sources.photographs import Column, PhotographRows, Photographs

    names = tuple(f"p{number:05d}.png" for number in range(50_000))
    prefixes = tuple(f"{number // 1000 + 1:03d}/p{number:05d}" for number in range(50_000))
    photographs = Photographs(names, prefixes, ".bmp")
    assert photographs.rows == 6_250_000
    images = Column(photographs.rows, photographs.image)
    large = Database(
        name="saqt",
        root=tmp_path,
        images=images,
        scores=np.zeros(photographs.rows),
        references=Column(photographs.rows, photographs.reference),
        reference_order=names,
        distortions=Column(photographs.rows, photographs.distortion),
        levels=Column(photographs.rows, photographs.level),
        score_name="DMOS",
        higher_is_better=True,
        label_note="",
        photographs=photographs,
    )
    assert large.images[-1] == "050/p49999_25_05.bmp"
    assert large.references[125] == "p00001.png"
    assert large.distortions[130] == find_distortion(2).name
    assert large.images[3:5] == ["001/p00000_01_04.bmp", "001/p00000_01_05.bmp"]
    with pytest.raises(IndexError):
        images[6_250_000]
    parts = strict_split(large, train_fraction=0.998, validation_fraction=0.002, seed=12345)
    assert [len(rows) for rows in (parts.train, parts.validation, parts.test)] == [
        6_225_000,
        12_500,
        12_500,
    ]
    assert isinstance(parts.train, PhotographRows)
    batches = dataset(large, FIXED, rows=parts.train)
    size = len(cloudpickle.dumps(batches))  # as Grain sends it to workers
    assert size < 12 * photographs.rows + 8_000_000  # the scores, twice, and the names
