import jax
import pytest

from glpi_jax.errors import GlpiError
from glpi_jax.training.sharding import check_batch_size, make_mesh


def test_minus_one_takes_all_devices():
    assert make_mesh(-1).size == len(jax.devices()) == 2
    assert make_mesh(1).size == 1


@pytest.mark.parametrize("count", [0, 3, -2])
def test_impossible_counts_are_named(count):
    with pytest.raises(GlpiError, match=rf"config\.mesh\.data = {count}, but there are 2 devices"):
        make_mesh(count)


def test_batch_must_split_evenly():
    check_batch_size(4, make_mesh(2), "config.train.batch_size")
    with pytest.raises(
        GlpiError, match=r"config\.train\.batch_size = 5 does not split evenly over 2"
    ):
        check_batch_size(5, make_mesh(2), "config.train.batch_size")
