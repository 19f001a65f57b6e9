"""`glpi data check` and `glpi data prepare` as their users see them, and `--skip-bad` of runs."""

import argparse

import miniatures
import pytest

from glpi_jax.cli.main import main
from glpi_jax.cli.run import add_run_options, config_of
from glpi_jax.core.config import shipped_config


@pytest.fixture
def clive(tmp_path):
    """A copy of CLIVE that is whole but for its size."""
    return miniatures.build_miniature("clive", tmp_path / "clive", references=12)


def test_a_short_copy_is_told_with_its_counts(clive, capsys):
    assert main(["data", "check", "clive", str(clive)]) == 2
    output = capsys.readouterr()
    assert "(published: 1162)" in output.out
    assert "problem: " in output.err
    assert "1162" in output.err


def test_a_whole_database_has_no_problem(make_database, tmp_path, capsys):
    folder = make_database(tmp_path / "own")
    assert main(["data", "check", "csv", str(folder)]) == 0
    assert "a whole copy of miniature" in capsys.readouterr().err


def test_a_truncated_image_is_named(make_database, tmp_path, capsys):
    folder = make_database(tmp_path / "own")
    image = folder / "scene0_1.png"
    image.write_bytes(image.read_bytes()[:200])
    assert main(["data", "check", "csv", str(folder)]) == 2
    assert "scene0_1.png" in capsys.readouterr().err


def test_a_wrong_root_is_one_line(tmp_path, capsys):
    assert main(["data", "check", "tid2013", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("glpi: error: ")
    assert "mos_with_names.txt" in error
    assert "\n" not in error


def test_prepare_leaves_out_what_it_is_told_to(make_database, tmp_path, capsys):
    folder = make_database(tmp_path / "own")
    (folder / "scene0_1.png").unlink()
    arguments = ["data", "prepare", "csv", str(folder), str(tmp_path / "out")]
    assert main(arguments) == 2
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--skip-bad"]) == 0
    error = capsys.readouterr().err
    assert "left out: " in error
    assert "scene0_1.png" in error
    assert "23 images of miniature, 1 left out" in error
    assert main(["data", "check", "prepared", str(tmp_path / "out")]) == 2  # it remembers


@pytest.mark.parametrize("given", [False, True])
def test_skip_bad_is_of_every_database_of_a_run(given):
    parser = argparse.ArgumentParser()
    parser.set_defaults(overrides=[])
    add_run_options(parser)
    spec = f"{shipped_config('cross')}:live-csiq,bid"
    config = config_of(
        parser.parse_args(["--config", spec, "--workdir", "w", *["--skip-bad"] * given])
    )
    sections = (config.data, config.targets.csiq, config.targets.bid)
    assert [section.skip_bad for section in sections] == [given] * 3
