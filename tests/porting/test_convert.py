import numpy as np
import pytest
from safetensors.numpy import save_file

from glpi_jax.models.glpi import SIZES
from glpi_jax.porting.convert import CheckpointError, flax_entries, load_torch
from glpi_jax.porting.torch_names import LEGACY_PREFIXES, RULES, to_torch_name


@pytest.fixture(scope="module")
def official(model_golden):
    return model_golden("forward_vit_tiny").state_dict


def leaf(variables, collection, path):
    node = variables[collection]
    for key in path:
        node = node[key]
    return node


def test_golden_names_fill_every_variable(model_golden):
    """Each of the 466 official names is used once or known to be carried only."""
    golden = model_golden("forward_vit_small")
    model, variables = load_torch(golden.state_dict)
    assert model.size == SIZES["glpi_s16"]
    entries = flax_entries(model)
    names = [entry.torch_name for entry in entries]
    assert len(names) == len(set(names))
    carried = set(golden.state_dict) - set(names)
    assert len(golden.state_dict) == 466
    assert all(
        name.startswith(("vgfe.backbone.blocks.10.", "vgfe.backbone.blocks.11."))
        or name.startswith(("vgfe.backbone.norm.", "vgfe.backbone.head."))
        or name.endswith("num_batches_tracked")
        for name in carried
    )
    for entry in entries:
        ours = leaf(variables, entry.collection, entry.path)
        theirs = golden.state_dict[entry.torch_name]
        assert sorted(ours.shape) == sorted(theirs.shape)
        assert ours.dtype == np.float32
        assert np.array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))


def test_no_two_rules_share_a_name():
    assert len({rule.torch for rule in RULES}) == len(RULES)
    assert len({(rule.collection, rule.flax) for rule in RULES}) == len(RULES)


def test_unknown_flax_entry_has_no_rule():
    with pytest.raises(KeyError, match="vgfe/blocks_0/attn/rope"):
        to_torch_name("params", "vgfe/blocks_0/attn/rope")


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "model", "module."])
def test_containers_and_prefixes(official, wrap):
    state = official
    if wrap in ("state_dict", "model"):
        state = {"epoch": 3, wrap: official, "best_srocc": 0.9}
    elif wrap == "module.":
        state = {f"module.{name}": array for name, array in official.items()}
    model, variables = load_torch(state)
    assert model.size == SIZES["glpi_ti16"]
    np.testing.assert_array_equal(
        variables["params"]["cwsa1"]["c_q"]["kernel"], official["cwsa1.c_q.weight"].T
    )


def test_legacy_prefixes(official):
    legacy = {}
    for name, array in official.items():
        for old, new in LEGACY_PREFIXES:
            if name.startswith(new):
                name = old + name.removeprefix(new)
                break
        legacy[name] = array
    assert "fusion1.c_q.weight" in legacy
    assert "conv4.weight" in legacy
    expected, got = load_torch(official)[1], load_torch(legacy)[1]
    for entry in flax_entries(load_torch(official)[0]):
        np.testing.assert_array_equal(
            leaf(got, entry.collection, entry.path), leaf(expected, entry.collection, entry.path)
        )


def test_safetensors_file(official, tmp_path):
    path = tmp_path / "glpi.safetensors"
    save_file({name: np.array(array) for name, array in official.items()}, path)
    _, variables = load_torch(path)
    np.testing.assert_array_equal(
        variables["params"]["siem2"]["conv"]["kernel"],
        official["siem2.conv.weight"].transpose(2, 3, 1, 0),
    )


def test_all_differences_come_in_one_error(official):
    broken = dict(official)
    del broken["cwsa3.norm.weight"], broken["vgfe.backbone.blocks.11.norm1.bias"]
    broken["extra.weight"] = np.zeros(3, np.float32)
    broken["siem1.conv.weight"] = np.zeros((1, 2, 3, 3), np.float32)
    broken["vgfe.backbone.head.weight"] = np.zeros((1000, 7), np.float32)
    broken["local_projection.bias"] = np.full(192, np.nan, np.float32)
    with pytest.raises(CheckpointError) as caught:
        load_torch(broken)
    message = str(caught.value)
    assert "2 missing: cwsa3.norm.weight, vgfe.backbone.blocks.11.norm1.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "2 misshapen: siem1.conv.weight (1, 2, 3, 3) instead of (192, 384, 3, 3)" in message
    assert "vgfe.backbone.head.weight (1000, 7) instead of (None, 192)" in message
    assert "1 not finite: local_projection.bias" in message


