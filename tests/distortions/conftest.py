"""Golden images of the KADID generator.

The goldens are found in GLPI_GOLDENS, by default in tests/goldens.
Every exact or drawn case of the manifest becomes a `golden_case`; cases of kind "stat", which need
many runs, become a `stat_case`, and those of the 512x384 image a `codec_case`. The small set in the
repository has no case of the latter two kinds.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Case = dict[str, Any]

GOLDENS = (
    Path(os.environ.get("GLPI_GOLDENS", Path(__file__).parents[1] / "goldens")) / "distortions"
)


@cache
def load_manifest() -> dict[str, Any]:
    return json.loads((GOLDENS / "manifest.json").read_text())


@cache
def load_rgb(file: str) -> np.ndarray:
    with Image.open(GOLDENS / file) as image:
        return np.asarray(image.convert("RGB"))


@cache
def load_arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(GOLDENS / file) as arrays:
        return dict(arrays)


def reference_of(case: Case) -> np.ndarray:
    return load_rgb(load_manifest()["images"][case["image"]]["file"])


def golden_of(case: Case) -> np.ndarray:
    height = load_manifest()["images"][case["image"]]["height"]
    return load_rgb(case["file"])[case["slice"] * height : (case["slice"] + 1) * height]


def draw_of(case: Case) -> dict[str, Any] | None:
    """The manifest's draws under the names that `distort` takes; None for a type without draws."""
    if "thresholds_255" in case:
        return {"thresholds_255": case["thresholds_255"]}
    if case["kind"] != "draw":
        return None
    draw = case["draw"]
    if "same_as" in draw:  # "first 20 patches of motorcycle/20_5"
        source = draw["same_as"].split()[-1]
        draw = next(c["draw"] for c in load_manifest()["cases"] if c["id"] == source)
    fields = load_arrays(load_manifest()["images"][case["image"]]["draws"])
    readers: dict[str, Callable[[Any], Any]] = {
        "angle_deg": lambda value: value,
        "rand2": lambda value: value,
        "gauss": lambda _: fields["gauss_i16"] / 4096,
        "unif": lambda _: (fields["unif_u16"] + 0.5) / 65536,
        "normal": lambda _: fields["jitter_i16"] / 4096,
        "rand_sequence": lambda value: value,
    }
    if "rects_1based_x_y_w_h_and_rgb" in draw:
        return {"rects": draw["rects_1based_x_y_w_h_and_rgb"]}
    return {name: reader(draw[name]) for name, reader in readers.items() if name in draw}


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """PSNR of two uint8 images in dB; 99 for equal ones, as in the manifest."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


CASE_KINDS: dict[str, Callable[[Case], bool]] = {
    "golden_case": lambda case: case["kind"] in ("exact", "draw"),
    "stat_case": lambda case: case["kind"] == "stat" and "runs" in case,
    "codec_case": lambda case: case["kind"] == "stat" and "encoded_bytes" in case,
    "thresholds_case": lambda case: "thresholds_255" in case,
    "palette_case": lambda case: "palette_u8" in case,
    "size_case": lambda case: case["kind"] == "exact" and "encoded_bytes" in case,
}


def cases_of(kind: str) -> list[Case]:
    return [case for case in load_manifest()["cases"] if CASE_KINDS[kind](case)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for kind in CASE_KINDS:
        if kind in metafunc.fixturenames:
            cases = cases_of(kind)
            metafunc.parametrize(kind, cases, ids=[case["id"] for case in cases])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of a kind that the golden folder has no case of: pytest would skip them."""
    absent = {kind for kind in CASE_KINDS if not cases_of(kind)}
    empty = [item for item in items if absent & set(getattr(item, "fixturenames", ()))]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


class Goldens:
    """What a test may ask of the golden folder."""

    reference_of = staticmethod(reference_of)
    golden_of = staticmethod(golden_of)
    draw_of = staticmethod(draw_of)
    psnr = staticmethod(psnr)
    load_arrays = staticmethod(load_arrays)

    @staticmethod
    def unit() -> dict[str, Any]:
        return json.loads((GOLDENS / "unit.json").read_text())

    @staticmethod
    def case(case_id: str) -> Case:
        return next(case for case in load_manifest()["cases"] if case["id"] == case_id)


@pytest.fixture(scope="session")
def goldens() -> type[Goldens]:
    return Goldens
