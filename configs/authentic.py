"""Authentic distortions: train and test on one database, split by image.

    glpi benchmark --config configs/authentic.py:koniq10k --rounds 10 --workdir runs/koniq10k \\
        --config.data.root=FOLDER
    glpi train --config configs/authentic.py:koniq10k --workdir runs/koniq10k-published \\
        --config.data.root=FOLDER --config.split.kind=published --config.split.name=official

Forms: clive, koniq10k, bid, spaq, flive, agiqa3k (generated images) and agiqa3k_alignment (the same
images, scored by how they fit their prompts). The recipe is the official one (configs/base.py): 300
epochs on batches of 32, ten rounds. `--config.protocol=official` reproduces the paper's selection
on the test part; the default is strict. The official code stretches CLIVE's training labels from
[0, 100] to [−50, 150] and tests on raw ones; so does this config, under both protocols.

Two starting points. The paper's ImageNet backbones, a ViT-S/16 and a ResNet-50, are the default and
are downloaded once (configs/synthetic.py says how to do without a network). Or a DINOv2 ViT-S/14,
folded into the plain ViT as it is read; a ResNet that no file is given for begins at random, so its
layers must be trained, which the rules say:

    --config.model.pretrained.vit=vit_s.safetensors --config.model.pretrained.resnet= \\
    "--config.optimizer.rules=((r'vgfe/patch_embed/.*', None), (r'vgfe/blocks_[0-4]/.*', None), \\
        (r'.*', 1.0))"

configs/clive_cpu.py is such a run on CLIVE, short enough for a CPU.
"""

from ml_collections import ConfigDict

from configs import base, databases


def get_config(form: str | None = None) -> ConfigDict:
    """Build the tree for a database.

    Raises:
        ValueError: no authentic database of that name.
    """
    if form not in databases.AUTHENTIC:
        raise ValueError(f"configs/authentic.py:{form}: choose {', '.join(databases.AUTHENTIC)}")
    config = base.get_config()
    databases.read(config.data, form)
    if form == "clive":
        config.data.label_scale, config.data.label_shift = 2.0, -50.0
    return config