def test_entries_that_are_no_arrays_are_named(official):
    with pytest.raises(CheckpointError, match=r"not an array: local_projection.bias"):
        load_torch({**official, "local_projection.bias": "text"})


def test_old_and_new_name_together(official):
    with pytest.raises(CheckpointError, match=r"twice under old and new names: cwsa1.c_q.bias"):
        load_torch({**official, "fusion1.c_q.bias": official["cwsa1.c_q.bias"]})


def test_other_models_are_refused(official):
    with pytest.raises(CheckpointError, match="not a GLPI checkpoint"):
        load_torch({"fc.weight": np.zeros((3, 3), np.float32)})
    wide = {**official, "vgfe.backbone.pos_embed": np.zeros((1, 197, 1024), np.float32)}
    with pytest.raises(CheckpointError, match=r"\(1, 197, 1024\), which fits no known size"):
        load_torch(wide)


def test_other_crop_is_inferred(official):
    """A 384-pixel crop has 24 × 24 tokens: shapes that depend on them are then expected so."""
    larger = {**official, "vgfe.backbone.pos_embed": np.zeros((1, 577, 192), np.float32)}
    with pytest.raises(
        CheckpointError, match=r"cwsa1.c_k.weight \(196, 196\) instead of \(576, 576\)"
    ):
        load_torch(larger)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_torch(tmp_path / "none.safetensors")
    for name, reason in (
        ("broken.safetensors", "not a readable safetensors file"),
        ("weights.ckpt", "expected a .pth, .pt or .safetensors file"),
    ):
        path = tmp_path / name
        path.write_bytes(b"no checkpoint")
        with pytest.raises(CheckpointError, match=reason) as caught:
            load_torch(path)
        assert str(path) in str(caught.value)


def test_pth_without_torch_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = tmp_path / "model.pth"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pip install 'glpi_jax\[torch\]'"):
        load_torch(path)


@pytest.mark.torch
def test_pth_file(official, tmp_path):
    import torch

    path = tmp_path / "model.pth"
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in official.items()}
    torch.save({"epoch": 1, "state_dict": tensors, "best_srocc": 0.5}, path)
    _, variables = load_torch(path)
    np.testing.assert_array_equal(
        variables["params"]["quality_head"]["fc1"]["kernel"],
        official["quality_head.layers.0.weight"].T,
    )


@pytest.mark.torch
def test_pth_with_code_is_not_run(tmp_path):
    import pickle

    class Code:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))  # as torch.save writes
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        load_torch(path)


@pytest.mark.torch
def test_truncated_pth(official, tmp_path):
    import torch

    path = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="not a readable PyTorch checkpoint"):
        load_torch(path)


@pytest.mark.torch
def test_layers_equal_torchs():
    """CWSA and the head against torch's own operations, random weights."""
    import jax.numpy as jnp
    import torch
    import torch.nn.functional as F

    from glpi_jax.models.integration import CWSA

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 12, 9)).astype(np.float32)
    weights = {
        name: (rng.normal(size=(9, 9)).astype(np.float32), rng.normal(size=9).astype(np.float32))
        for name in ("c_q", "c_k", "c_v")
    }
    scale, bias = rng.normal(size=(2, 9)).astype(np.float32)
    params = {name: {"kernel": w.T, "bias": b} for name, (w, b) in weights.items()}
    params["norm"] = {"scale": scale, "bias": bias}
    ours, _ = CWSA(0.5, jnp.float32).apply({"params": params}, x, False), None

    t = torch.from_numpy(x)
    q, k, v = (F.linear(t, *map(torch.from_numpy, weights[name])) for name in ("c_q", "c_k", "c_v"))
    attention = torch.softmax(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 9**-0.5, dim=-1)
    y = (attention @ v).transpose(1, 2).reshape(2, 12, 9)
    theirs = t + F.layer_norm(y, (9,), torch.from_numpy(scale), torch.from_numpy(bias))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
