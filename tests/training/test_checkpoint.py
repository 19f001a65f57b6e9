"""Checkpoints come back as they were saved, or not at all."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from glpi_jax.errors import GlpiError
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.sharding import make_mesh
from glpi_jax.training.state import TrainState, on_mesh

DATA = {"next_index": 12, "more": {"a": [1, None]}}
SELECTION = {"step": 4, "epoch": 2, "criterion": "SROCC on the validation part", "value": 0.75}


def state_at(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    return TrainState(
        step=jnp.int32(step),
        params={"dense": {"kernel": jnp.asarray(rng.normal(size=(90, 70)), jnp.float32)}},
        batch_stats={"norm": {"mean": jnp.asarray(rng.normal(size=7), jnp.float32)}},
        opt_state={"dense/kernel": jnp.asarray(rng.normal(size=(90, 70)), jnp.float32)},
        dropout_key=jnp.asarray([step, 7], jnp.uint32),
    )


@pytest.fixture
def target():
    return on_mesh(state_at(0), make_mesh(-1))


def save(workdir, *steps):
    checkpoints = ResumeCheckpoints(workdir)
    for step in steps:
        checkpoints.save(state_at(step), DATA | {"next_index": step})
    checkpoints.close()


def restore(workdir, target):
    checkpoints = ResumeCheckpoints(workdir)
    try:
        return checkpoints.restore(target)
    finally:
        checkpoints.close()


def save_best(workdir, selection=SELECTION):
    best = BestCheckpoint(workdir, read_only=False)
    best.save(state_at(selection["step"]).variables, selection)
    best.close()


def restore_best(workdir, target):
    best = BestCheckpoint(workdir, read_only=True)
    try:
        return best.restore(target)
    finally:
        best.close()


def assert_state(state, step):
    expected = state_at(step)
    assert int(state.step) == step
    for part in ("params", "batch_stats"):
        assert_variables(getattr(state, part), getattr(expected, part))
    np.testing.assert_array_equal(
        state.opt_state["dense/kernel"], expected.opt_state["dense/kernel"]
    )
    np.testing.assert_array_equal(state.dropout_key, expected.dropout_key)


def assert_variables(tree, expected):
    for module, entries in expected.items():
        for name, value in entries.items():
            np.testing.assert_array_equal(tree[module][name], value)


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_newest_state_comes_back_on_the_mesh(tmp_path, target):
    save(tmp_path, 2, 5, 9)
    state, data = restore(tmp_path, target)
    assert_state(state, 9)
    assert data == DATA | {"next_index": 9}
    assert state.params["dense"]["kernel"].sharding == target.step.sharding
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {"5", "9"}  # the two newest


def test_nothing_saved_yet(tmp_path):
    checkpoints = ResumeCheckpoints(tmp_path)
    assert checkpoints.latest_step is None
    checkpoints.close()


def test_a_step_that_exists_stays_as_it_is(tmp_path, target):
    save(tmp_path, 3)
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(state_at(1).replace(step=jnp.int32(3)), DATA)
    checkpoints.save(state_at(2), DATA)  # older than the newest
    checkpoints.close()
    state, data = restore(tmp_path, target)
    assert_state(state, 3)
    assert data["next_index"] == 3


def test_without_its_newest_checkpoint_a_run_resumes_from_the_older(tmp_path, target):
    """What the message about a damaged one advises."""
    save(tmp_path, 2, 5)
    for path in (tmp_path / "checkpoints/5").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    with pytest.raises(GlpiError, match=r"checkpoints/5: .*remove that folder") as caught:
        restore(tmp_path, target)
    assert "\n" not in str(caught.value)
    (tmp_path / "checkpoints/5").rename(tmp_path / "elsewhere")
    assert_state(restore(tmp_path, target)[0], 2)


def damages(path):
    """What a file could become: empty, cut, gone, or with one bit flipped."""
    whole = path.read_bytes()
    yield from (b"", whole[: len(whole) // 2])
    if path.name != "files.json":  # without it a checkpoint is unfinished, not damaged
        yield None
    for place in (0, len(whole) // 2, len(whole) - 1):
        yield whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]


@pytest.mark.parametrize("kind", ["checkpoints/5", "best/4"])
def test_damage_to_any_file_is_found(tmp_path, target, kind, capfd):
    save(tmp_path, 5)
    save_best(tmp_path)
    folder = tmp_path / kind

    def use():
        if kind == "best/4":
            return restore_best(tmp_path, target.variables)
        return restore(tmp_path, target)

    files = files_below(folder)
    assert len(files) > 10
    for path in files:
        whole = path.read_bytes()
        for damage in damages(path):
            path.unlink() if damage is None else path.write_bytes(damage)
            with pytest.raises(GlpiError, match=f"{kind}: the checkpoint cannot be read") as caught:
                use()
            assert str(folder) in str(caught.value)
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    use()
    assert capfd.readouterr() == ("", "")


def test_a_damaged_selection_is_named(tmp_path):
    save_best(tmp_path)
    (tmp_path / "best/4/selection/metadata").write_text("{")
    best = BestCheckpoint(tmp_path, read_only=False)
    with pytest.raises(GlpiError, match="best/4: the checkpoint cannot be read"):
        best.selection()
    best.close()


@pytest.mark.parametrize("value", [0.75, None])
def test_the_best_is_one_and_comes_with_its_selection(tmp_path, target, value):
    save_best(tmp_path, SELECTION | {"step": 2})
    save_best(tmp_path, SELECTION | {"value": value})
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["4"]
    variables, selection = restore_best(tmp_path, target.variables)
    assert_variables(variables["params"], state_at(4).params)
    assert selection == SELECTION | {"value": value}


def test_reading_makes_and_removes_nothing(tmp_path, target):
    with pytest.raises(GlpiError, match=r"no trained model here \(no folder best/\)"):
        BestCheckpoint(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []
    save_best(tmp_path)
    unfinished = tmp_path / "best/6.orbax-checkpoint-tmp"  # another process is saving
    unfinished.mkdir()
    before = files_below(tmp_path)
    assert restore_best(tmp_path, target.variables)[1] == SELECTION
    assert unfinished.is_dir()
    assert files_below(tmp_path) == before


def test_an_unfinished_checkpoint_does_not_count(tmp_path, target):
    (tmp_path / "best/6.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(GlpiError, match="best: holds no finished checkpoint"):
        BestCheckpoint(tmp_path, read_only=True)
    (tmp_path / "checkpoints/7.orbax-checkpoint-tmp").mkdir(parents=True)
    save(tmp_path, 5)
    assert_state(restore(tmp_path, target)[0], 5)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


@pytest.mark.parametrize("kind", ["checkpoints", "best"])
def test_killed_before_its_seal_a_checkpoint_is_not_finished(tmp_path, target, kind):
    save(tmp_path, 2, 5)
    save_best(tmp_path)
    if kind == "checkpoints":
        (tmp_path / "checkpoints/5/files.json").unlink()
        assert_state(restore(tmp_path, target)[0], 2)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
        save(tmp_path, 5)
        assert_state(restore(tmp_path, target)[0], 5)
    else:
        (tmp_path / "best/4/files.json").unlink()
        with pytest.raises(GlpiError, match="best: holds no finished checkpoint"):
            restore_best(tmp_path, target.variables)
        assert (tmp_path / "best/4").is_dir()  # reading removes nothing
        save_best(tmp_path, SELECTION | {"step": 3})
        assert restore_best(tmp_path, target.variables)[1] == SELECTION | {"step": 3}


def test_every_difference_to_another_model_is_listed(tmp_path, target):
    save_best(tmp_path)
    other = {
        "params": {
            "dense": {"kernel": target.params["dense"]["kernel"].update(shape=(70, 90))},
            "extra": {f"bias{i}": target.step for i in range(7)},
        },
        "batch_stats": {},
    }
    with pytest.raises(GlpiError, match="of another model") as caught:
        restore_best(tmp_path, other)
    text = str(caught.value)
    assert re.search(r"7 missing: params/extra/bias0, .*bias4, … \(2 more\);", text)
    assert "1 unexpected: batch_stats/norm/mean;" in text
    assert "1 misshapen: params/dense/kernel (90, 70) instead of (70, 90)" in text


def test_a_state_of_another_optimizer_is_refused(tmp_path, target):
    save(tmp_path, 5)
    other = target.replace(opt_state={"another/kernel": target.opt_state["dense/kernel"]})
    with pytest.raises(GlpiError, match="checkpoints/5: the checkpoint cannot be read"):
        restore(tmp_path, other)
