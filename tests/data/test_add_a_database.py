"""The example of docs/data.md: a file that describes a kind is all that a run takes."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.sources import READERS, load_database

PAGE = Path(__file__).parents[2] / "docs/data.md"


@pytest.fixture
def mydb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the example's kind, which is registered as the page says."""
    section = PAGE.read_text(encoding="utf-8").partition("## Add a database")[2]
    code = re.search(r"```python\n(.+?)```", section, re.S)
    assert code is not None
    (tmp_path / "mydb.py").write_text(code[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mydb", tmp_path / "mydb.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for kind, description in module.KINDS.items():
        monkeypatch.setitem(READERS, kind, description)
    root = tmp_path / "MyDB"
    (root / "photos").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "photos" / name)
    (root / "scores.csv").write_text("file,mos\nb.png,4.5\na.png,2\n")
    return root


def test_example_kind_is_read(mydb: Path) -> None:
    database = load_database("mydb", mydb)
    assert database.images == ("photos/b.png", "photos/a.png")
    assert database.scores.tolist() == [4.5, 2.0]
    assert database.references == database.images
    assert (database.name, database.score_name, database.higher_is_better) == ("mydb", "MOS", True)


def test_example_kind_without_its_label_file_names_the_layout(mydb: Path) -> None:
    (mydb / "scores.csv").unlink()
    with pytest.raises(GlpiError, match=r"label file is missing; a mydb database holds photos/"):
        load_database("mydb", mydb)
