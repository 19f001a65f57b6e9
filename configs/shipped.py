"""The weights that come with the package; benchmarks/shipped_weights.py makes data and run.

    python benchmarks/shipped_weights.py --clive ChallengeDB_release --agiqa3k AGIQA-3K \\
        --photographs kodak lomiri-wallpapers mate-backgrounds --vit vit_s.safetensors \\
        --workdir runs/shipped

`glpi_small` is the first half of a DINOv2 ViT-S, a small CNN and the progressive integration. The
last two of the ViT's six blocks are trained, slowly; what lies before them stays as it was.
Photographs are reduced to 384 pixels on the shorter side, so that one taken with a large sensor is
judged as a whole, as people judge it on a screen.
"""

from ml_collections import ConfigDict

from configs import base

EPOCHS = 4


def get_config() -> ConfigDict:
    """Build the tree."""
    config = base.get_config()
    config.model.name = "glpi_small"
    config.model.pretrained.vit = ""  # a file: see above
    config.model.pretrained.resnet = ""  # nothing is so small
    config.model.pretrained.vit_gain = 20.0
    config.model.dropout = 0.1

    config.data.database = "csv"
    config.data.root = "runs/shipped/data"
    config.data.label_scale = 0.05  # 0 … 100 as 0 … 5
    config.data.resize = (384,)  # the shorter side of larger images
    config.data.resize_method = "bicubic"
    config.data.apply_orientation = True
    config.data.cache_bytes = 4 * 1024**3
    config.data.threads = 2
    config.data.vertical_flip = 0.0

    config.split.kind = "lists"
    config.split.name = "runs/shipped/data/lists"

    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 200
    config.optimizer.cosine_half_period = EPOCHS * 1014  # batches of an epoch: one descent
    config.optimizer.rules = (
        (r"vgfe/(patch_embed/.*|cls_token|pos_embed)", None),
        (r"vgfe/blocks_[0-3]/.*", None),
        (r"vgfe/.*", 0.15),
        (r".*", 1.0),
    )

    config.train.batch_size = 16
    config.train.epochs = EPOCHS
    config.train.log_every_steps = 50
    config.train.checkpoint_every_steps = 200

    config.evaluation.every_epochs = 2
    config.evaluation.select = "last"
    config.evaluation.crops = 4
    config.evaluation.placement = "grid"
    config.evaluation.batch_size = 8  # two photographs: one alone waits for no more
    return config
