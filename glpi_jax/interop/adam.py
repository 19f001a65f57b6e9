"""The official Adam: its entry in a file, `torch.optim.Adam.state_dict()`, and its state in a run.

Torch numbers the parameters that it was given: in the official code those that train, in the order
of the state dict. The ViT blocks behind the last tap, the final norm and the classifier are among
them; they get no gradient and hence no moments.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
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
    to_numpy,
    to_variables,
)
from glpi_jax.weights.torch_files import CheckpointError

_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")
# What torch writes besides the recipe's numbers; what they change is not computed here.
_FLAGS: dict[str, Any] = {
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": False,
}
_MUST_BE_FALSE = ("amsgrad", "maximize", "decoupled_weight_decay")


@dataclass(frozen=True)
class Adam:
    """Adam's state and numbers.

    Attributes:
        step: updates so far, the same for all parameters.
        exp_avg, exp_avg_sq: first and second moments by official name, float32; no entries at
            step 0.
        learning_rate: of the next update.
        initial_learning_rate: that the schedule starts from; None where no schedule was set.
        beta1, beta2, epsilon, weight_decay: as torch has them, the decay added to the gradient.
    """

    step: int
    exp_avg: Mapping[str, np.ndarray]
    exp_avg_sq: Mapping[str, np.ndarray]
    learning_rate: float
    initial_learning_rate: float | None
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float


def to_entry(adam: Adam, listed: Sequence[str]) -> dict[str, Any]:
    """The official entry, arrays for tensors; `listed` are the parameters that torch's Adam has."""
    state = {
        number: {
            "step": np.array(adam.step, np.float32),
            "exp_avg": adam.exp_avg[name],
            "exp_avg_sq": adam.exp_avg_sq[name],
        }
        for number, name in enumerate(listed)
        if name in adam.exp_avg
    }
    group: dict[str, Any] = {
        "lr": adam.learning_rate,
        "betas": (adam.beta1, adam.beta2),
        "eps": adam.epsilon,
        "weight_decay": adam.weight_decay,
        **_FLAGS,
    }
    if adam.initial_learning_rate is not None:
        group["initial_lr"] = adam.initial_learning_rate
    group["params"] = list(range(len(listed)))
    return {"state": state, "param_groups": [group]}


def from_entry(
    entry: Any,
    *,
    parameters: Sequence[str],
    listed: Sequence[str],
    moments: Mapping[str, Shape],
    label: str,
) -> Adam:
    """Check and read an official entry.

    Args:
        entry: the value under `optimizer`.
        parameters: official names of all parameters, in official order.
        listed: those that train. Torch's Adam may have been given these or all.
        moments: shapes of those that train and get a gradient.
        label: what an error calls it.

    Raises:
        CheckpointError: another optimizer or another set of trainable parameters than these, or
            moments missing, unexpected, misshapen, of another dtype, not finite or negative, or
            steps that differ: all in one message.
    """
    try:
        (group,) = entry["param_groups"]
        beta1, beta2 = map(float, group["betas"])
        numbers = [float(group[key]) for key in ("lr", "eps", "weight_decay")]
        initial = float(group["initial_lr"]) if "initial_lr" in group else None
        ids, state = list(group["params"]), dict(entry["state"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{label}: not the state of one torch.optim.Adam with one group of parameters "
            f"({type(error).__name__}: {error})"
        ) from error
    names = {len(listed): listed, len(parameters): parameters}.get(len(ids))
    if names is None:
        raise CheckpointError(
            f"{label}: torch's Adam had {len(ids)} parameters; config.optimizer.rules train "
            f"{len(listed)} of {len(parameters)}: give the rules that it was trained with"
        )
    problems = [f"{key} is set, which is not supported" for key in _MUST_BE_FALSE if group.get(key)]
    finite = [beta1, beta2, *numbers, *([] if initial is None else [initial])]
    if not all(map(math.isfinite, finite)):
        problems.append("a number of param_groups is not finite")
    name_of = dict(zip(ids, names, strict=True))
    by_name = {name_of.get(number, f"number {number}"): value for number, value in state.items()}
    step, first, second = _moments(by_name, moments, problems)
    if problems:
        raise CheckpointError(f"{label}: {'; '.join(problems)}")
    rate, epsilon, decay = numbers
    return Adam(step, first, second, rate, initial, beta1, beta2, epsilon, decay)


def _moments(
    state: Mapping[str, Any], shapes: Mapping[str, Shape], problems: list[str]
) -> tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Step and moments by name; what is wrong is added to the problems."""
    if not state:  # before the first update
        return 0, {}, {}
    first: dict[str, np.ndarray] = {}
    second: dict[str, np.ndarray] = {}
    steps: dict[str, float] = {}
    bad: list[str] = []
    for name in shapes.keys() & state.keys():
        try:
            steps[name] = float(state[name]["step"])
            for key, moment in (("exp_avg", first), ("exp_avg_sq", second)):
                array = moment[name] = to_numpy(state[name][key])
                if array.shape != shapes[name]:
                    bad.append(f"{key} of {name} has shape {array.shape} instead of {shapes[name]}")
                if array.dtype != np.float32:
                    bad.append(f"{key} of {name} is {array.dtype} instead of float32")
                elif not np.isfinite(array).all():
                    bad.append(f"{key} of {name} is not finite")
            if (second[name] < 0).any():
                bad.append(f"exp_avg_sq of {name} is negative")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            bad.append(f"{name} has no step, exp_avg and exp_avg_sq ({error})")
    different = sorted(set(steps.values()))
    if len(different) > 1:
        bad.append(f"the steps differ, from {different[0]:g} to {different[-1]:g}")
    elif different and not (different[0].is_integer() and different[0] >= 0):
        bad.append(f"the step is {different[0]:g}")
    for what, names in (
        ("missing", shapes.keys() - state.keys()),
        ("unexpected", state.keys() - shapes.keys()),
    ):
        if names:
            problems.append(
                f"moments of {len(names)} parameters {what}: {', '.join(sorted(names))}"
            )
    problems += sorted(bad)
    return int(different[0]) if different and not bad else 0, first, second


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
