"""The official `optimizer` entry: whole, or refused with everything that is wrong."""

import copy

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.interop.adam import Adam, from_entry, get_adam, recipe_of, to_entry
from glpi_jax.interop.from_torch import _adam
from glpi_jax.models.glpi import GLPI, SIZES
from glpi_jax.weights.torch_files import CheckpointError, OfficialCheckpoint

PARAMETERS = ("a", "b", "c", "unused", "d")
LISTED = ("b", "c", "unused", "d")  # a is frozen
MOMENTS = {"b": (2, 3), "c": (), "d": (4,)}


@pytest.fixture
def adam():
    rng = np.random.default_rng(0)
    first, second = (
        {name: rng.random(shape).astype(np.float32) for name, shape in MOMENTS.items()}
        for _ in range(2)
    )
    return Adam(17, first, second, 2.5e-6, 1e-5, 0.9, 0.999, 1e-8, 1e-5)


def read(entry):
    return from_entry(
        entry, parameters=PARAMETERS, listed=LISTED, moments=MOMENTS, label="x.pth: optimizer"
    )


def assert_same(got, expected):
    for field in vars(expected):
        if not field.startswith("exp_avg"):
            assert getattr(got, field) == getattr(expected, field)
        else:
            ours, theirs = getattr(got, field), getattr(expected, field)
            assert ours.keys() == theirs.keys()
            for name in theirs:
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_there_and_back(adam):
    entry = to_entry(adam, LISTED)
    assert list(entry["state"]) == [0, 1, 3]  # the unused parameter has a number and no moments
    assert entry["param_groups"][0]["params"] == [0, 1, 2, 3]
    assert_same(read(entry), adam)


def test_before_the_first_step(adam):
    start = Adam(0, {}, {}, 1e-5, None, 0.9, 0.999, 1e-8, 1e-5)
    assert to_entry(start, LISTED)["state"] == {}
    assert_same(read(to_entry(start, LISTED)), start)


def test_optimizer_that_was_given_all_parameters(adam):
    entry = to_entry(adam, PARAMETERS)
    assert list(entry["state"]) == [1, 2, 4]
    assert_same(read(entry), adam)


def test_steps_of_old_torch_are_plain_numbers(adam):
    entry = to_entry(adam, LISTED)
    for state in entry["state"].values():
        state["step"] = 17
    assert_same(read(entry), adam)


def test_everything_wrong_comes_in_one_error(adam):
    entry = copy.deepcopy(to_entry(adam, LISTED))
    del entry["state"][0]
    entry["state"][2] = entry["state"][1]
    entry["state"][3] = {
        "step": np.float32(18),
        "exp_avg": np.zeros(5, np.float32),
        "exp_avg_sq": np.array([1, -1, np.nan, 0], np.float32),
    }
    entry["state"][1]["exp_avg"] = entry["state"][1]["exp_avg"].astype(np.float64)
    entry["param_groups"][0]["amsgrad"] = True
    with pytest.raises(CheckpointError) as caught:
        read(entry)
    message = str(caught.value)
    for part in (
        "x.pth: optimizer: ",
        "amsgrad is set",
        "moments of 1 parameters missing: b",
        "moments of 1 parameters unexpected: unused",
        "exp_avg of d has shape (5,) instead of (4,)",
        "exp_avg_sq of d is not finite",
        "exp_avg_sq of d is negative",
        "exp_avg of c is float64 instead of float32",
        "the steps differ, from 17 to 18",
    ):
        assert part in message


@pytest.mark.parametrize("step", [2.5, -1.0, np.nan, np.inf])
def test_step_that_is_no_count(adam, step):
    entry = to_entry(adam, LISTED)
    for state in entry["state"].values():
        state["step"] = np.float32(step)
    with pytest.raises(CheckpointError, match="step"):
        read(entry)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"state": {}, "param_groups": []},
        {"state": {}, "param_groups": [{"lr": 1.0, "momentum": 0.9, "params": [0]}]},
        [1],
        "text",
    ],
)
def test_other_optimizers(entry):
    with pytest.raises(CheckpointError, match=r"not the state of one torch.optim.Adam"):
        read(entry)


def test_other_freezing(adam):
    entry = to_entry(adam, LISTED)
    entry["param_groups"][0]["params"] = [0, 1, 2]
    with pytest.raises(CheckpointError, match=r"had 3 parameters; config.optimizer.rules train 4"):
        read(entry)


def test_learning_rates_that_differ_cannot_be_written():
    config = ConfigDict(get_config())
    config.optimizer.rules = ((r"vgfe/.*", 0.1), (r".*", 1.0))
    recipe = recipe_of(config, GLPI(SIZES["glpi_demo"], 0.0))
    with pytest.raises(
        GlpiError, match=r"runs/a: config.optimizer.rules .* \[0.1, 1.0\].*--weights"
    ):
        get_adam((), 3, recipe, "runs/a")


def test_adam_of_a_file_needs_the_official_optimizer():
    config = ConfigDict(get_config())
    config.optimizer.name = "adamw"
    recipe = recipe_of(config, GLPI(SIZES["glpi_demo"], 0.0))
    with pytest.raises(GlpiError, match=r"x.pth: holds the state of Adam, but .* = 'adamw'"):
        _adam(OfficialCheckpoint({}, optimizer={}), recipe, "x.pth")


def test_golden_official_parameters(model_golden):
    """What torch's Adam is given, in order: all that the authors' code does not freeze."""
    trains = model_golden("train_vit_tiny").facts["requires_grad"]
    norms = model_golden("train_vit_tiny").facts["grad_norm_step0"]
    config = ConfigDict(get_config())
    recipe = recipe_of(config, GLPI(SIZES["glpi_ti16"], 0.0))
    assert list(recipe.parameters) == list(trains)
    assert list(recipe.listed) == [name for name, train in trains.items() if train]
    assert set(recipe.moments) == {name for name, norm in norms.items() if norm is not None}
