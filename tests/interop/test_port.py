"""`glpi port`: official files become workdirs and workdirs official files, without PyTorch."""

import hashlib
import json
import shutil
import signal

import jax
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.interop import to_torch
from glpi_jax.models.glpi import GLPI, SIZES
from glpi_jax.training.checkpoint import BestCheckpoint
from glpi_jax.weights.carried import CARRIED_FILE, hand_on_carried, read_carried
from glpi_jax.weights.convert import carried_names, is_count, load_torch
from glpi_jax.workflow import runs
from glpi_jax.workflow.workdir import read_run

DEMO = GLPI(SIZES["glpi_demo"], 0.0)


def port(*arguments):
    return main(["port", *map(str, arguments)])


def assert_same_state(file, state):
    """Bit for bit."""
    written = load_file(file)
    assert written.keys() == state.keys()
    for name, array in state.items():
        assert written[name].dtype == array.dtype, name
        assert written[name].shape == array.shape, name
        assert written[name].tobytes() == array.tobytes(), name


def contents_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def official_file(demo_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "glpi.safetensors"
    save_file(demo_state, path)
    return path


@pytest.fixture(scope="module")
def imported(official_file, tmp_path_factory):
    """A workdir of weights alone; not to be changed."""
    workdir = tmp_path_factory.mktemp("imported") / "workdir"
    assert port("from-torch", official_file, workdir) == 0
    return workdir


def test_there_and_back_is_bit_equal(imported, demo_state, tmp_path, capsys):
    before = contents_of(imported)
    assert port("to-torch", imported, tmp_path / "out.safetensors") == 0
    assert_same_state(tmp_path / "out.safetensors", demo_state)
    assert capsys.readouterr().out == f"{tmp_path / 'out.safetensors'}\n"
    assert contents_of(imported) == before


def test_the_workdir_has_the_weights_and_says_what_it_is(imported, official_file, demo_state):
    model, variables, selection = runs.load_best(imported, make_mesh(1))
    assert model.size == SIZES["glpi_demo"]  # from the shapes
    _, expected = load_torch(demo_state)
    for collection in expected:
        jax.tree.map(np.testing.assert_array_equal, variables[collection], expected[collection])
    assert (selection["step"], selection["epoch"], selection["value"]) == (0, 0, None)
    run = read_run(imported)
    digest = hashlib.sha256(official_file.read_bytes()).hexdigest()
    assert run["init_from"] == {"path": str(official_file), "sha256": digest, "selection": None}
    assert run["database"]["higher_is_better"] is True
    assert official_file.name in run["database"]["label_note"]
    assert not (imported / "checkpoints").exists()


def test_labels_of_which_lower_is_better(official_file, tmp_path, capsys):
    workdir = tmp_path / "new folder" / "workdir"
    assert port("from-torch", official_file, workdir, "--lower-is-better") == 0
    database = read_run(workdir)["database"]
    assert (database["score_name"], database["higher_is_better"]) == ("DMOS", False)
    assert "no config.data.root: it scores and exports" in capsys.readouterr().err


def test_nothing_is_overwritten(imported, official_file, tmp_path, capsys):
    before = contents_of(imported)
    assert port("from-torch", official_file, imported) == 2
    assert "exists already; name a new folder" in capsys.readouterr().err
    assert contents_of(imported) == before
    out = tmp_path / "out.safetensors"
    out.write_text("old")
    assert port("to-torch", imported, out) == 2
    assert "exists already; --force replaces it" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert port("to-torch", imported, out, "--force") == 0
    assert len(load_file(out)) > 100


def test_bad_files_leave_no_workdir(official_file, official_state, demo_state, tmp_path, capsys):
    half = tmp_path / "half.safetensors"
    half.write_bytes(official_file.read_bytes()[:-100])
    other = tmp_path / "other.safetensors"
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, other)
    broken = tmp_path / "broken.safetensors"
    state = demo_state | {"cwsa1.norm.bias": np.full(16, np.nan, np.float32)}
    del state["vgfe.backbone.norm.weight"]
    save_file(state, broken)
    for file, reason in (
        (half, "not a readable safetensors file"),
        (other, "not a GLPI checkpoint"),
        (broken, "1 missing: vgfe.backbone.norm.weight; 1 not finite: cwsa1.norm.bias"),
        (tmp_path / "none.safetensors", "no such checkpoint file"),
    ):
        assert port("from-torch", file, tmp_path / "workdir") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(file) in error
        assert reason in error
    config = "--config.model.name=glpi_s16"
    assert port("from-torch", official_file, tmp_path / "workdir", config) == 2
    assert "holds a glpi_demo, but config.model.name = 'glpi_s16'" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "broken.safetensors", "half.safetensors", "other.safetensors",
    ]  # fmt: skip


