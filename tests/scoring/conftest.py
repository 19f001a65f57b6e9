"""The weights of the tests, loaded once, and small pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import glpi_jax
from glpi_jax.scoring import Scorer


@pytest.fixture(autouse=True, scope="session")
def _compile_once(shared_compilations: dict[str, str]) -> None:
    """Each call of the command loads the model anew."""


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads the model has begun the work."""
    monkeypatch.setattr("glpi_jax.scoring.scorer.read_model", None)


@pytest.fixture(scope="session")
def scorer(shared_compilations: dict[str, str]) -> Scorer:
    return glpi_jax.load()


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Blocks of colour under noise, which depend on the size alone."""
    rng = np.random.default_rng(height * 1000 + width)
    blocks = rng.integers(0, 200, (-(-height // 16), -(-width // 16), channels), dtype=np.uint8)
    image = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return image + rng.integers(0, 40, image.shape, dtype=np.uint8)


@pytest.fixture(scope="session")
def make_pixels() -> Callable[..., np.ndarray]:
    return pixels


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """`save("a.png", 80, 90)` writes a picture of that size below tmp_path."""

    def write(name: str, height: int, width: int, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(height, width)).save(path, **options)
        return path

    return write
