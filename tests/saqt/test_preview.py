"""The contact sheet of all distortions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glpi_jax.cli.main import main
from glpi_jax.distortions import distort, seed_for
from glpi_jax.saqt.preview import distortion_sheet


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    rng = np.random.default_rng(0)
    blocks = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(blocks.resize((64, 48), Image.Resampling.BICUBIC))


def test_every_cell_is_that_distortion(photograph: np.ndarray) -> None:
    """Unreduced, so that the pixels of the sheet are those of `distort`."""
    sheet = np.asarray(distortion_sheet(photograph, name="a.png", seed=3, cell=64))
    assert sheet.shape == (2 * 18 + 25 * (48 + 18 + 8), 190 + 5 * (64 + 8) + 8, 3)
    for number, level in ((1, 5), (8, 2), (11, 4), (19, 1), (25, 5)):
        expected = distort(photograph, number, level, rng=seed_for("a.png", number, level, 3))
        top, left = 2 * 18 + (number - 1) * (48 + 18 + 8), 190 + (level - 1) * (64 + 8)
        np.testing.assert_array_equal(sheet[top : top + 48, left : left + 64], expected)


def test_command(photograph: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture, out = tmp_path / "a.png", tmp_path / "sheet.png"
    Image.fromarray(photograph).save(picture)
    command = ["saqt", "preview", str(picture), "--out", str(out), "--cell", "32"]
    assert main(command) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (190 + 5 * 40 + 8, 36 + 25 * (24 + 26))
    assert capsys.readouterr().out.strip() == str(out)
    assert main([*command[:-4], "--out", str(tmp_path / "sheet.jpg")]) == 2
    assert "must end in .png" in capsys.readouterr().err
    (tmp_path / "text.jpg").write_text("no image")
    assert main(["saqt", "preview", str(tmp_path / "text.jpg"), "--out", str(out)]) == 2
    assert "text.jpg" in capsys.readouterr().err
