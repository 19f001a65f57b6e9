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
        ("data.root=", "config.data.root is empty"),
        ("data.root=/no/such/database", "/no/such/database: no such folder"),
        ("data.database=tid", "unknown database kind 'tid'"),
        ("protocol=loose", "config.protocol = 'loose'"),
        ("model.name=glpi_xl", "unknown model size 'glpi_xl'"),
        ("model.dtype=float16", "unknown compute dtype 'float16'"),
        ("mesh.data=3", "config.mesh.data = 3"),
        ("train.batch_size=3", "config.train.batch_size = 3 does not split evenly"),
        ("train.accumulation=3", "config.train.batch_size = 4, in 3 parts, does not split evenly"),
        ("train.accumulation=0", "config.train.accumulation = 0"),
        ("train.remat.clfe=some", "unknown rematerialization 'some' of clfe"),
        ("model.attention=flash", "unknown attention 'flash'"),
        ("mesh.fsdp=3", "config.mesh.fsdp = 3"),
        ("mesh.round=2", "that is for `glpi benchmark`"),
        ("evaluation.batch_size=5", "config.evaluation.batch_size = 5 does not split evenly"),
        ("evaluation.placement=middle", "config.evaluation.placement = 'middle': must be"),
        ("data.resize=0", "config.data.resize = (0,)"),
        ("data.resize=(1,2,3)", "config.data.resize = (1, 2, 3)"),
        ("data.resize=('a','b')", "config.data.resize = ('a', 'b')"),
        ("split.train_fraction=0.99", "too few to split"),
        ("train.epochs=0", "config.train.epochs = 0"),
        ("train.batch_size=0", "config.train.batch_size = 0"),
        ("train.log_every_steps=0", "config.train.log_every_steps = 0"),
        ("train.checkpoint_every_steps=-1", "config.train.checkpoint_every_steps = -1"),
        ("evaluation.every_epochs=0", "config.evaluation.every_epochs = 0"),
        ("evaluation.crops=0", "config.evaluation.crops = 0: must be 1 to 1024"),
        ("optimizer.cosine_half_period=0", "config.optimizer.cosine_half_period = 0"),
    ],
)
def test_what_cannot_be_is_told_before_there_is_a_workdir(
    plan_run, tmp_path, override, message, capsys
):
    overrides = [f"--config.{each}" for each in override.split()]
    assert main(["train", "--workdir", str(tmp_path / "run"), *plan_run.config, *overrides]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
