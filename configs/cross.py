"""Cross-dataset test: train on all of one database, test on all of others.

    glpi train --config configs/cross.py:kadid10k-live,csiq,tid2013 --workdir runs/kadid10k-cross \\
        --config.data.root=KADID --config.targets.live.root=LIVE \\
        --config.targets.csiq.root=CSIQ --config.targets.tid2013.root=TID

The form is SOURCE-TARGET,TARGET,… The recipe is the official one, with 200 epochs. Under
`--config.protocol=official` the mean SROCC over the targets selects the epoch, signed, so that
DMOS targets count negative against a MOS source; under strict a validation part of the source does.
configs/synthetic.py says what it starts from.
"""

from ml_collections import ConfigDict

from configs import base, databases


def get_config(form: str | None = None) -> ConfigDict:
    """Build the tree for a source and its targets.

    Raises:
        ValueError: the form is not SOURCE-TARGET,TARGET,…
    """
    source, dash, targets = (form or "").partition("-")
    names = targets.split(",")
    if not dash or len(set(names)) != len(names):
        raise ValueError(f"configs/cross.py:{form}: the form is SOURCE-TARGET,TARGET,…")
    config = base.get_config()
    databases.read(config.data, source)
    for name in names:
        config.targets[name] = ConfigDict(
            {
                "root": "",
                "labels": "",
                "skip_bad": False,
                "resize_method": config.data.resize_method,
                "apply_orientation": config.data.apply_orientation,
            }
        )
        databases.read(config.targets[name], name)
    if source == "clive":
        config.data.label_scale, config.data.label_shift = 2.0, -50.0
    config.train.epochs = 200
    return config
