import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed import mesh as sharding
from glpi_jax.distributed.mesh import (
    check_batch_size,
    make_mesh,
    parameter_shardings,
    place_in_round,
    rounds_to_devices,
)

SHAPES = {"a/kernel": (3, 3, 8, 6), "a/bias": (6,), "b/kernel": (5, 7)}
LARGEST = ((".*/bias", None), (".*", "largest"))


def test_minus_one_takes_all_devices():
    assert make_mesh(-1).size == len(jax.devices()) == 2
    assert make_mesh(1).size == 1
    assert dict(make_mesh(-1, fsdp=2).shape) == {"round": 1, "data": 1, "fsdp": 2}
    assert dict(make_mesh(1, fsdp=-1).shape) == {"round": 1, "data": 1, "fsdp": 2}
    assert dict(make_mesh(-1, rounds=2).shape) == {"round": 2, "data": 1, "fsdp": 1}


@pytest.mark.parametrize("count", [0, 3, -2])
def test_impossible_counts_are_named(count):
    with pytest.raises(GlpiError, match=rf"config\.mesh\.data = {count}, but there are 2 devices"):
        make_mesh(count)


@pytest.mark.parametrize(
    ("data", "fsdp", "message"),
    [
        (-1, -1, "one of them may be -1"),
        (2, 2, "config.mesh.data = 2, config.mesh.fsdp = 2, but there are 2 devices"),
        (-1, 3, "config.mesh.data = -1, config.mesh.fsdp = 3, but there are 2 devices"),
    ],
)
def test_counts_that_do_not_fit_together(data, fsdp, message):
    with pytest.raises(GlpiError, match=message):
        make_mesh(data, fsdp=fsdp)


@pytest.mark.parametrize(
    "groups",
    [
        [[0, 0]],  # none of process 1
        [[0, 0, 1]],
        [[0, 0, 1], [1, 2, 2]],  # two rounds, process 1 in both
    ],
)
def test_every_process_needs_as_many_devices(monkeypatch, groups):
    monkeypatch.setattr(sharding.jax, "process_count", lambda: 1 + max(1, *groups[-1]))
    with pytest.raises(GlpiError, match=r"config\.mesh takes from . processes unequal numbers"):
        sharding._check_processes(groups)
    sharding._check_processes([[process] for process in range(1 + max(1, *groups[-1]))])


def test_batch_must_split_evenly():
    check_batch_size(4, make_mesh(2), "config.train.batch_size")
    with pytest.raises(
        GlpiError, match=r"config\.train\.batch_size = 5 does not split evenly over 2"
    ):
        check_batch_size(5, make_mesh(2), "config.train.batch_size")
    with pytest.raises(GlpiError, match=r"= 6, in 2 parts, does not split evenly over 2 devices"):
        check_batch_size(6, make_mesh(2), "config.train.batch_size", parts=2)
    check_batch_size(3, make_mesh(1, rounds=2), "config.train.batch_size", of_round=True)


def test_rules_split_parameters():
    mesh = make_mesh(1, fsdp=2)
    specs = {k: s.spec for k, s in parameter_shardings(SHAPES, LARGEST, mesh).items()}
    assert specs == {
        "a/kernel": PartitionSpec(None, None, "fsdp", None),
        "a/bias": PartitionSpec(),
        "b/kernel": PartitionSpec(None, None),  # neither 5 nor 7 splits over two
    }
    last = parameter_shardings({"a/kernel": (4, 6)}, ((".*", -1),), mesh)["a/kernel"]
    assert last.spec == PartitionSpec(None, "fsdp")
    whole = parameter_shardings(SHAPES, LARGEST, make_mesh(2))
    assert {s.spec for s in whole.values()} == {PartitionSpec()}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (((".*/kernel", "largest"),), r"fsdp_rules cover no parameter named a/bias"),
        (((".*", "largest"), ("c/.*", None)), r"fsdp_rules: no parameter matches 'c/\.\*'"),
        (((".*", 0),), r"dimension 0 of a/kernel \(3, 3, 8, 6\) does not split evenly"),
        (((".*", 2),), r"a/bias \(6,\) has no dimension 2"),
        (((".*", "smallest"),), r"has no dimension 'smallest'"),
    ],
)
def test_rules_that_do_not_fit(rules, message):
    with pytest.raises(GlpiError, match=rf"config\.mesh\.{message}|{message}"):
        parameter_shardings(SHAPES, rules, make_mesh(1, fsdp=2))


def test_rounds_reach_their_groups():
    """Four rounds on two groups: the first has rounds 0 and 1, the second 2 and 3."""
    mesh = make_mesh(1, rounds=2)
    rounds = [{"image": np.full((2, 3), number), "score": np.arange(2.0)} for number in range(4)]
    batches, active = rounds_to_devices(rounds, [True, False, True, True], mesh)
    assert batches["image"].shape == (4, 2, 3)
    for shard in batches["image"].addressable_shards:
        group = int(np.argwhere(mesh.devices == shard.device)[0, 0])
        np.testing.assert_array_equal(np.unique(shard.data), [2 * group, 2 * group + 1])
    np.testing.assert_array_equal(active, [True, False, True, True])
    assert [place_in_round(number, 4, mesh) for number in range(4)] == [(0, 1)] * 4
    np.testing.assert_array_equal(batches["score"], np.tile([0.0, 1.0], (4, 1)))
    assert math.prod(batches["score"].sharding.mesh.shape.values()) == 2
    assert jnp.sum(batches["image"]) == 6 * (0 + 1 + 2 + 3)
