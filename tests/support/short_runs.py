"""For tests of what a run starts from: trainings of seconds, and one stopped before it trains."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.training import loop
from glpi_jax.workflow.runs import train_run

# As the planned run of the other tests, so that its programs need no second compilation.
SMALL = (
    "--config.model.name=glpi_demo",
    "--config.model.pretrained.vit=",
    "--config.model.pretrained.resnet=",
    "--config.model.dropout=0.0",
    "--config.model.dtype=float32",
    "--config.optimizer.learning_rate=1e-3",
    "--config.optimizer.warmup_steps=50",
    "--config.optimizer.cosine_half_period=4100",
    "--config.optimizer.rules=(('.*', 1.0),)",
    "--config.train.batch_size=4",
    "--config.train.epochs=1",
    "--config.evaluation.crops=1",
    "--config.evaluation.batch_size=4",
    "--config.evaluation.bootstrap_resamples=10",
)

# A model and an epoch that take seconds, for a config of any database.
TINY = (
    "--config.model.name=glpi_demo",
    "--config.model.pretrained.vit=",
    "--config.model.pretrained.resnet=",
    "--config.train.batch_size=4",
    "--config.train.epochs=1",
    "--config.evaluation.crops=2",
    "--config.evaluation.batch_size=4",
    "--config.evaluation.bootstrap_resamples=10",
)


def short_config(kadid: Path, *overrides: str) -> ConfigDict:
    """A training of seconds on a small KADID-10k."""
    spec = f"{shipped_config('synthetic')}:kadid10k"
    return load_config(spec, [*SMALL, f"--config.data.root={kadid}", *overrides])


def stopped_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, config: ConfigDict, workdir: Path
) -> None:
    """Begin a run, or go on with it, and stop it where the next step would be."""

    def stop(*_: object) -> None:
        raise GlpiError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "compile_train_step", lambda *_, **__: stop)
        with pytest.raises(GlpiError, match="stopped"):
            train_run(config, workdir)
