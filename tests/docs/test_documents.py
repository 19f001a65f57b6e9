"""The documents: their commands parse, and CI runs each or says why not; their links lead on."""

import os
import re
import shlex
from pathlib import Path

import documented_commands as documented
import pytest

from glpi_jax.cli.main import _parser
from glpi_jax.core.config import load_config

ROOT = Path(__file__).parents[2]
COMMANDS = documented.collect()
TEXTS = sorted({command.text for command in COMMANDS})
PAGES = documented.pages()


def words_of_glpi(text: str) -> list[str]:
    """The words after `glpi`, of a command that reads from others or not."""
    return shlex.split(text.split("| ")[-1])


def test_there_are_commands():
    assert {"make demo", "make test", "glpi data demo"} <= set(TEXTS)
    assert {"README.md", "launch/README.md", "docs/score.md"} <= {c.page for c in COMMANDS}


def test_ci_runs_each_command_or_says_why_not():
    assert documented.uncovered(COMMANDS) == []


def test_a_command_without_entry_and_an_entry_without_command_are_told(monkeypatch):
    monkeypatch.setitem(documented.HOW, "glpi gone", documented.NotRun("nowhere"))
    new = documented.Command("glpi new", "docs/new.md")
    assert documented.uncovered([*COMMANDS, new]) == [
        "docs/new.md: no entry in HOW for: glpi new",
        "no document has the command of this entry: glpi gone",
    ]


def test_what_is_collected(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(
        "`glpi data prepare` is a name, `glpi score a.jpg` none, `glpi x …` cut off.\n\n"
        "```bash\ntpu=(--name a)\nglpi train \\\n    --config b.py  # why\n# alone\n```\n\n"
        "1. in a list\n\n   ```bash\n   glpi serve\n   ```\n\n```text\nglpi no\n```\n"
    )
    monkeypatch.setattr(documented, "pages", lambda: [page])
    monkeypatch.setattr(documented, "ROOT", tmp_path)
    setting = ("tpu=(--name a)",)
    assert documented.collect() == [
        documented.Command("glpi train --config b.py", "page.md", setting),
        documented.Command("glpi serve", "page.md", setting),
        documented.Command("glpi score a.jpg", "page.md"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("sbatch --x=1 launch/a.sh --y -- train", "launch/a.sh --y --dry-run -- train"),
        ("launch/a.sh delete --z", "launch/a.sh delete --z --dry-run"),
    ],
)
def test_a_dry_run(text, line):
    assert documented.line_of(documented.Command(text, "x.md"), documented.DryRun()) == line


@pytest.mark.parametrize(
    ("text", "how", "status"),
    [
        ("echo made > file", documented.Run(leaves=("file",)), 0),
        ("true", documented.Run(leaves=("file",)), 1),
        ("touch file", documented.Run(leaves=("file",)), 1),
        ("exit 3", documented.Run(), 3),
        ("exit 2", documented.Run(status=2), 0),
        ("true", documented.Run(status=2), 1),
        ("kill -TERM $$", documented.Run(), 143),
        ("exit 3", documented.Run("true", "other"), 0),
        ("exit 3", documented.NotRun("why"), 0),
    ],
)
def test_status_of_a_command(text, how, status, tmp_path, capsys):
    command = documented.Command(text, "x.md")
    assert documented._run_one(command, how, tmp_path, dict(os.environ)) == status
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("text", [text for text in TEXTS if re.search(r"(^|\| )glpi ", text)])
def test_command_parses(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, *arguments = words_of_glpi(text)
    if arguments == ["--version"]:
        return
    args, overrides = _parser().parse_known_args(arguments)
    if overrides:
        load_config(args.config or "configs/demo.py", overrides)


@pytest.mark.parametrize("text", [text for text in TEXTS if text.startswith("make ")])
def test_target_is_in_the_makefile(text):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert text.split()[1] in targets


@pytest.mark.parametrize("text", [t for t in TEXTS if re.search(r"(launch|benchmarks)/\S+", t)])
def test_script_is_there(text):
    found = re.search(r"(launch|benchmarks)/\S+", text)
    assert found is not None
    assert (ROOT / found[0]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs/screenshots").iterdir()}
    assert max(sizes.values()) < 250_000
    assert sum(sizes.values()) < 1_200_000
