"""Warnings printed when a run starts."""

import pytest

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.workflow.notices import tell_frozen

PATHS = {
    "vgfe/blocks_0/attn/qkv/kernel": None,
    "vgfe/blocks_9/attn/qkv/kernel": 1.0,
    "clfe/backbone/conv1/kernel": None,
    "clfe/backbone/layer1_0/conv1/kernel": None,
    "siem1/conv/kernel": 1.0,
}
RESNET_RULE = r"clfe/backbone/(conv1|bn1|layer[12]_\d+)/.*"


@pytest.fixture
def warnings_of(tmp_path, capsys):
    """`warnings_of(vit, resnet)`: the lines that a start with these backbones prints."""

    def run(vit, resnet, init_from=""):
        config = load_config(f"{shipped_config('authentic')}:clive")
        config.model.pretrained.vit, config.model.pretrained.resnet = vit, resnet
        config.init_from = init_from
        tell_frozen(config, PATHS, tmp_path)
        return capsys.readouterr().err.splitlines()

    return run


def test_frozen_layers_of_loaded_backbones_are_silent(warnings_of):
    assert warnings_of("download", "download") == []
    assert warnings_of("", "", init_from="runs/pretrained") == []


def test_frozen_random_resnet_names_its_key_and_its_rule(warnings_of):
    (line,) = warnings_of("vit.safetensors", "")
    assert "2 parameters" in line
    assert "clfe/backbone/conv1/kernel" in line
    assert "config.model.pretrained.resnet" in line
    assert repr(RESNET_RULE) in line


def test_frozen_random_backbones_are_reported_rule_by_rule(warnings_of):
    lines = warnings_of("", "")
    assert len(lines) == 2
    assert "config.model.pretrained.vit" in lines[0]
