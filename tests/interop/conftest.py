"""The model assembled from torch.nn."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TORCH_GLPI = Path(__file__).with_name("torch_glpi.py")


@pytest.fixture(scope="session")
def torch_glpi() -> ModuleType:
    """`torch_glpi.py`; for tests that are marked `torch`."""
    spec = importlib.util.spec_from_file_location("torch_glpi", TORCH_GLPI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
