"""Everything that a training step reads and writes."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util
from jax.sharding import Mesh

from glpi_jax.core.compilation import compiler_options
from glpi_jax.distributed.mesh import FsdpRules, parameter_shardings, replicated
from glpi_jax.models.glpi import GLPI
from glpi_jax.training.optimizer import split_params


class TrainState(struct.PyTreeNode):
    """State of training after `step` steps.

    Attributes:
        step: int32 scalar.
        params: parameter tree in the model's `param_dtype`, frozen ones included.
        batch_stats: running statistics of BatchNorm, float32.
        opt_state: optimizer state of the trainable parameters, flat by path.
        dropout_key: raw uint32 key data; step t draws from fold_in(key, t).
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    dropout_key: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def key_of(seed: int) -> np.ndarray:
    """The random key of a seed as uint32 words.

    Programs take it as an argument, so that one program, which takes seconds to compile, serves all
    seeds; it is a NumPy array, which every process of several may hand to a program.
    """
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def init_variables(model: GLPI, key: jax.Array) -> dict[str, Any]:
    """Initialise a model's variables from a key of `key_of`."""
    crop = model.size.crop
    return dict(model.init(jax.random.wrap_key_data(key), jnp.zeros((1, crop, crop, 3))))


def create_state(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    *,
    seed: int,
    mesh: Mesh,
    variables: Mapping[str, Any] | None = None,
    fsdp_rules: FsdpRules = (),
) -> TrainState:
    """Make the state of step 0 on the mesh, with the shardings of `abstract_state`.

    Args:
        model, optimizer, multipliers: of `build`, `make_optimizer`, `learning_rate_multipliers`.
        seed: seeds the parameters and the dropout.
        mesh, fsdp_rules: as `abstract_state` takes them.
        variables: starting weights; initialised from the seed when None.
    """
    target = abstract_state(model, optimizer, multipliers, mesh=mesh, fsdp_rules=fsdp_rules)
    create = functools.partial(_create, model, optimizer, multipliers)
    options = compiler_options(mesh, runs_once=True)
    compiled = jax.jit(create, out_shardings=shardings_of(target), compiler_options=options)
    return compiled(key_of(seed), variables)


def abstract_state(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    *,
    mesh: Mesh,
    fsdp_rules: FsdpRules = (),
) -> TrainState:
    """Shapes, dtypes and shardings of a state, to restore a checkpoint into.

    Parameters, and what the optimizer keeps of them, are split as the rules say; see
    `parameter_shardings`. Everything else is whole on every device.
    """
    create = functools.partial(_create, model, optimizer, multipliers)
    state = jax.eval_shape(create, key_of(0), _variable_shapes(model))
    shapes = {path: x.shape for path, x in _flat(state.params).items()}
    shardings = parameter_shardings(shapes, fsdp_rules, mesh)

    def placed(tree_path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # The optimizer's trees are flat: the last key of a moment is its parameter's path.
        names = [key.key for key in tree_path if isinstance(key, jax.tree_util.DictKey)]
        name = "/".join(names)
        sharding = shardings[name] if shapes.get(name) == x.shape else replicated(mesh)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(placed, state)


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree of shapes."""
    return jax.tree.map(lambda x: x.sharding, tree)


def abstract_variables(model: GLPI, *, mesh: Mesh) -> dict[str, Any]:
    """Shapes, dtypes and shardings of a model's variables."""
    return on_mesh(_variable_shapes(model), mesh)


@functools.lru_cache(maxsize=8)
def _variable_shapes(model: GLPI) -> dict[str, Any]:
    """Return the shapes of a model's variables, not to be changed; tracing a model takes long."""
    return dict(jax.eval_shape(functools.partial(init_variables, model), key_of(0)))


def on_mesh(tree: Any, mesh: Mesh) -> Any:
    """Give a tree of shapes the sharding that the state has on the mesh."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def tree_differences(saved: Any, target: Any) -> list[str]:
    """Missing, unexpected and misshapen entries of a tree of arrays, or of Orbax's, in words."""
    ours, wanted = ({k: tuple(v.shape) for k, v in _flat(x).items()} for x in (saved, target))
    differences = {
        "missing": sorted(wanted.keys() - ours.keys()),
        "unexpected": sorted(ours.keys() - wanted.keys()),
        "misshapen": [
            f"{name} {ours[name]} instead of {shape}"
            for name, shape in sorted(wanted.items())
            if ours.get(name, shape) != shape
        ],
    }
    return [
        f"{len(names)} {what}: {_shortened(names)}" for what, names in differences.items() if names
    ]


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(getattr(tree, "tree", tree), sep="/")


def _shortened(names: list[str], show: int = 5) -> str:
    rest = f", … ({len(names) - show} more)" if len(names) > show else ""
    return ", ".join(names[:show]) + rest


def _create(
    model: GLPI,
    optimizer: optax.GradientTransformation,
    multipliers: Mapping[str, float | None],
    key: jax.Array,
    variables: Mapping[str, Any] | None,
) -> TrainState:
    if variables is None:
        variables = init_variables(model, key)
    # Files and other runs may have another dtype.
    params = jax.tree.map(lambda x: x.astype(model.param_dtype), variables["params"])
    trainable, _ = split_params(params, multipliers)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(trainable),
        dropout_key=jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), 1)),
    )
