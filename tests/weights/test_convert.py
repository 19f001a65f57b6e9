import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from glpi_jax.models.glpi import GLPI, SIZES, Size
from glpi_jax.weights.convert import (
    carried_names,
    flax_entries,
    load_torch,
    official_shapes,
    to_official,
    to_variables,
)
from glpi_jax.weights.torch_files import CheckpointError
from glpi_jax.weights.torch_names import LEGACY_PREFIXES


@pytest.fixture(scope="module")
def official(model_golden):
    return model_golden("forward_vit_tiny").state_dict


def leaf(variables, collection, path):
    node = variables[collection]
    for key in path:
        node = node[key]
    return node


def test_golden_names_fill_every_variable(golden_shapes):
    """The official size: each array is found where its name says, turned as its layer needs."""
    state = {
        name: np.asarray(len(shape), np.int64)
        if name.endswith("num_batches_tracked")
        else np.arange(number, number + np.prod(shape), dtype=np.float32).reshape(shape)
        for number, (name, shape) in enumerate(golden_shapes.items())
    }
    model, variables = load_torch(state)
    assert model.size == SIZES["glpi_s16"]
    turned = {2: (1, 0), 4: (2, 3, 1, 0)}
    for entry in flax_entries(model):
        theirs = state[entry.torch_name]
        ours = leaf(variables, entry.collection, entry.path)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(
            ours, theirs.transpose(turned.get(theirs.ndim, range(theirs.ndim)))
        )


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
    broken["cwsa2.c_q.bias"] = np.zeros(196, np.float64)
    broken["clfe.backbone.bn1.num_batches_tracked"] = np.zeros((), np.float32)
    broken["cwsa4.c_q.bias"] = "text"
    with pytest.raises(CheckpointError) as caught:
        load_torch(broken)
    message = str(caught.value)
    assert "not an array: cwsa4.c_q.bias" in message
    assert (
        "3 missing: cwsa3.norm.weight, cwsa4.c_q.bias, vgfe.backbone.blocks.11.norm1.bias"
    ) in message
    assert "1 unexpected: extra.weight" in message
    assert "2 misshapen: siem1.conv.weight (1, 2, 3, 3) instead of (192, 384, 3, 3)" in message
    assert "vgfe.backbone.head.weight (1000, 7) instead of (1000, 192)" in message
    assert "2 of another dtype: clfe.backbone.bn1.num_batches_tracked float32 instead of" in message
    assert "cwsa2.c_q.bias float64 instead of float32" in message
    assert "1 not finite: local_projection.bias" in message


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(official, dtype):
    name = "local_projection.bias"
    half = official[name].astype(dtype)
    _, variables = load_torch({**official, name: half})
    widened = variables["params"]["local_projection"]["bias"]
    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened, half.astype(np.float32))


@st.composite
def sizes(draw):
    """Small networks of every shape: widths, depths, taps, crops."""
    heads, depth = draw(st.integers(1, 3)), draw(st.integers(4, 6))
    return Size(
        crop=16 * draw(st.integers(1, 3)),
        patch=16,
        vit_dim=heads * draw(st.integers(2, 4)),
        dim=draw(st.integers(2, 12)),
        depth=depth,
        heads=heads,
        mlp_hidden=draw(st.integers(3, 9)),
        taps=tuple(sorted(draw(st.permutations(range(depth)))[:4])),
        stem=draw(st.integers(1, 4)),
        widths=tuple(draw(st.integers(1, 4)) for _ in range(3)),
        blocks=tuple(draw(st.integers(1, 2)) for _ in range(3)),
    )


# Without shrinking, each step of which would trace another network.
@settings(max_examples=5, deadline=None, derandomize=True, phases=[Phase.generate])
@given(size=sizes(), seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 12))
def test_there_and_back_is_bit_equal(size, seed, classes):
    model, rng = GLPI(size, 0.5), np.random.default_rng(seed)
    state = {
        name: np.asarray(rng.integers(0, 2**40), np.int64)
        if name.endswith("num_batches_tracked")
        else rng.normal(size=shape).astype(np.float32)
        for name, shape in official_shapes(model, classes).items()
    }
    variables = to_variables(state, flax_entries(model))
    held = {name: state[name] for name in carried_names(model)}
    back = to_official(variables, held, model, "variables")
    assert list(back) == list(state)
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()
    # Every value is in one place and in no other.
    size_held = sum(leaf.size for leaf in traverse_util.flatten_dict(variables).values())
    assert size_held + sum(map(np.size, held.values())) == sum(map(np.size, state.values()))


def test_weights_that_cannot_be_exported_are_named(demo_state):
    model = GLPI(SIZES["glpi_demo"], 0.5)
    # Copied: those of the state are shared with other tests.
    variables = jax.tree.map(np.array, to_variables(demo_state, flax_entries(model)))
    variables["params"]["cwsa1"]["norm"]["scale"][3] = np.inf
    held = {name: demo_state[name] for name in carried_names(model)[1:]}
    with pytest.raises(CheckpointError) as caught:
        to_official(variables, held, model, "runs/a, step 3")
    message = str(caught.value)
    assert message.startswith("runs/a, step 3 does not fit the model: ")
    assert f"1 missing: {carried_names(model)[0]}" in message
    assert "1 not finite: cwsa1.norm.weight" in message


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
