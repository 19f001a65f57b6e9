"""The ranges of a config's numbers, checked before a run has a workdir."""

import math

from ml_collections import ConfigDict

from glpi_jax.core import config as config_files
from glpi_jax.core.errors import GlpiError

# What is counted: a zero would divide by it, or leave nothing to do.
_COUNTS = (
    "split.round",
    "data.threads",
    "optimizer.cosine_half_period",
    "train.batch_size",
    "train.accumulation",
    "train.epochs",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "evaluation.every_epochs",
    "evaluation.batch_size",
)
# The lowest value, and what is above the highest.
_RANGES = {
    "seed": (0, 2**32),
    "model.dropout": (0, 1),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.warmup_steps": (0, math.inf),
    "optimizer.beta1": (0, 1),
    "optimizer.beta2": (0, 1),
    "optimizer.epsilon": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "evaluation.bootstrap_resamples": (0, math.inf),
}


def check_ranges(config: ConfigDict) -> None:
    """Check the numbers that no other part of a run checks as it begins.

    Raises:
        GlpiError: a number that is out of its range, or NaN; the key is named.
    """
    values = config_files.flatten(config.to_dict())
    for key in _COUNTS:
        if values[key] < 1:
            raise GlpiError(f"config.{key} = {values[key]}: must be at least 1")
    for key, (lowest, above) in _RANGES.items():
        if not lowest <= values[key] < above:
            ending = f" and below {above}" if above < math.inf else ""
            ending = ending or (" and finite" if isinstance(values[key], float) else "")
            raise GlpiError(f"config.{key} = {values[key]}: must be at least {lowest}{ending}")
    delta = config.train.huber_delta
    if not 0 < delta < math.inf:
        raise GlpiError(f"config.train.huber_delta = {delta}: must be above 0 and finite")
    gain = config.model.pretrained.vit_gain
    if not 0 < gain < math.inf:
        raise GlpiError(f"config.model.pretrained.vit_gain = {gain}: must be above 0 and finite")
    confidence, scale = config.evaluation.confidence, config.data.label_scale
    if not 0 < confidence < 1:
        raise GlpiError(f"config.evaluation.confidence = {confidence}: must lie between 0 and 1")
    # A negative one would turn round which scores are the better ones, and nothing would know.
    if not 0 < scale < math.inf:
        raise GlpiError(f"config.data.label_scale = {scale}: must be above 0 and finite")
    if not math.isfinite(config.data.label_shift):
        raise GlpiError(f"config.data.label_shift = {config.data.label_shift}: must be finite")
