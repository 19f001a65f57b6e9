"""Checkpoints come back as they were saved, or not at all."""

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from own_process import with_devices

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.training import checkpoint_files
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.checkpoint_store import Store
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


def test_a_save_returns_at_once_and_what_it_saves_may_be_donated(tmp_path, target, monkeypatch):
    """The seal waits until the state is gone; NumPy would show a CPU's buffer itself."""
    go_on = threading.Event()
    seal = checkpoint_files.seal

    def late(path):
        assert go_on.wait(60)
        seal(path)

    monkeypatch.setattr(checkpoint_files, "seal", late)
    state = jax.device_put(state_at(5), target.step.sharding)
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(state, DATA)
    assert checkpoints.latest_step is None  # not before the seal
    spoil = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    zeros = jax.block_until_ready(spoil(state))
    assert state.params["dense"]["kernel"].is_deleted()
    go_on.set()
    checkpoints.wait()
    assert checkpoints.latest_step == 5
    checkpoints.close()
    assert not zeros.params["dense"]["kernel"].any()
    assert_state(restore(tmp_path, target)[0], 5)


def test_what_is_written_is_a_copy_with_the_same_shardings(tmp_path, target, monkeypatch):
    written = []
    monkeypatch.setattr(Store, "write", lambda self, step, arrays, facts: written.append(arrays))
    split = NamedSharding(target.step.sharding.mesh, PartitionSpec("data"))
    state = jax.device_put(state_at(5), target.step.sharding)
    state = state.replace(opt_state=jax.device_put(state.opt_state, split))
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(state, DATA)
    checkpoints.close()
    jax.tree.map(lambda x: x.delete(), state)  # as donation does
    (copied,) = written
    assert_state(copied, 5)
    assert copied.opt_state["dense/kernel"].sharding == split
    assert copied.params["dense"]["kernel"].sharding == target.step.sharding


def test_the_next_save_waits_for_the_one_before(tmp_path, target, monkeypatch):
    seal = checkpoint_files.seal
    sealed = []

    def slow(path):
        time.sleep(0.1)
        seal(path)
        sealed.append(path.name)

    monkeypatch.setattr(checkpoint_files, "seal", slow)
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(state_at(2), DATA)
    checkpoints.save(state_at(3), DATA)
    assert sealed == ["2"]
    checkpoints.close()
    assert sealed == ["2", "3"]
    assert_state(restore(tmp_path, target)[0], 3)


def test_a_step_that_exists_and_later_ones_are_replaced(tmp_path, target, monkeypatch):
    """Those that were there stand in until the new one is sealed."""
    save(tmp_path, 5, 9)

    def stopped(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "seal", stopped)
        checkpoints = ResumeCheckpoints(tmp_path)
        checkpoints.save(state_at(4).replace(step=jnp.int32(5)), DATA)
        with pytest.raises(GlpiError, match=r"checkpoints/5: the checkpoint cannot be saved"):
            checkpoints.close()
    assert_state(restore(tmp_path, target)[0], 9)
    checkpoints = ResumeCheckpoints(tmp_path)
    checkpoints.save(state_at(4).replace(step=jnp.int32(5)), DATA)
    checkpoints.close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    state, data = restore(tmp_path, target)
    assert_variables(state.params, state_at(4).params)
    assert data == DATA


@pytest.mark.parametrize("step", [3, 4])
def test_killed_while_it_replaces_the_best_a_run_still_has_one(tmp_path, target, monkeypatch, step):
    save_best(tmp_path)
    state = state_at(9)

    def killed(path):
        raise SystemExit  # nothing comes after it, as after SIGKILL

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "seal", killed)
        patch.setattr(checkpoint_files, "clean", lambda folder: None)
        best = BestCheckpoint(tmp_path, read_only=False)
        with pytest.raises(GlpiError, match=f"best/{step}: the checkpoint cannot be saved"):
            best.save(state.variables, SELECTION | {"step": step})
    assert restore_best(tmp_path, target.variables)[1] == SELECTION  # while none is written
    best = BestCheckpoint(tmp_path, read_only=False)
    assert best.selection() == SELECTION
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["4"]
    best.save(state.variables, SELECTION | {"step": step, "value": 0.8})
    best.close()
    assert [path.name for path in (tmp_path / "best").iterdir()] == [str(step)]
    variables, selection = restore_best(tmp_path, target.variables)
    assert_variables(variables["params"], state.params)
    assert selection == SELECTION | {"step": step, "value": 0.8}


def test_the_best_so_far_stays_until_the_next_is_sealed(tmp_path, monkeypatch):
    save_best(tmp_path, SELECTION | {"step": 2})
    seen = []
    seal = checkpoint_files.seal

    def looking(path):
        seen.extend(sorted(path.parent.glob("*/files.json")))
        seal(path)

    monkeypatch.setattr(checkpoint_files, "seal", looking)
    save_best(tmp_path)
    assert seen == [tmp_path / "best/2/files.json"]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["4"]


