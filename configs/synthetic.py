"""Synthetic distortions: train and test on one database, split by reference.

    glpi benchmark --config configs/synthetic.py:kadid10k --rounds 10 --workdir runs/kadid10k \\
        --config.data.root=FOLDER
    glpi train --config configs/synthetic.py:live --workdir runs/live --config.data.root=FOLDER

Forms: live, csiq, tid2013, kadid10k, livemd. The recipe is the official one (configs/base.py): 300
epochs on batches of 32, ten rounds. `--config.protocol=official` reproduces the paper's selection
on the test part; the default is strict.

It starts from the paper's backbones, trained on ImageNet, and freezes their first layers. They are
downloaded once; without a network give files:

    --config.model.pretrained.vit=FILE --config.model.pretrained.resnet=FILE

or a whole model to start from, by `--config.init_from`.
"""

from ml_collections import ConfigDict

from configs import base, databases


def get_config(form: str | None = None) -> ConfigDict:
    """Build the tree for a database.

    Raises:
        ValueError: no synthetic database of that name.
    """
    if form not in databases.SYNTHETIC:
        raise ValueError(f"configs/synthetic.py:{form}: choose {', '.join(databases.SYNTHETIC)}")
    config = base.get_config()
    databases.read(config.data, form)
    return config
