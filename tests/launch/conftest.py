"""Running the scripts of launch/ without any of the tools that they call."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("gcloud", "xpk", "docker", "git", "srun", "scontrol", "glpi")

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def write_tool(tmp_path: Path) -> Callable[[str, str], None]:
    """Write a tool as a shell script, which notes its call in `calls` first."""
    folder = tmp_path / "tools"
    folder.mkdir()

    def write(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{tmp_path}/calls"\n{script}\n')
        path.chmod(0o755)

    return write


@pytest.fixture
def launch(tmp_path: Path, write_tool: Callable[[str, str], None]) -> Launch:
    """`launch("local.sh", "--dry-run", …, VARIABLE=…)` runs a script in an empty folder.

    The tools that it may call fail, unless the test writes them anew.
    """
    here = tmp_path / "here"
    here.mkdir()
    for name in TOOLS:
        write_tool(name, "exit 99")

    def run(script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path}/tools:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        return subprocess.run(
            [str(ROOT / "launch" / script), *words],
            cwd=here,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def dry(launch: Launch, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines that a script prints with --dry-run, which does nothing else."""

    def lines(script: str, *words: str, **variables: str) -> list[str]:
        at = words.index("--") if "--" in words else len(words)
        done = launch(script, *words[:at], "--dry-run", *words[at:], **variables)
        assert (done.returncode, done.stderr) == (0, "")
        assert not (tmp_path / "calls").exists()
        assert not any((tmp_path / "here").iterdir())
        return done.stdout.splitlines()

    return lines
