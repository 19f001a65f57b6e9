"""The README's commands exist: each parses, and each make target is in the Makefile."""

import re
import shlex
from pathlib import Path

import pytest

from glpi_jax.cli import _parser
from glpi_jax.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line]
COMMANDS += re.findall(r"`(glpi [^`…]+|make [^`…]+)`", README)


def test_there_are_commands():
    assert {"make demo", "make test", "glpi data demo"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets
        return
    assert program == "glpi"
    args, overrides = _parser().parse_known_args(arguments)
    if overrides:
        load_config(args.config or "configs/demo.py", overrides)


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_figure_is_left_open():
    assert "@@" not in README
