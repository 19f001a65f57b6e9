"""Official files: what PyTorch writes is read, code in it never runs, half a file never stays."""

import contextlib
import pickle
import re
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from glpi_jax.core.errors import GlpiError
from glpi_jax.weights import torch_files
from glpi_jax.weights.carried import CARRIED_FILE, read_carried
from glpi_jax.weights.convert import load_torch
from glpi_jax.weights.torch_files import (
    CheckpointError,
    OfficialCheckpoint,
    check_checkpoint_output,
    read_state,
    write_checkpoint,
)


def kernel(variables):
    return variables["params"]["siem2"]["conv"]["kernel"]


def test_safetensors_file_holds_weights_and_progress(demo_state, tmp_path):
    path = tmp_path / "glpi.safetensors"
    write_checkpoint(path, OfficialCheckpoint(demo_state, 7, 0.25), force=False)
    state = read_state(path)
    assert state.keys() == demo_state.keys()
    for name, array in demo_state.items():
        assert state[name].dtype == array.dtype
        np.testing.assert_array_equal(state[name], array)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"epoch": "7", "best_srocc": "0.25"}


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_dtypes_that_numpy_does_not_have(tmp_path, dtype):
    path = tmp_path / "glpi.safetensors"
    save_file({"x": np.zeros(4, getattr(ml_dtypes, dtype))}, path)
    with pytest.raises(CheckpointError, match=r"glpi.safetensors: not a readable safetensors file"):
        read_state(path)
    path.rename(tmp_path / CARRIED_FILE)
    with pytest.raises(CheckpointError, match="not a readable file of carried weights"):
        read_carried(tmp_path)


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "there.safetensors").write_text("old")
    (tmp_path / "folder.safetensors").mkdir()
    for name, reason in (
        ("there.safetensors", "exists already; --force replaces it"),
        ("folder.safetensors", "this is a folder"),
        ("none/out.safetensors", "there is no folder"),
        ("weights.bin", "must end in .pth, .pt, .safetensors"),
    ):
        with pytest.raises(GlpiError, match=reason):
            check_checkpoint_output(tmp_path / name, force=False)
    check_checkpoint_output(tmp_path / "there.safetensors", force=True)
    check_checkpoint_output(tmp_path / "new.safetensors", force=False)


def test_without_torch_a_pth_file_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(GlpiError, match=r"pip install 'glpi_jax\[torch\]', or name a .safetens"):
        check_checkpoint_output(tmp_path / "out.pth", force=False)


