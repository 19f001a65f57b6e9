"""`config.model.param_dtype`: traced, not computed."""

import functools

import jax
import jax.numpy as jnp

from configs.base import get_config
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.models.glpi import build
from glpi_jax.training.loop import make_recipe
from glpi_jax.training.state import _create, abstract_state, abstract_variables, key_of
from glpi_jax.training.step import train_step


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


def test_step_with_bfloat16_parameters_keeps_every_dtype():
    mesh = make_mesh(1)
    model = build("glpi_demo", dropout=0.5, param_dtype="bfloat16")
    recipe = make_recipe(get_config(), model, mesh)
    parts = (model, recipe.optimizer, recipe.multipliers)
    state = abstract_state(*parts, mesh=mesh)
    assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(state.batch_stats)} == {"float32"}
    images = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
    scores = jax.ShapeDtypeStruct((4,), jnp.float32)
    step = functools.partial(train_step, *parts, loss=recipe.loss)
    after, metrics = jax.eval_shape(step, state, images, scores)
    assert dtypes(after) == dtypes(state)
    assert metrics["predictions"].dtype == jnp.float32

    given = abstract_variables(build("glpi_demo", dropout=0.5), mesh=mesh)
    start = jax.eval_shape(functools.partial(_create, *parts), key_of(0), given)
    assert dtypes(start) == dtypes(state)
