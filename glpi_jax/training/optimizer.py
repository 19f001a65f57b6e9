"""The official recipe's optimizer: Adam with L2 decay in the gradient, cyclic cosine, freezing.

Parameters are addressed by path, e.g. `vgfe/blocks_0/attn/qkv/kernel`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.path_rules import apply_rules

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
        paths: parameter paths.
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
    schedule: optax.Schedule,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    multipliers: Mapping[str, float | None],
) -> optax.GradientTransformation:
    """Adam over the flat trainable parameters.

    Weight decay is added to the gradient before Adam (`torch.optim.Adam(weight_decay=…)`), not
    decoupled as in AdamW.
    """
    steps = [
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon),
    ]
    scales = {path: m for path, m in multipliers.items() if m is not None}
    if set(scales.values()) != {1.0}:

        def scale(updates: FlatParams, _: FlatParams | None) -> FlatParams:
            return {path: u * scales[path] for path, u in updates.items()}

        steps.append(optax.stateless(scale))
    steps.append(optax.scale_by_learning_rate(schedule))
    return optax.chain(*steps)
