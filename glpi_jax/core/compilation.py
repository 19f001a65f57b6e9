"""How programs are compiled: options by platform, and the cache on disk."""

import functools
import hashlib
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

CompilerOptions = dict[str, str]

COMPILATIONS = "compilations"  # the cache's folder in a workdir

# XLA's CPU backend hands convolutions and products to YNNPACK, whose convolutions with many
# channels, above all their filter gradients, take up to twice as long as XLA's own.
_FOR_CPU: CompilerOptions = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiler_options(mesh: Mesh, *, runs_once: bool = False) -> CompilerOptions | None:
    """Options for `jax.jit` of a program that runs on a mesh.

    One that runs once, as initialisation does, is not optimised: compiling it takes the time.
    """
    if mesh.devices.flat[0].platform != "cpu" or not _known_to_xla():
        return None
    return _FOR_CPU | {"xla_backend_optimization_level": "0"} if runs_once else _FOR_CPU


@functools.cache
def _known_to_xla() -> bool:
    """Whether this version of XLA has the options for the CPU, which are no stable interface."""
    try:
        jax.jit(lambda: 0, compiler_options=_FOR_CPU).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@contextmanager
def kept_compilations(folder: Path) -> Iterator[None]:
    """Keep compiled programs in a folder meanwhile, and take from it those that are there.

    Does nothing where the user has named one (`JAX_COMPILATION_CACHE_DIR`). Programs for a CPU are
    kept apart by its model, since code for one may not run on another.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        yield
        return
    own = folder / hashlib.sha256(cpu_fingerprint().encode()).hexdigest()[:12]
    settings = {
        "jax_compilation_cache_dir": os.fspath(own.resolve()),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    before = {name: jax.config.values[name] for name in settings}
    _configure(settings)
    try:
        yield
    finally:
        _configure(before)


def cpu_fingerprint() -> str:
    """Return what compiled code for the CPU depends on: its architecture and its features."""
    features = Path("/proc/cpuinfo")
    if not features.is_file():
        return platform.platform() + platform.processor()
    lines = features.read_text(encoding="utf-8", errors="replace").splitlines()
    wanted = ("flags", "Features", "model name")
    return platform.machine() + "".join(sorted({x for x in lines if x.startswith(wanted)}))


def _configure(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
