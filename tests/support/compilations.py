"""Compiled programs of earlier test sessions.

A session compiles into a folder of its own, since a test may kill a process that is writing there.
It begins with links to the programs that earlier sessions have kept, and keeps its own at its end.
"""

import hashlib
import os
from pathlib import Path

import jaxlib
from jax._src.compilation_cache import decompress_executable

from glpi_jax.core.compilation import cpu_fingerprint

VARIABLE = "GLPI_TEST_COMPILATIONS"  # another folder for what is kept; empty: nothing is
LARGEST_BYTES = 500_000_000
SUFFIX = "-cache"  # JAX's


def kept_folder() -> Path | None:
    """Folder of the programs for this jaxlib, these flags and this CPU."""
    root = os.environ.get(VARIABLE, str(Path(__file__).parents[2] / ".test_compilations"))
    key = "\n".join((jaxlib.__version__, os.environ["XLA_FLAGS"], cpu_fingerprint()))
    return Path(root) / hashlib.sha256(key.encode()).hexdigest()[:12] if root else None


def take(kept: Path, session: Path) -> None:
    """Link the kept programs into a session's folder."""
    session.mkdir(parents=True, exist_ok=True)
    for file in kept.glob(f"*{SUFFIX}"):
        _link(file, session / file.name)


def keep(session: Path, kept: Path) -> None:
    """Keep a session's new programs, and remove the oldest beyond the limit."""
    kept.mkdir(parents=True, exist_ok=True)
    for file in session.glob(f"*{SUFFIX}"):
        if not (kept / file.name).exists() and _is_whole(file):
            _link(file, kept / file.name)
    files = sorted(kept.parent.glob(f"*/*{SUFFIX}"), key=lambda file: -file.stat().st_mtime)
    size = 0
    for file in files:
        size += file.stat().st_size
        if size > LARGEST_BYTES:
            file.unlink(missing_ok=True)


def _is_whole(file: Path) -> bool:
    """Return True if the process that wrote a program finished it."""
    try:
        decompress_executable(file.read_bytes())
    except Exception:  # of the library that compresses, which depends on what is installed
        return False
    return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:  # another file system
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(source.read_bytes())
        partial.replace(target)