def test_an_interrupted_write_leaves_what_was_there(demo_state, tmp_path, monkeypatch):
    import safetensors.numpy

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "glpi.safetensors"
    path.write_text("old")
    monkeypatch.setattr(safetensors.numpy, "save_file", half)
    with pytest.raises(GlpiError, match=r"glpi.safetensors: cannot be written .*No space left"):
        write_checkpoint(path, OfficialCheckpoint(demo_state), force=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.torch
@pytest.mark.parametrize("wrap", ["bare", "state_dict", "model", "module."])
def test_pth_file_of_torch(demo_state, tmp_path, wrap):
    import torch

    tensors = {name: torch.from_numpy(np.array(array)) for name, array in demo_state.items()}
    if wrap == "module.":
        tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    if wrap in ("state_dict", "model"):
        # SciPy gives NumPy numbers, which plain `weights_only` refuses.
        tensors = {"epoch": np.int64(1), wrap: tensors, "best_srocc": np.float64(0.5)}
    path = tmp_path / "model.pth"
    torch.save(tensors, path)
    _, variables = load_torch(path)
    expected = demo_state["siem2.conv.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel(variables), expected)


@pytest.mark.torch
def test_half_precision_tensors(demo_state, tmp_path):
    import torch

    name = "siem2.conv.weight"
    for dtype in (torch.bfloat16, torch.float16):
        tensors = {key: torch.from_numpy(np.array(array)) for key, array in demo_state.items()}
        tensors[name] = tensors[name].to(dtype)
        path = tmp_path / "model.pth"
        torch.save(tensors, path)
        expected = tensors[name].float().numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel(load_torch(path)[1]), expected)


@pytest.mark.torch
@pytest.mark.parametrize("form", ["plain pickle", "torch.save", "numpy scalar"])
def test_code_in_a_file_is_not_run(tmp_path, form):
    import torch

    evidence = tmp_path / "executed"

    class Code:
        def __reduce__(self):
            return (evidence.write_text, ("executed",))

    class InNumber:
        """Through the constructor of NumPy's numbers, which is allowed."""

        def __reduce__(self):
            return (np.float64(0).__reduce__()[0], (np.dtype("O"), Code()))

    path = tmp_path / "model.pth"
    content = {"state_dict": InNumber() if form == "numpy scalar" else Code()}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint") as caught:
        load_torch(path)
    assert not evidence.exists()
    assert "\n" not in str(caught.value)
    assert "holds more than weights" in str(caught.value)
    # It does run where nobody guards: this test would see it.
    if form == "plain pickle":
        pickle.loads(path.read_bytes())
    else:
        with contextlib.suppress(TypeError):  # NumPy's, after the code has run
            torch.load(path, weights_only=False)
    assert evidence.read_text() == "executed"


@pytest.mark.torch
def test_damaged_pth_files(demo_state, tmp_path):
    import torch

    path = tmp_path / "model.pth"
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in demo_state.items()}
    torch.save({"state_dict": tensors}, path)
    whole = path.read_bytes()
    path.write_text("text\n")  # a pickle's opcodes, to the unpickler
    with pytest.raises(CheckpointError, match=r"its bytes are no checkpoint\)"):
        load_torch(path)
    for content in (b"", b"no checkpoint", whole[:500], whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model.pth: not a readable PyTorch checkpoint"):
            load_torch(path)
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("readme.txt", "a zip file of something else")
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        load_torch(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list, expected a state dict"):
        load_torch(path)


@pytest.mark.torch
def test_damaged_legacy_pth_files(tmp_path):
    import torch

    path = tmp_path / "model.pth"
    state = {"weight": torch.zeros(3, 4), "bias": torch.ones(3)}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    read_state(path)
    cut = [whole[:length] for length in range(0, len(whole), 3)]
    key = re.search(rb"\d{8,}", whole)  # of the first storage, where it is first named
    other = whole[: key.start()] + b"A" + whole[key.start() + 1 :]
    for content in (*cut, other):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model.pth: not a readable PyTorch checkpoint"):
            read_state(path)


@pytest.mark.torch
def test_a_pth_file_has_the_official_entries(demo_state, tmp_path):
    import torch

    path = tmp_path / "out.pth"
    optimizer = {"state": {0: {"step": np.array(2.0, np.float32)}}, "param_groups": [{"lr": 1.0}]}
    write_checkpoint(path, OfficialCheckpoint(demo_state, 3, None, optimizer), force=False)
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == ["epoch", "state_dict", "best_srocc", "optimizer"]
    assert loaded["epoch"] == 3
    assert loaded["best_srocc"] == -np.inf  # the official code's before the first validation
    assert loaded["optimizer"]["state"][0]["step"].dtype == torch.float32
    assert list(loaded["state_dict"]) == list(demo_state)
    for name, tensor in loaded["state_dict"].items():
        assert tensor.numpy().dtype == demo_state[name].dtype
        np.testing.assert_array_equal(tensor.numpy(), demo_state[name])


@pytest.mark.torch
def test_an_interrupted_torch_save_leaves_what_was_there(demo_state, tmp_path, monkeypatch):
    import torch

    def half(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")

    path = tmp_path / "out.pth"
    path.write_text("old")
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(GlpiError, match=r"out.pth: cannot be written \(unexpected pos"):
        torch_files.write_checkpoint(path, OfficialCheckpoint(demo_state), force=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
