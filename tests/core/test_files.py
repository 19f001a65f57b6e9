import json
import os

import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json, write_text


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(GlpiError, match=r"run\.json: cannot be written \(No space left on device"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_writing_keeps_line_ends_and_undecodable_names(tmp_path):
    write_text(tmp_path / "a", "x\ny\udcff\n")
    assert (tmp_path / "a").read_bytes() == b"x\ny\xff\n"
    with pytest.raises(GlpiError, match="no/a: cannot be written"):
        write_text(tmp_path / "no" / "a", "x")
