"""What is declared is what is used: dependencies, their ranges and the version agree."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import glpi_jax

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def distribution(requirement: str) -> str:
    """`Pillow>=11` -> `pillow`."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def imports(source: Path) -> set[str]:
    """Top-level names of the absolute imports in a file, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_requirements_agree_with_pyproject():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert required == PROJECT["dependencies"]


def test_every_import_is_declared():
    optional = PROJECT["optional-dependencies"]
    requirements = [
        *PROJECT["dependencies"], *optional["torch"], *optional["datasets"], *optional["demo"],
        *optional["serve"], *optional["video"],
    ]  # fmt: skip
    declared = {distribution(requirement) for requirement in requirements}
    providers = metadata.packages_distributions()
    undeclared = {}
    for source in [*(ROOT / "glpi_jax").rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        for name in imports(source) - set(sys.stdlib_module_names) - {"glpi_jax", "configs"}:
            names = {distribution(provider) for provider in providers.get(name, [name])}
            if not names & declared:
                undeclared[name] = str(source.relative_to(ROOT))
    assert undeclared == {}


def test_package_data_covers_all_other_files():
    package = ROOT / "glpi_jax"
    (patterns,) = PYPROJECT["tool"]["setuptools"]["package-data"].values()
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".py"}
    assert {path for path in others if "__pycache__" not in path.parts} == shipped


def test_version_is_the_same_everywhere():
    declared = PROJECT["version"]
    assert glpi_jax.__version__ == declared
    assert f"\nversion: {declared}\n" in (ROOT / "CITATION.cff").read_text()


def test_installed_version_is_the_declared_one():
    try:
        installed = metadata.version("glpi_jax")
    except metadata.PackageNotFoundError:
        pytest.skip("run from the source tree without an installation")
    assert installed == PROJECT["version"]
