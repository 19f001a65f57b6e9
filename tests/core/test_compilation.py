"""The cache of compiled programs, and the compiler's options."""

import jax
import jax.numpy as jnp
import pytest

from glpi_jax.core.compilation import compiler_options, kept_compilations
from glpi_jax.distributed.mesh import make_mesh

CACHE = "jax_compilation_cache_dir"


@pytest.fixture
def no_cache():
    """As for a user who has named none; the tests' own comes back."""
    before = jax.config.values[CACHE]
    jax.config.update(CACHE, None)
    yield
    jax.config.update(CACHE, before)


def heavy(x):
    """Takes longer than the half second below which nothing is kept."""
    for i in range(100):
        x = jnp.sin(x) @ jnp.cos(x) + i
    return x


def test_programs_are_kept_in_the_folder(no_cache, tmp_path):
    with kept_compilations(tmp_path / "compilations"):
        assert jax.config.values[CACHE].startswith(str(tmp_path))
        jax.jit(heavy)(jnp.ones((3, 3)))
    assert jax.config.values[CACHE] is None
    (machine,) = (tmp_path / "compilations").iterdir()
    assert any("heavy" in path.name for path in machine.iterdir())


def test_nothing_is_made_before_there_is_something_to_keep(no_cache, tmp_path):
    with kept_compilations(tmp_path / "compilations"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_user_named_stays(no_cache, tmp_path):
    jax.config.update(CACHE, str(tmp_path / "own"))
    with kept_compilations(tmp_path / "compilations"):
        assert jax.config.values[CACHE] == str(tmp_path / "own")
    assert not (tmp_path / "compilations").exists()


def test_options_are_known_to_this_version_of_xla():
    """Otherwise the CPU is slower, silently: look for what the option is called now."""
    options = compiler_options(make_mesh(1))
    assert options
    assert float(jax.jit(lambda x: x + 1, compiler_options=options)(1.0)) == 2.0
    once = compiler_options(make_mesh(1), runs_once=True)
    assert float(jax.jit(lambda x: x + 1, compiler_options=once)(1.0)) == 2.0
