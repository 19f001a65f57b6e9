"""Numbers and rules of a config that cannot be: told before there is a workdir."""

import pytest

from glpi_jax.cli.main import main


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "config.seed = -1: must be at least 0 and below 4294967296"),
        ("seed=4294967296", "config.seed = 4294967296: must be at least 0 and below 4294967296"),
        ("split.round=0", "config.split.round = 0: must be at least 1"),
        ("data.threads=0", "config.data.threads = 0: must be at least 1"),
        ("data.label_scale=-1", "config.data.label_scale = -1.0: must be above 0 and finite"),
        ("data.label_scale=inf", "config.data.label_scale = inf: must be above 0 and finite"),
        ("data.label_shift=nan", "config.data.label_shift = nan: must be finite"),
        ("data.resize_method=area", "config.data.resize_method = 'area': choose one of bilinear"),
        ("data.horizontal_flip=2", "horizontal flip probability 2.0: must lie in [0, 1]"),
        ("data.prefetch=0", "prefetch 0: threads and workers need a prefetch"),
        ("data.cache_bytes=-1", "cache_bytes -1: must be 0"),
        ("model.dropout=1.0", "config.model.dropout = 1.0: must be at least 0 and below 1"),
        ("model.batch_norm_inference_stages=('layer4',)", "unknown part of the ResNet 'layer4'"),
        ("optimizer.warmup_steps=-5", "config.optimizer.warmup_steps = -5: must be at least 0"),
        ("optimizer.learning_rate=-1", "learning_rate = -1.0: must be at least 0 and finite"),
        ("optimizer.learning_rate=nan", "learning_rate = nan: must be at least 0 and finite"),
        ("optimizer.beta2=1.0", "config.optimizer.beta2 = 1.0: must be at least 0 and below 1"),
        ("optimizer.weight_decay=inf", "weight_decay = inf: must be at least 0 and finite"),
        ("train.loss=l3", "config.train.loss = 'l3': choose one of l1, mse, huber, plcc"),
        (
            "train.loss=plcc train.accumulation=2",
            "config.train.loss = 'plcc' with config.train.accumulation = 2: it is no mean",
        ),
        ("train.huber_delta=0.0", "config.train.huber_delta = 0.0: must be above 0 and finite"),
        (
            "model.plain_operators=('cuda',)",
            "unknown platform 'cuda' in plain_operators: choose of",
        ),
        ("model.param_dtype=float16", "unknown parameter dtype 'float16'"),
        ("optimizer.name=scale", "config.optimizer.name = 'scale': neither adam_l2 nor"),
        ("optimizer.name=lbfgs", "config.optimizer.name = 'lbfgs' with config.optimizer.arg"),
        ("optimizer.arguments.b1=0.9", "config.optimizer.arguments: adam_l2 takes config.opt"),
        (
            "optimizer.name=adamw optimizer.arguments.decay=1",
            "config.optimizer.arguments: optax.adamw has no decay to set; it takes b1, b2, eps",
        ),
        (
            "optimizer.name=adamw optimizer.arguments.b1=x",
            "config.optimizer.arguments = {'b1': 'x'}: optax cannot take a step",
        ),
        ("optimizer.rules=(1,2)", "config.optimizer.rules: 1 is not (regular expression, value)"),
        ("optimizer.rules=(('(',1.0),)", "config.optimizer.rules: '(' is no regular expression"),
        ("optimizer.rules=(('.*','x'),)", "config.optimizer.rules: 'x' of '.*' is no multiplier"),
        ("optimizer.rules=(('.*',-1.0),)", "config.optimizer.rules: -1.0 of '.*' is no multipl"),
        ("mesh.fsdp=2 mesh.fsdp_rules=(('(',0),)", "config.mesh.fsdp_rules: '(' is no regular"),
        ("evaluation.bootstrap_resamples=-1", "bootstrap_resamples = -1: must be at least 0"),
        ("evaluation.confidence=1.0", "confidence = 1.0: must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_is_told_before_there_is_a_workdir(
    plan_run, tmp_path, override, message, capsys
):
    overrides = [f"--config.{each}" for each in override.split()]
    assert main(["train", "--workdir", str(tmp_path / "run"), *plan_run.config, *overrides]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
