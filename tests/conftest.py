"""Set-up of every test: a CPU with two devices, strict array shapes, no windows."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

# Before JAX is imported. A test of more devices runs in a process of its own.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2"]
).strip()
os.environ["MPLBACKEND"] = "Agg"

import jax

# A (n,) array that meets a (n, 1) array is an error, not an (n, n) array.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# A folder with `model/` and `distortions/`: the tests' own part, or the full set.
GOLDENS = Path(os.environ.get("GLPI_GOLDENS", Path(__file__).parent / "goldens"))


class ModelGolden(NamedTuple):
    """Numbers made by the authors' implementation, and the inputs that they were made from."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    state_dict: dict[str, np.ndarray]
    images: Callable[[int, int], np.ndarray]  # (batch, salt added) -> normalised NHWC


@pytest.fixture(scope="session")
def make_case() -> ModuleType:
    """The module that draws the goldens' weights and images."""
    spec = importlib.util.spec_from_file_location("make_case", GOLDENS / "model/make_case.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_golden(make_case: ModuleType) -> Callable[[str], ModelGolden]:
    """`model_golden("forward_vit_tiny")` and its like."""

    def load(name: str) -> ModelGolden:
        folder = GOLDENS / "model"
        facts = json.loads((folder / f"{name}.json").read_text())
        salt = facts["salt"]
        if "state_dict" in facts:
            shapes = facts["state_dict"]
            with np.load(folder / f"{name}.npz") as file:
                arrays = dict(file)
        else:  # the training golden has the tiny model's names
            shapes = json.loads((folder / "forward_vit_tiny.json").read_text())["state_dict"]
            arrays = {}
        state_dict = {
            entry: make_case.fill(entry, tuple(shape), salt) for entry, shape in shapes.items()
        }

        def images(batch: int, added: int) -> np.ndarray:
            return make_case.image((batch, 3, 224, 224), salt + added).transpose(0, 2, 3, 1)

        return ModelGolden(facts, arrays, state_dict, images)

    return load
