"""What pyproject.toml cannot say: a wheel holds the experiments' configs as glpi_jax/configs."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy configs/ into the package, where `glpi_jax.config.SHIPPED` finds them."""

    def run(self) -> None:
        """Build, then copy; an editable installation has the checkout's own."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "glpi_jax/configs")
            target.mkdir(parents=True, exist_ok=True)
            for path in Path("configs").glob("*.py"):
                shutil.copy(path, target)


setup(cmdclass={"build_py": BuildWithConfigs})
