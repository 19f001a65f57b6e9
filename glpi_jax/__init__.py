"""GLPI in JAX: no-reference image quality assessment with global-local progressive integration."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glpi_jax.scoring import load
    from glpi_jax.weights.convert import load_torch

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_torch"]

_HOMES = {"load": "glpi_jax.scoring", "load_torch": "glpi_jax.weights.convert"}


def __getattr__(name: str) -> Any:
    # Importing the package alone costs no JAX: `glpi --help` stays quick.
    if name not in _HOMES:
        raise AttributeError(f"module 'glpi_jax' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
