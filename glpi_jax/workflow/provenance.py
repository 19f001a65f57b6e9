"""What made a result: versions, and the revision of the code."""

import importlib.metadata
import subprocess
from pathlib import Path

from glpi_jax import __version__

DEPENDENCIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Versions of this package, which may run without being installed, and of what it stands on."""
    return {"glpi_jax": __version__} | {
        name: importlib.metadata.version(name) for name in DEPENDENCIES
    }


def git_revision() -> str | None:
    """Revision of the checkout that the package runs from, None outside one."""
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    try:
        # An environment may lie in the checkout of something else.
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True
        )
        done = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
