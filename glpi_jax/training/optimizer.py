"""Optimizers, the cyclic cosine, and which parameters train; the official Adam has L2 decay.

Parameters are addressed by path, e.g. `vgfe/blocks_0/attn/qkv/kernel`.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.path_rules import apply_rules

ADAM_L2 = "adam_l2"  # the official optimizer

FlatParams = dict[str, jax.Array]
ParameterRules = Sequence[tuple[str, float | None]]


def cosine_schedule(learning_rate: float, half_period: int, warmup_steps: int) -> optax.Schedule:
    """Learning rate of every step.

    lr(t) = learning_rate · (1 + cos(π t / half_period)) / 2, which swings up again after
    `half_period` steps: torch's CosineAnnealingLR, eta_min 0, stepped every iteration. During the
    first `warmup_steps` it is scaled by (t + 1) / warmup_steps.
    """

    def schedule(step: jax.Array) -> jax.Array:
        rate = learning_rate * (1 + jnp.cos(math.pi * step / half_period)) / 2
        if warmup_steps:
            rate = rate * jnp.minimum(1.0, (step + 1) / warmup_steps)
        return rate

    return schedule


def learning_rate_multipliers(
    paths: Sequence[str], rules: ParameterRules
) -> dict[str, float | None]:
    """Give each parameter the multiplier of the first rule that matches its whole path.

    Args:
        paths: of all parameters.
        rules: (regular expression, multiplier of the learning rate or None for frozen).

    Raises:
        GlpiError: a parameter that no rule covers, a rule that covers no parameter, or a multiplier
            that is no finite number of at least 0.
    """
    where = "config.optimizer.rules"
    multipliers = apply_rules(paths, rules, where)
    for pattern, value in rules:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value < math.inf):
            raise GlpiError(
                f"{where}: {value!r} of {pattern!r} is no multiplier: give a number of at least 0,"
                " or None to freeze"
            )
    return multipliers


def split_params(
    params: Mapping[str, Any], multipliers: Mapping[str, float | None]
) -> tuple[FlatParams, FlatParams]:
    """Split a parameter tree into its trainable and its frozen part, both flat by path."""
    flat = traverse_util.flatten_dict(params, sep="/")
    trainable = {path: x for path, x in flat.items() if multipliers[path] is not None}
    frozen = {path: x for path, x in flat.items() if multipliers[path] is None}
    return trainable, frozen


def merge_params(trainable: FlatParams, frozen: FlatParams) -> dict[str, Any]:
    """Undo `split_params`."""
    return traverse_util.unflatten_dict(trainable | frozen, sep="/")


def make_optimizer(
    section: ConfigDict, schedule: optax.Schedule, multipliers: Mapping[str, float | None]
) -> optax.GradientTransformation:
    """Make the optimizer of a config, over the flat trainable parameters.

    `adam_l2` is the official one: `torch.optim.Adam(weight_decay=…)`, which adds the decay to the
    gradient, not decoupled as in AdamW. Every other name is a function of optax, which is given the
    schedule as its learning rate and `section.arguments`.

    Args:
        section: `config.optimizer`.
        schedule, multipliers: of `cosine_schedule` and `learning_rate_multipliers`.

    Raises:
        GlpiError: an unknown name, or arguments that the optimizer does not take.
    """
    if section.name == ADAM_L2:
        if section.arguments:
            raise GlpiError(
                f"config.optimizer.arguments: {ADAM_L2} takes config.optimizer.beta1, beta2,"
                f" epsilon and weight_decay instead; leave out {', '.join(section.arguments)}"
            )
        steps = [
            optax.add_decayed_weights(section.weight_decay),
            optax.scale_by_adam(b1=section.beta1, b2=section.beta2, eps=section.epsilon),
        ]
        # After the multipliers, not in one with the learning rate: the bits are those of old runs.
        last = [optax.scale_by_learning_rate(schedule)]
    else:
        steps, last = [_optimizer_of_optax(section, schedule)], []
    scales = {path: m for path, m in multipliers.items() if m is not None}
    if set(scales.values()) != {1.0}:

        def scale(updates: FlatParams, _: FlatParams | None) -> FlatParams:
            return {path: u * scales[path] for path, u in updates.items()}

        steps.append(optax.stateless(scale))
    return optax.chain(*steps, *last)


def _optimizer_of_optax(
    section: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Call the function of optax that a config names, and try its result on a small parameter."""
    name, arguments = section.name, dict(section.arguments)
    key = f"config.optimizer.name = {name!r}"
    function = getattr(optax, name, None)
    known = inspect.signature(function).parameters if inspect.isfunction(function) else {}
    if function is None or "learning_rate" not in known:
        raise GlpiError(
            f"{key}: neither {ADAM_L2} nor an optimizer of optax with a learning rate, such as"
            " adamw, sgd, lion, lamb"
        )
    settable = [each for each in known if each != "learning_rate"]
    unknown = sorted(arguments.keys() - set(settable))
    if unknown:
        raise GlpiError(
            f"config.optimizer.arguments: optax.{name} has no {', '.join(unknown)} to set; it takes"
            f" {', '.join(settable)} (config.optimizer.learning_rate is the learning rate)"
        )
    try:
        optimizer = function(learning_rate=schedule, **arguments)
        params = {"kernel": jnp.zeros((2, 2))}
        jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), params)
    except Exception as error:  # of values that it cannot take, or of one that needs more
        cause = " ".join(str(error).split()) or type(error).__name__
        raise GlpiError(
            f"{key} with config.optimizer.arguments = {arguments}: optax cannot take a step"
            f" ({cause})"
        ) from error
    return optimizer
