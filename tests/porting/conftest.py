"""Official state dicts of every size, cheaply filled, and the model assembled from torch.nn."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from glpi_jax.models.glpi import GLPI, SIZES, Size
from glpi_jax.weights.convert import official_shapes

TORCH_GLPI = Path(__file__).with_name("torch_glpi.py")


@pytest.fixture(scope="session")
def golden_shapes(make_case: ModuleType) -> dict[str, tuple[int, ...]]:
    """The 466 official names of ViT-S/16 with their shapes, in the order of the official file."""
    file = Path(str(make_case.__file__)).with_name("forward_vit_small.json")
    shapes = json.loads(file.read_text())["state_dict"]
    return {name: tuple(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def torch_glpi() -> ModuleType:
    """`torch_glpi.py`; for tests that are marked `torch`."""
    spec = importlib.util.spec_from_file_location("torch_glpi", TORCH_GLPI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_state(make_case: ModuleType) -> Callable[..., dict[str, np.ndarray]]:
    """`official_state(size, salt)`: an official state dict with BatchNorms that counted batches."""

    def make(size: Size, salt: int = 5) -> dict[str, np.ndarray]:
        return {
            name: np.asarray(3 + salt, np.int64)
            if name.endswith("num_batches_tracked")
            else make_case.fill(name, shape, salt)
            for name, shape in official_shapes(GLPI(size, 0.5)).items()
        }

    return make


@pytest.fixture(scope="session")
def demo_state(official_state: Callable[..., dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of the size `glpi_demo`; not to be changed."""
    return official_state(SIZES["glpi_demo"])
