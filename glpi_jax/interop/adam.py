"""The official `optimizer` entry, `torch.optim.Adam.state_dict()`, and Adam's moments in NumPy.

Torch numbers the parameters that it was given: in the official code those that train, in the order
of the state dict. The ViT blocks behind the last tap, the final norm and the classifier are among
them; they get no gradient and hence no moments.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glpi_jax.weights.convert import Shape, to_numpy
from glpi_jax.weights.torch_files import CheckpointError

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


@dataclasses.dataclass(frozen=True)
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
    """The official entry, with arrays for tensors.

    Args:
        adam: the state.
        listed: official names of the parameters that torch's Adam is given, in its order.
    """
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
    bad = []
    for name in shapes.keys() & state.keys():
        try:
            steps[name] = float(state[name]["step"])
            for key, moment in (("exp_avg", first), ("exp_avg_sq", second)):
                moment[name] = to_numpy(state[name][key])
                bad += [f"{key} of {name} {flaw}" for flaw in _flaws(moment[name], shapes[name])]
            if name in second and (second[name] < 0).any():
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


def _flaws(array: np.ndarray, shape: Shape) -> list[str]:
    flaws = []
    if array.shape != shape:
        flaws.append(f"has shape {array.shape} instead of {shape}")
    if array.dtype != np.float32:
        flaws.append(f"is {array.dtype} instead of float32")
    elif not np.isfinite(array).all():
        flaws.append("is not finite")
    return flaws