def test_numbers_out_of_range_leave_no_workdir(official_file, tmp_path, capsys):
    override = "--config.optimizer.cosine_half_period=0"
    assert port("from-torch", official_file, tmp_path / "run", override) == 2
    assert "config.optimizer.cosine_half_period = 0: must be at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_name_of_its_own(official_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert port("from-torch", official_file, ".") == 2
    assert "glpi: error: .: has no name of its own" in capsys.readouterr().err


def test_sigterm_leaves_no_part_of_a_file(imported, tmp_path, monkeypatch):
    def terminate(_, path, **__):
        path.write_bytes(b"half")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(safetensors.numpy, "save_file", terminate)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # or a failure would end the tests
    try:
        assert port("to-torch", imported, tmp_path / "out.safetensors") == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(tmp_path.iterdir())


def test_an_error_half_way_leaves_no_workdir(official_file, tmp_path, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glpi_jax.interop.from_torch.write_json", full_disk)
    assert port("from-torch", official_file, tmp_path / "workdir") == 2
    assert "No space left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_workdir_cannot_be_exported(imported, tmp_path, capsys):
    for source in (tmp_path, tmp_path / "checkpoints", imported / "checkpoints/3", imported / "x"):
        assert port("to-torch", source, tmp_path / "out.safetensors") == 2
        assert str(source) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_damaged_carried_weights_are_told(imported, tmp_path, capsys):
    workdir = tmp_path / "workdir"
    shutil.copytree(imported, workdir)
    file = workdir / CARRIED_FILE
    file.write_bytes(file.read_bytes()[:-10])
    assert port("to-torch", workdir, tmp_path / "out.safetensors") == 2
    assert f"{CARRIED_FILE}: not a readable file" in capsys.readouterr().err
    arrays = dict(read_carried(imported).arrays)
    del arrays["vgfe.backbone.norm.bias"]
    save_file(arrays, file, metadata={"step": "0"})
    assert port("to-torch", workdir, tmp_path / "out.safetensors") == 2
    assert "1 missing: vgfe.backbone.norm.bias" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


# A run of JAX's own


def test_constants_stand_for_what_was_never_loaded(trained, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert port("to-torch", trained.workdir, out) == 0
    assert "they never reach the score" in capsys.readouterr().err
    state = load_file(out)
    load_torch(state)  # whole
    _, _, selection = runs.load_best(trained.workdir, make_mesh(1))
    for name in carried_names(DEMO):
        expected = 1 if name.endswith("norm.weight") else 0
        if is_count(name):
            expected = selection["step"]  # each step, each BatchNorm has seen a batch
        assert np.all(state[name] == expected), name
    assert any(is_count(name) for name in carried_names(DEMO))


def test_state_of_another_optimizer_stays_behind(trained, tmp_path, monkeypatch):
    """Selected weights are written without it; a state to resume from needs --weights-only."""
    workdir = shutil.copytree(trained.workdir, tmp_path / "run")
    run = json.loads((workdir / "run.json").read_text())
    run["config"]["optimizer"]["name"] = "adamw"
    (workdir / "run.json").write_text(json.dumps(run))
    written = []
    monkeypatch.setattr(
        to_torch, "check_checkpoint_output", lambda *_, **__: None
    )  # .pth needs PyTorch
    monkeypatch.setattr(to_torch, "write_checkpoint", lambda _, x, **__: written.append(x))
    options = {"fill": None, "weights_only": False, "force": False}
    notes = to_torch.to_torch(workdir, tmp_path / "out.pth", **options)
    assert "no optimizer: the run trained with adamw" in notes[0]
    assert written.pop().optimizer is None
    with pytest.raises(GlpiError, match=r"'adamw', but an official file .* with --weights-only"):
        to_torch.to_torch(workdir / "checkpoints", tmp_path / "out.pth", **options)
    assert not written


@pytest.mark.parametrize("source", ["timm", "official"])
def test_fill(trained, demo_state, tmp_path, source, capsys):
    fill = tmp_path / "vit.safetensors"
    prefix = "vgfe.backbone."
    vit = {n.removeprefix(prefix): a for n, a in demo_state.items() if n.startswith(prefix)}
    save_file(vit if source == "timm" else demo_state, fill)
    out = tmp_path / "out.safetensors"
    assert port("to-torch", trained.workdir, out, "--fill", fill) == 0
    state = load_file(out)
    for name in carried_names(DEMO):
        if not is_count(name):
            np.testing.assert_array_equal(state[name], demo_state[name])
    assert not np.array_equal(state["cwsa1.norm.bias"], demo_state["cwsa1.norm.bias"])

    del vit["norm.weight"]
    vit["head.bias"] = np.zeros(3, np.float32)
    save_file(vit, fill)
    assert port("to-torch", trained.workdir, out, "--fill", fill, "--force") == 2
    error = capsys.readouterr().err
    assert "1 missing: vgfe.backbone.norm.weight" in error
    assert "1 misshapen: vgfe.backbone.head.bias (3,) instead of (1000,)" in error


def test_nothing_to_fill(imported, official_file, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert port("to-torch", imported, out, "--fill", official_file) == 2
    assert "nothing to fill" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/6"])
def test_a_state_to_resume_from(trained, tmp_path, place):
    """Its own step, and the workdir stays as it is."""
    workdir = tmp_path / "workdir"
    shutil.copytree(trained.workdir, workdir)
    # A save that a run might be just writing.
    (workdir / "checkpoints/9.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints/10").mkdir()
    before = sorted(workdir.rglob("*"))
    out = tmp_path / "out.safetensors"
    assert port("to-torch", workdir / place, out) == 0
    counts = {int(array) for name, array in load_file(out).items() if is_count(name)}
    assert counts == {6 if place.endswith("6") else 8}
    assert sorted(workdir.rglob("*")) == before


def test_best_srocc_is_the_highest_up_to_the_step(trained, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(trained.workdir, workdir)
    run, metrics = workdir / "run.json", workdir / "metrics.csv"

    def select(step, value):
        variables = runs.load_best(workdir, make_mesh(1))[1]
        shutil.rmtree(workdir / "best")
        best = BestCheckpoint(workdir, read_only=False)
        best.save(variables, {"step": step, "epoch": 1, "criterion": "a test's", "value": value})
        best.close()

    def exported(place):
        out = tmp_path / "out.safetensors"
        assert port("to-torch", workdir / place, out, "--force") == 0
        with safe_open(out, framework="numpy") as file:
            return float(file.metadata()["best_srocc"])

    def record(**parts):
        """An SROCC of each part after either epoch."""
        lines = ["step,epoch,name,value"]
        for epoch in (0, 1):
            for part, values in parts.items():
                if values[epoch] is not None:
                    name = part.replace("_", " ")
                    lines.append(f"{4 * epoch + 4},{epoch + 1},{name}/srocc,{values[epoch]}")
        metrics.write_text("\n".join(lines) + "\n")

    record(validation=(0.25, 0.75))
    select(8, 0.75)
    assert exported("checkpoints/6") == 0.25
    assert exported("checkpoints/8") == 0.75
    record(validation=(None, 0.75))
    assert exported("checkpoints/6") == -np.inf
    # As where the last epoch is selected, whatever its value.
    record(validation=(0.75, 0.25))
    select(8, 0.25)
    assert exported("checkpoints/8") == 0.75
    assert exported("") == 0.75
    # Without a record, what is selected.
    metrics.unlink()
    assert exported("checkpoints/8") == 0.25
    # Of several parts the mean, where each has a value; other parts do not count.
    content = json.loads(run.read_text())
    content["config"]["protocol"] = "official"
    content["config"]["targets"] = dict.fromkeys(("live", "csiq"), content["config"]["data"])
    run.write_text(json.dumps(content))
    record(test_live=(0.5, 1.0), test_csiq=(0.25, None), validation=(1.0, 1.0))
    select(8, None)
    assert exported("checkpoints/8") == 0.375


def test_a_damaged_state_is_named_as_it_is_known(trained, tmp_path, capsys):
    workdir = tmp_path / "workdir"
    shutil.copytree(trained.workdir, workdir)
    damaged = next(p for p in (workdir / "checkpoints/8/state").rglob("*") if p.is_file())
    damaged.write_bytes(b"?")
    assert port("to-torch", workdir / "checkpoints", tmp_path / "out.safetensors") == 2
    assert f"{workdir}/checkpoints/8: the checkpoint cannot be read" in capsys.readouterr().err


@pytest.fixture(scope="module")
def continued(trained, official_file, tmp_path_factory):
    """A run on from official weights, to its end."""
    workdir = tmp_path_factory.mktemp("continued") / "workdir"
    assert port("from-torch", official_file, workdir, *trained.config) == 0
    before = contents_of(workdir)
    assert main(["train", "--workdir", str(workdir), *trained.config]) == 0
    return workdir, before


def test_a_run_begins_with_the_weights_and_keeps_what_is_carried(
    trained, continued, demo_state, tmp_path
):
    workdir, before = continued
    for name in (CARRIED_FILE, "run.json", "split.json"):
        assert (workdir / name).read_bytes() == before[(workdir / name).relative_to(workdir)]
    assert json.loads((workdir / "split.json").read_text()) == json.loads(
        (trained.workdir / "split.json").read_text()
    )
    assert (workdir / "results.json").is_file()
    out = tmp_path / "out.safetensors"
    assert port("to-torch", workdir / "checkpoints", out) == 0
    state = load_file(out)
    for name in carried_names(DEMO):
        expected = demo_state[name] + (8 if is_count(name) else 0)
        np.testing.assert_array_equal(state[name], expected, err_msg=name)
    # Eight steps of 1e-3 or less from where the file was, not from an initialisation.
    distance = np.abs(state["siem1.conv.weight"] - demo_state["siem1.conv.weight"]).max()
    assert 0 < distance < 0.01


def test_what_is_carried_is_handed_on(continued, official_file, demo_state, tmp_path):
    workdir, _ = continued
    for source in (workdir, official_file):
        hand_on_carried(source, tmp_path)
        carried = read_carried(tmp_path)
        assert carried.step == 0
        assert carried.arrays.keys() == set(carried_names(DEMO))
        for name, array in carried.arrays.items():
            np.testing.assert_array_equal(array, demo_state[name])
    (tmp_path / "nothing").mkdir()
    hand_on_carried(tmp_path / "nothing", tmp_path / "nothing")
    assert read_carried(tmp_path / "nothing") is None


# Verification


def test_weights_are_compared_name_by_name(imported, official_file, demo_state, tmp_path, capsys):
    assert port("verify", official_file, imported) == 0
    output = capsys.readouterr()
    assert f"{len(demo_state)} entries equal to the last bit, 0 not" in output.out
    assert "compared the weights alone" in output.err
    other = tmp_path / "other.safetensors"
    moved = demo_state["siem3.conv.weight"].copy()
    moved[0, 0, 0, 0] += 1
    save_file(demo_state | {"siem3.conv.weight": moved}, other)
    assert port("verify", other, imported) == 2
    output = capsys.readouterr()
    assert f"{len(demo_state) - 1} entries equal to the last bit, 1 not" in output.out
    assert "siem3.conv.weight: 1.00e+00" in output.out
    assert "1 weights or stages differ by more than 0.001" in output.err


def test_another_number_of_classes_is_a_difference(imported, demo_state, tmp_path, capsys):
    head = {name: array for name, array in demo_state.items() if "backbone.head." in name}
    assert len(head) == 2
    other = tmp_path / "other.safetensors"
    save_file(demo_state | {name: np.repeat(array, 3, 0) for name, array in head.items()}, other)
    assert port("verify", other, imported) == 2
    output = capsys.readouterr()
    assert f"{len(demo_state) - 2} entries equal to the last bit, 2 not" in output.out
    for name, array in head.items():
        shape = (3 * len(array), *array.shape[1:])
        assert f"{name}: shape {array.shape} in the workdir, {shape} in the file" in output.out
    assert "2 weights or stages differ by more than 0.001" in output.err


def test_options_that_need_the_authors_code(imported, official_file, tmp_path, capsys):
    assert port("verify", official_file, imported, "--images", tmp_path) == 2
    assert "need --torch-repo" in capsys.readouterr().err


def test_verify_tells_what_the_workdir_does_not_keep(trained, official_file, capsys):
    assert port("verify", official_file, trained.workdir) == 2
    output = capsys.readouterr().out
    assert f"{len(carried_names(DEMO))} that never reach the score are not kept" in output
    assert "… and" in output
