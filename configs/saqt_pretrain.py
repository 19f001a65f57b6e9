"""SAQT pretraining: photographs distorted as they are read, labels transferred from KADID-10k.

    glpi saqt labels similarity.csv dmos.csv runs/labels
    glpi train --config configs/saqt_pretrain.py --workdir runs/pretrained \\
        --config.data.root=PHOTOGRAPHS --config.data.labels=runs/labels
    glpi train --config configs/synthetic.py:kadid10k --workdir runs/finetuned \\
        --config.data.root=KADID --config.init_from=runs/pretrained

The official recipe (arXiv 2408.03885 and its code): 50 epochs, a global batch of 128, mixed
precision, loss and optimizer as in configs/base.py; `--config.init_from` starts it from weights of
one's own. 50,000 photographs are 6.25 million images an epoch and 2.44 million steps, for a
TPU slice or several GPUs with many CPU cores beside them. Neither the time nor the SROCC of a whole
run was measured here; the log tells images/s.

Photographs are split, not images: 100 are tested on and as many select the epoch, 12,500 images
each. The official loader reads image numbers as numbers of KADID-10k references instead, so that
its 1,000 validation images show one or two contents; that slip is not reproduced. A set of a few
photographs needs `--config.split.train_fraction=0.8 --config.split.validation_fraction=0.2`.

The random distortions are drawn anew in every epoch; `--config.data.redraw_distortions=False` keeps
those of the first one, which are what `glpi saqt render` writes and the official set has.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Build the tree."""
    config = base.get_config()
    config.model.dtype = "bfloat16"

    config.data.database = "saqt"
    config.data.redraw_distortions = True
    config.data.threads = 16
    config.data.prefetch = 32

    config.split.train_fraction = 0.998
    config.split.validation_fraction = 0.002

    config.train.batch_size = 128
    config.train.epochs = 50
    config.train.checkpoint_every_steps = 2000

    config.evaluation.crops = 5
    return config
