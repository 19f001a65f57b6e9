"""The table of names: every official entry has one rule, and both directions are inverse."""

import random

import pytest

from glpi_jax.models.glpi import GLPI, SIZES
from glpi_jax.weights.convert import carried_names, flax_entries, official_shapes
from glpi_jax.weights.torch_names import (
    CARRIED,
    RULES,
    in_official_order,
    match_template,
    to_flax_name,
    to_torch_name,
)


def test_no_two_rules_share_a_name():
    assert len({rule.torch for rule in RULES}) == len(RULES)
    assert len({(rule.collection, rule.flax) for rule in RULES}) == len(RULES)


def test_golden_each_name_has_one_rule_and_comes_back(golden_shapes):
    assert len(golden_shapes) == 466
    for name in golden_shapes:
        assert sum(match_template(rule.torch, name) is not None for rule in RULES) == 1, name
        collection, path, layout = to_flax_name(name)
        same_side = [rule for rule in RULES if rule.collection == collection]
        assert sum(match_template(rule.flax, path) is not None for rule in same_side) == 1, path
        assert to_torch_name(collection, path) == (name, layout)


def test_golden_every_rule_is_used(golden_shapes):
    for rule in RULES:
        assert any(match_template(rule.torch, name) is not None for name in golden_shapes), rule


def test_golden_names_order_and_shapes_are_the_official_ones(golden_shapes):
    ours = official_shapes(GLPI(SIZES["glpi_s16"], 0.5))
    assert list(ours.items()) == list(golden_shapes.items())
    shuffled = random.Random(0).sample(list(golden_shapes), len(golden_shapes))
    assert in_official_order(shuffled) == list(golden_shapes)


def test_golden_every_name_is_a_variable_or_carried(golden_shapes):
    model = GLPI(SIZES["glpi_s16"], 0.5)
    held = [entry.torch_name for entry in flax_entries(model)]
    assert sorted(held + carried_names(model)) == sorted(golden_shapes)
    for entry in flax_entries(model):
        path = "/".join(entry.path)
        assert to_flax_name(entry.torch_name) == (entry.collection, path, entry.layout)
    for name in carried_names(model):
        behind_the_last_tap = name.startswith(
            ("vgfe.backbone.blocks.10.", "vgfe.backbone.blocks.11.")
        )
        assert behind_the_last_tap == (to_flax_name(name)[0] != CARRIED), name


def test_names_without_a_rule():
    with pytest.raises(KeyError, match="vgfe/blocks_0/attn/rope"):
        to_torch_name("params", "vgfe/blocks_0/attn/rope")
    for name in ("vgfe.backbone.rope", "cwsa1.c_q.weight.more", "xcwsa1.c_q.weight"):
        with pytest.raises(KeyError, match="no porting rule covers"):
            to_flax_name(name)
