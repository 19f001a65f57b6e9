"""Photographs to render, and what rendering them gives."""

from pathlib import Path

import pytest
from PIL import Image
from rendering import NAMES, photograph, render

from glpi_jax.saqt import labels
from glpi_jax.saqt.render import Rendered


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed, name in enumerate(NAMES):
        Image.fromarray(photograph(seed)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs under two types and levels, rendered in this process at one go."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert render(root, out) == Rendered(5, 20, (), 0, None)
    return out


@pytest.fixture
def three_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "SOURCES_PER_FILE", 2)
