"""Warnings printed when a run starts."""

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.distributed.mesh import make_mesh, parameter_shardings
from glpi_jax.workflow.notices import tell_frozen, tell_parameters

PATHS = {
    "vgfe/blocks_0/attn/qkv/kernel": None,
    "vgfe/blocks_9/attn/qkv/kernel": 1.0,
    "clfe/backbone/conv1/kernel": None,
    "clfe/backbone/layer1_0/conv1/kernel": None,
    "siem1/conv/kernel": 1.0,
}
RESNET_RULE = r"clfe/backbone/(conv1|bn1|layer[12]_\d+)/.*"


@pytest.fixture
def warnings_of(capsys):
    """`warnings_of(vit, resnet)`: the lines that a start with these backbones prints."""

    def run(vit, resnet, init_from=""):
        config = load_config(f"{shipped_config('authentic')}:clive")
        config.model.pretrained.vit, config.model.pretrained.resnet = vit, resnet
        config.init_from = init_from
        tell_frozen(config, PATHS)
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


def test_parameters_are_reported_by_module(capsys):
    shapes = {
        "vgfe/norm/scale": (3,),
        "vgfe/blocks_0/kernel": (4, 512),
        "cwsa1/c_q/kernel": (8, 128),
        "cwsa2/c_q/kernel": (8, 128),
        "head/bias": (1,),
    }
    mesh = make_mesh(1, fsdp=2)
    rules = ((".*/(bias|scale)", None), (".*", "largest"))
    shardings = parameter_shardings(shapes, rules, mesh)
    flat = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=shardings[path])
        for path, shape in shapes.items()
    }
    frozen = {"vgfe/norm/scale", "head/bias"}
    multipliers = {path: None if path in frozen else 0.5 for path in shapes}
    tell_parameters(traverse_util.unflatten_dict(flat, sep="/"), multipliers)
    assert capsys.readouterr().err.splitlines() == [
        "parameters: vgfe 2,051 (0.01 MiB), 3 of them frozen, 2,048 of them split by 2",
        "parameters: cwsa1–cwsa2 2,048 (0.01 MiB), trained, split by 2",
        "parameters: head 1 (0.00 MiB), frozen, whole on each device",
        "parameters: all 4,100 (0.02 MiB), 4 of them frozen, 4,096 of them split by 2",
    ]