def test_damaged_checkpoints_are_passed_over_and_named(tmp_path, target, capsys):
    save(tmp_path, 2)
    whole = tmp_path / "whole"
    (tmp_path / "checkpoints/2").rename(whole)
    save(tmp_path, 5, 9)
    whole.rename(tmp_path / "checkpoints/2")
    for path in (tmp_path / "checkpoints/9").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    (tmp_path / "checkpoints/5/data/metadata").unlink()
    checkpoints = ResumeCheckpoints(tmp_path)
    state, data = checkpoints.restore(target)
    assert_state(state, 2)
    assert data["next_index"] == 2
    first, second = capsys.readouterr().err.splitlines()
    assert re.match(
        r"warning: .*/checkpoints/9: the checkpoint cannot be read \(state/\S* is damaged\);"
        " resuming from step 2, the newest that is whole",
        first,
    )
    assert "/checkpoints/5: the checkpoint cannot be read (data/metadata is missing)" in second
    checkpoints.remove_after(2)
    checkpoints.save(state_at(5), DATA)
    checkpoints.close()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "5"}
    assert_state(restore(tmp_path, target)[0], 5)
    assert capsys.readouterr().err == ""


def test_if_none_is_whole_all_are_named_and_kept(tmp_path, target):
    save(tmp_path, 2, 5)
    for step in (2, 5):
        (tmp_path / f"checkpoints/{step}/data/metadata").write_text("{}")
    with pytest.raises(GlpiError, match=r"no whole checkpoint is left; put a copy") as caught:
        restore(tmp_path, target)
    text = str(caught.value)
    for step in (2, 5):
        assert f"checkpoints/{step}: the checkpoint cannot be read (data/metadata is dama" in text
    assert f"or remove {tmp_path / 'checkpoints'} to train from the start" in text
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "5"}


def test_a_damaged_best_takes_the_run_back_to_its_step_or_before(tmp_path, target, capsys):
    save_best(tmp_path)
    (tmp_path / "best/4/variables/_METADATA").write_text("{}")
    save(tmp_path, 3, 6)
    best, checkpoints = BestCheckpoint(tmp_path, read_only=False), ResumeCheckpoints(tmp_path)
    assert best.damaged_step() == 4
    assert (
        "best/4: the checkpoint cannot be read (variables/_METADATA is damaged); going back t"
        in (capsys.readouterr().err)
    )
    assert_state(checkpoints.restore(target, not_after=4)[0], 3)
    with pytest.raises(GlpiError, match=r"best/2 is damaged, and no whole checkpoint is left"):
        checkpoints.restore(target, not_after=2)
    best.remove_after(3)
    assert best.damaged_step() is best.selection() is None
    best.close()
    checkpoints.close()


def test_a_lost_partner_is_no_full_disk(tmp_path, target, monkeypatch):
    """What JAX says then is for the command, which ends with another code than for bad input."""
    save(tmp_path, 3)
    lost = RuntimeError("Gloo AllGather failed: Connection closed by peer")

    def fails(*_, **__):
        raise lost

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "seal", fails)
        checkpoints = ResumeCheckpoints(tmp_path)
        checkpoints.save(state_at(5), DATA)
        with pytest.raises(RuntimeError) as caught:
            checkpoints.close()
        assert caught.value is lost
    monkeypatch.setattr(Store, "read", fails)
    with pytest.raises(RuntimeError) as caught:
        restore(tmp_path, target)
    assert caught.value is lost


@pytest.mark.parametrize("where", ["save", "seal", "clean up"])
def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path, target, monkeypatch, where):
    save(tmp_path, 3)
    checkpoints = ResumeCheckpoints(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_, **__):
        (tmp_path / "checkpoints/5.orbax-checkpoint-tmp").mkdir(exist_ok=True)
        raise full

    name = {"save": "make_room", "seal": "seal", "clean up": "seal"}[where]
    monkeypatch.setattr(checkpoint_files, name, fails)
    if where == "clean up":  # which may fail too
        monkeypatch.setattr(checkpoint_files, "clean", fails)

    def save_two():
        checkpoints.save(state_at(5), DATA)
        checkpoints.save(state_at(6), DATA)

    with pytest.raises(GlpiError) as caught:
        save_two()
    assert re.fullmatch(
        r".*/checkpoints/5: the checkpoint cannot be saved \(No space left on device\);"
        r" free space on that disk, .*give the same command again: it resumes from step 3",
        str(caught.value),
    )
    checkpoints.close()  # told once
    monkeypatch.undo()
    assert (tmp_path / "checkpoints/5").exists() == (where == "clean up")
    assert_state(restore(tmp_path, target)[0], 3)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_files_that_may_not_grow_fail_in_orbax_itself(tmp_path):
    """A disk that is full for real, on any machine: no file may have more than 20,000 bytes."""
    script = Path(__file__).with_name("save_with_small_files.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"checkpoints/5: the checkpoint cannot be saved \(File too large\);", done.stdout
    )
    assert "it resumes from step 2" in done.stdout
    # Now and then Python reports the same failure once more: of a write that is still on its way
    # when another has failed, after the event loop has ended or as a result that nobody asked for.
    trace = r"Traceback \(most recent call last\):\n(  .*\n)+"
    closed = rf"{trace}RuntimeError: Event loop is closed\n"
    unasked = (
        r"ERROR:asyncio:(Task|Future) exception was never retrieved\n(future|task): .*\n"
        rf"({trace})?ValueError: OUT_OF_RANGE: .*File too large \[os_error_code='27'\]\n"
    )
    assert re.sub(f"{closed}|{unasked}", "", done.stderr) == ""


def test_any_number_of_devices_reads_what_another_has_saved(tmp_path):
    script = Path(__file__).with_name("restore_on_devices.py")
    for mode, devices in (("save", 8), ("check", 1), ("check", 2), ("check", 8)):
        done = subprocess.run(
            [sys.executable, script, mode, tmp_path],
            env=with_devices(os.environ, devices),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


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
