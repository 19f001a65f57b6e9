"""A config's optimizer, seen from both sides: Flax's state and the parameters that torch lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.interop.adam import Adam
from glpi_jax.models.glpi import GLPI
from glpi_jax.training.loop import make_recipe
from glpi_jax.training.optimizer import ADAM_L2
from glpi_jax.weights.convert import (
    Entry,
    Shape,
    carried_names,
    flax_entries,
    is_count,
    official_arrays,
    official_shapes,
    to_variables,
)

_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True)
class TorchRecipe:
    """What trains a model, and how.

    Attributes:
        section: `config.optimizer`.
        schedule, multipliers, optimizer: from `make_recipe`.
        trained: entries of the parameters that train.
        parameters: official names of all parameters, in official order.
        listed: those that torch's Adam is given: what trains here, and what of the ViT never
            reaches the score, which the official code does not freeze.
    """

    section: ConfigDict
    schedule: optax.Schedule
    multipliers: Mapping[str, float | None]
    optimizer: optax.GradientTransformation
    trained: Sequence[Entry]
    parameters: Sequence[str]
    listed: Sequence[str]

    @property
    def has_official_adam(self) -> bool:
        """Whether an official file can hold the optimizer's state."""
        return bool(self.section.name == ADAM_L2)

    @property
    def moments(self) -> dict[str, Shape]:
        """Official names and shapes of the parameters that have moments."""
        return {entry.torch_name: entry.torch_shape for entry in self.trained}


def recipe_of(config: ConfigDict, model: GLPI) -> TorchRecipe:
    """Make the optimizer of a config for a model.

    Raises:
        GlpiError: as `make_recipe`.
    """
    schedule, multipliers, optimizer, _ = make_recipe(config, model, make_mesh(1))
    entries = [entry for entry in flax_entries(model) if entry.collection == "params"]
    trained = [entry for entry in entries if multipliers["/".join(entry.path)] is not None]
    parameters = [name for name in official_shapes(model) if not name.endswith(_BUFFERS)]
    training = {entry.torch_name for entry in trained}
    training.update(name for name in carried_names(model) if not is_count(name))
    listed = [name for name in parameters if name in training]
    return TorchRecipe(
        config.optimizer, schedule, multipliers, optimizer, trained, parameters, listed
    )


def set_adam(opt_state: optax.OptState, adam: Adam, recipe: TorchRecipe) -> optax.OptState:
    """Put Adam's moments and step into an optimizer state of step 0."""
    if not adam.step:
        return opt_state

    def flat(name: str, moments: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        like = optax.tree.get(opt_state, name)
        arrays = to_variables(moments, recipe.trained)["params"]
        named = traverse_util.flatten_dict(arrays, sep="/")
        return {path: jnp.asarray(array, like[path].dtype) for path, array in named.items()}

    # Adam's count and the schedule's.
    return optax.tree.set(
        opt_state,
        mu=flat("mu", adam.exp_avg),
        nu=flat("nu", adam.exp_avg_sq),
        count=jnp.int32(adam.step),
    )


def get_adam(opt_state: optax.OptState, step: int, recipe: TorchRecipe, label: str) -> Adam:
    """Take the official Adam's moments out of an optimizer state.

    Raises:
        GlpiError: parameters have different learning rates, which the official file cannot say.
    """
    rates = {m for m in recipe.multipliers.values() if m is not None}
    if rates != {1.0}:
        raise GlpiError(
            f"{label}: config.optimizer.rules scale the learning rate by {sorted(rates)}, but the "
            "official optimizer has one for all: export with --weights-only"
        )
    section = recipe.section

    def named(moment: str) -> dict[str, np.ndarray]:
        params = traverse_util.unflatten_dict(optax.tree.get(opt_state, moment), sep="/")
        return official_arrays({"params": params}, recipe.trained) if step else {}

    return Adam(
        step,
        named("mu"),
        named("nu"),
        float(recipe.schedule(step)),
        section.learning_rate,
        section.beta1,
        section.beta2,
        section.epsilon,
        section.weight_decay,
    )
