"""What pyproject.toml cannot say: configs within a wheel, and links of the README outside of it."""

import re
import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy configs/ into the package, where `glpi_jax.core.config.CONFIGS_ROOT` finds them."""

    def run(self) -> None:
        """Build, then copy; an editable installation has the checkout's own."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "glpi_jax/configs")
            target.mkdir(parents=True, exist_ok=True)
            for path in Path("configs").glob("*.py"):
                shutil.copy(path, target)


def readme_with_whole_links(version: str) -> str:
    """README.md for a page elsewhere, where links into the checkout lead nowhere."""
    path = Path("README.md")
    if not path.is_file():  # an image for a cluster has none
        return ""

    def whole(link: re.Match[str]) -> str:
        file = link[1]
        if file.endswith((".svg", ".png", ".jpg")):
            return f"](https://raw.githubusercontent.com/glpi-jax/glpi_jax/v{version}/{file})"
        return f"](https://github.com/glpi-jax/glpi_jax/blob/v{version}/{file})"

    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", whole, path.read_text(encoding="utf-8"))


def version() -> str:
    """The version that pyproject.toml declares."""
    with open("pyproject.toml", "rb") as file:
        return str(tomllib.load(file)["project"]["version"])


setup(
    cmdclass={"build_py": BuildWithConfigs},
    long_description=readme_with_whole_links(version()),
    long_description_content_type="text/markdown",
)
