"""CLIVE at the official size on two CPU cores, from a DINOv2 ViT and a random ResNet.

    python benchmarks/dinov2_from_onnx.py vit_s_focus.onnx vit_s.safetensors
    glpi train --config configs/clive_cpu.py --workdir runs/clive \\
        --config.data.root=ChallengeDB_release --config.model.pretrained.vit=vit_s.safetensors

Ten epochs instead of the paper's 300. What else differs from `configs/authentic.py:clive`: the
backbones; the batch size; a learning rate that falls once over the whole run, and lower in the ViT
than in the layers that begin at random; the stem and the first two stages of the random ResNet stay
random, as filters that nobody trained (a run warns of it); tokens of the ViT times 8; labels times
0.05; no vertical flips; five crops on a grid.
"""

from ml_collections import ConfigDict

from configs import authentic

EPOCHS = 10
STEPS = EPOCHS * 93  # 744 photographs in batches of 8


def get_config() -> ConfigDict:
    """Build the tree."""
    config = authentic.get_config("clive")
    config.model.pretrained.vit = ""  # a file: see above
    config.model.pretrained.resnet = ""
    config.model.pretrained.vit_gain = 8.0
    config.model.dropout = 0.2

    config.data.label_scale, config.data.label_shift = 0.05, 0.0  # MOS 0 … 100 as 0 … 5
    config.data.cache_bytes = 2 * 1024**3
    config.data.threads = 2
    config.data.vertical_flip = 0.0

    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 60
    config.optimizer.cosine_half_period = STEPS
    config.optimizer.rules = (
        (r"vgfe/patch_embed/.*", None),
        (r"vgfe/blocks_[0-4]/.*", None),
        (r"vgfe/.*", 0.15),
        (r"clfe/backbone/(conv1|bn1|layer[12]_\d+)/.*", None),
        (r".*", 1.0),
    )

    config.train.batch_size = 8
    config.train.epochs = EPOCHS
    config.train.log_every_steps = 20
    config.train.checkpoint_every_steps = 93

    config.evaluation.every_epochs = 5
    config.evaluation.crops = 5
    config.evaluation.placement = "grid"
    config.evaluation.batch_size = 20
    return config
