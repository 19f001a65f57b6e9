"""The training set of the shipped weights: its parts are apart, its labels on one scale."""

import argparse
import csv
import hashlib
import importlib.util
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from miniatures import build_miniature

from glpi_jax.data.images import read_image

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ROOT / "tests/photographs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "shipped_weights", ROOT / "benchmarks/shipped_weights.py"
    )
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # which the script extends
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(script, tmp_path_factory):
    """Rows of labels.csv with their part, of miniature databases and six distortion types."""
    folder = tmp_path_factory.mktemp("shipped")
    own = folder / "own"
    own.mkdir()
    for path in PHOTOGRAPHS.glob("*_0*.jpg"):  # one of them held out by its pixels
        (own / path.name).write_bytes(path.read_bytes())
    held_out = read_image(own / "kodak_03.jpg", apply_orientation=True)
    args = argparse.Namespace(
        clive=build_miniature("clive", folder / "clive", references=12),
        agiqa3k=build_miniature("agiqa3k", folder / "agiqa3k", references=12),
        photographs=[own],
        processes=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "SCENES", {name: script.SCENES[name] for name in ("coins", "coffee")})
        kinds = (*script.LADDER_TYPES, 7, 8)
        patch.setattr(script, "MEAN_DMOS", {kind: script.MEAN_DMOS[kind] for kind in kinds})
        patch.setattr(script, "LADDERS", {script.pixels_sha256(held_out)})
        script.render(args, folder / "data")
    parts = {}
    for part in ("train", "validation", "test"):
        for name in (folder / "data/lists" / f"{part}.txt").read_text().split():
            assert name not in parts
            parts[name] = part
    with (folder / "data/labels.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert parts.keys() == {row["image"] for row in found}
    for row in found:
        row["part"] = parts[row["image"]]
        row["file"] = folder / "data" / row["image"]
    return found


def test_parts_share_no_reference_and_no_content(rows):
    references, contents = defaultdict(set), defaultdict(set)
    for row in rows:
        references[row["reference"]].add(row["part"])
        contents[hashlib.sha256(row["file"].read_bytes()).hexdigest()].add(row["part"])
    assert all(len(parts) == 1 for parts in references.values())
    assert all(len(parts) == 1 for parts in contents.values())
    assert {row["part"] for row in rows} == {"train", "validation", "test"}


def test_held_out_photographs_and_scenes_do_not_train(rows):
    names = {row["image"] for row in rows}
    assert not any("kodak_03" in name for name in names)
    assert any("kodak_08" in name for name in names)
    assert {row["part"] for row in rows if "scene_coins" in row["image"]} == {"test"}
    assert {row["part"] for row in rows if "scene_coffee" in row["image"]} == {"train"}


def test_labels_are_on_one_scale(rows, script):
    scores = {row["image"]: float(row["score"]) for row in rows}
    assert scores["images/scene_coins_01_5.png"] == pytest.approx(78 * (1.3027 - 1) / 3.8, abs=1e-3)
    assert scores["images/scene_coins.png"] == 78
    assert scores["images/scene_coins.png"] == max(
        score for name, score in scores.items() if "scene" in name
    )
    assert all(0 <= score <= 100 for score in scores.values())
    ladder = [name for name in scores if "scene_coffee_01" in name]
    others = [name for name in scores if "scene_coffee_07" in name]
    assert (len(ladder), len(others)) == (5, script.OTHER_LEVELS)


def test_only_training_photographs_of_clive_have_copies(rows, script):
    copies = Counter(
        (row["part"], row["reference"]) for row in rows if row["distortion"] == "clive"
    )
    for (part, _), count in copies.items():
        assert count == (len(script.CLIVE_SIDES) if part == "train" else 1)


def test_shrink_keeps_small_images_and_the_aspect(script):
    image = np.zeros((60, 90, 3), np.uint8)
    assert script.shrink(image, 80) is image
    assert script.shrink(image, 30).shape == (30, 45, 3)


def test_copies_with_faint_grain_are_labelled_like_clean_ones(rows):
    copies = {
        row["image"]: float(row["score"])
        for row in rows
        if "scene_coffee_grain_352" in row["image"]
    }
    assert len(copies) == 1 + 3 * 3  # untouched, and the mild levels of blur, JPEG 2000 and JPEG
    assert copies["images/scene_coffee_grain_352.png"] == 78
    assert copies["images/scene_coffee_grain_352_10_1.png"] < 70
