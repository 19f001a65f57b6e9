"""Test crops of a config: checked in one place, errors name the key."""

import argparse
from typing import Any, cast

import pytest

from glpi_jax.cli.scoring_options import add_crop_options
from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.crops import PAPER_CROPS, PLACEMENTS, Crops


def of(**values):
    config = load_config(shipped_config("base"))
    config.seed = values.pop("seed", 3)
    with config.ignore_type():
        config.evaluation.update(values)
    return Crops.of_config(config)


def test_crops_of_config_take_its_seed_where_they_are_random():
    assert of(crops=25, placement="random", seed=0) == PAPER_CROPS
    assert of(crops=7, placement="random") == Crops(7, "random", 3)
    assert of(crops=7, placement="grid") == Crops(7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crops": 0}, r"config\.evaluation\.crops = 0: must be 1 to 1024"),
        ({"crops": 1025}, r"config\.evaluation\.crops = 1025: must be 1 to 1024"),
        ({"crops": 2.0}, r"config\.evaluation\.crops = 2\.0: must be a whole number, not float"),
        ({"placement": "mid"}, r"config\.evaluation\.placement = 'mid': must be grid or random"),
        ({"placement": "random", "seed": -1}, r"config\.seed = -1: must not be negative"),
    ],
)
def test_crops_of_config_out_of_range_name_the_key(values, message):
    with pytest.raises(GlpiError, match=message):
        of(**values)


def test_options_offer_every_placement():
    parser = argparse.ArgumentParser()
    add_crop_options(parser)
    options: dict[str, Any] = {action.dest: action for action in cast(Any, parser)._actions}
    assert options["placement"].choices == PLACEMENTS
