"""Published ViTs: timm's names, the augreg files' names, and position embeddings of other crops."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from glpi_jax.models.glpi import GLPI, SIZES
from glpi_jax.models.vit import SelfAttention
from glpi_jax.weights.backbones import load_vit_backbone
from glpi_jax.weights.convert import carried_names, flax_entries, to_variables
from glpi_jax.weights.torch_files import CheckpointError
from glpi_jax.weights.torch_names import VIT_PREFIX
from glpi_jax.weights.vit_files import resample_positions

# With two blocks behind the last tap, as the official sizes have.
SIZE = dataclasses.replace(SIZES["glpi_demo"], depth=6)
MODEL = GLPI(SIZE, 0.5)

# torch.nn.functional.interpolate(mode="bicubic", antialias=True) of (7 i + 3 j²) mod 5.
RESAMPLED = {
    4: [[0.78604, 2.46714, 2.69575], [2.49885, 1.5792, 2.59588], [2.36544, 3.03922, 2.26052]],
    3: [
        [-0.40584, 1.09533, 3.22642, 2.48338, 1.7451],
        [0.51788, 1.00529, 1.85821, 2.54873, 2.9096],
        [2.15094, 1.1194, 0.0, 2.50746, 4.30189],
        [3.5559, 2.56427, 1.16418, 1.69932, 2.21557],
        [4.30189, 3.51112, 2.15094, 1.16714, 0.66963],
    ],
}


@pytest.fixture
def timm(official_state):
    """A ViT under timm's names."""
    state = official_state(SIZE)
    return {
        name.removeprefix(VIT_PREFIX): array
        for name, array in state.items()
        if name.startswith(VIT_PREFIX)
    }


def augreg(timm, *, heads=SIZE.heads):
    """The same as an augreg file has it: (in, out) kernels, heads apart."""
    dim, width = SIZE.dim, SIZE.dim // heads
    file = {
        "cls": timm["cls_token"],
        "Transformer/posembed_input/pos_embedding": timm["pos_embed"],
        "embedding/kernel": timm["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": timm["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": timm["norm.weight"],
        "Transformer/encoder_norm/bias": timm["norm.bias"],
        "head/kernel": timm["head.weight"].T,
        "head/bias": timm["head.bias"],
    }
    for i in range(SIZE.depth):
        ours, theirs = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        attention = f"{theirs}/MultiHeadDotProductAttention_1"
        for part, kernel, bias in zip(
            ("query", "key", "value"),
            np.split(timm[f"{ours}.attn.qkv.weight"].T, 3, 1),
            np.split(timm[f"{ours}.attn.qkv.bias"], 3),
            strict=True,
        ):
            file[f"{attention}/{part}/kernel"] = kernel.reshape(dim, heads, width)
            file[f"{attention}/{part}/bias"] = bias.reshape(heads, width)
        out = timm[f"{ours}.attn.proj.weight"].T
        file[f"{attention}/out/kernel"] = out.reshape(heads, width, dim)
        file[f"{attention}/out/bias"] = timm[f"{ours}.attn.proj.bias"]
        for norm, named in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            file[f"{theirs}/{norm}/scale"] = timm[f"{ours}.{named}.weight"]
            file[f"{theirs}/{norm}/bias"] = timm[f"{ours}.{named}.bias"]
        for k in (0, 1):
            dense = f"{theirs}/MlpBlock_3/Dense_{k}"
            file[f"{dense}/kernel"] = timm[f"{ours}.mlp.fc{k + 1}.weight"].T
            file[f"{dense}/bias"] = timm[f"{ours}.mlp.fc{k + 1}.bias"]
    return file


def assert_is(backbone, timm):
    named = {f"{VIT_PREFIX}{name}": array for name, array in timm.items()}
    entries = [entry for entry in flax_entries(MODEL) if entry.torch_name in named]
    jax.tree.map(np.testing.assert_array_equal, backbone.variables, to_variables(named, entries))
    assert list(backbone.variables) == ["params"]
    carried = [name for name in carried_names(MODEL) if name.startswith(VIT_PREFIX)]
    assert list(backbone.carried) == carried
    assert f"{VIT_PREFIX}blocks.5.attn.qkv.weight" in carried
    for name in carried:
        np.testing.assert_array_equal(backbone.carried[name], named[name])


def test_timm_safetensors(timm, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(timm, path)
    backbone = load_vit_backbone(path, MODEL)
    assert_is(backbone, timm)
    assert backbone.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    vgfe = backbone.variables["params"]["vgfe"]
    np.testing.assert_array_equal(
        vgfe["patch_embed"]["kernel"], timm["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    )


def test_augreg_npz(timm, tmp_path):
    path = tmp_path / "Ti_16.npz"
    np.savez(path, **augreg(timm))
    assert_is(load_vit_backbone(path, MODEL), timm)


def test_attention_of_an_augreg_file(timm, tmp_path):
    """Computed from the file's own arrays, head by head, in float64."""
    path = tmp_path / "Ti_16.npz"
    file = augreg(timm)
    np.savez(path, **file)
    tokens = np.random.default_rng(0).normal(size=(1, 5, SIZE.dim)).astype(np.float32)

    layer = "Transformer/encoderblock_3/MultiHeadDotProductAttention_1"
    query, key, value = (
        np.einsum("btd,dhe->bthe", tokens, file[f"{layer}/{part}/kernel"], dtype=np.float64)
        + file[f"{layer}/{part}/bias"][None, None]
        for part in ("query", "key", "value")
    )
    logits = np.einsum("bthe,bshe->bhts", query, key) * query.shape[-1] ** -0.5
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixed = np.einsum("bhts,bshe->bthe", weights, value)
    expected = np.einsum("bthe,hed->btd", mixed, file[f"{layer}/out/kernel"])
    expected += file[f"{layer}/out/bias"][None, None]

    params = load_vit_backbone(path, MODEL).variables["params"]["vgfe"]["blocks_3"]["attn"]
    attention = SelfAttention(heads=SIZE.heads, dtype=jnp.float32, attention="matmul")
    ours = attention.apply({"params": params}, tokens)
    np.testing.assert_allclose(ours, expected, atol=1e-5 * expected.std())


def test_imagenet_21k_has_more_classes(timm, tmp_path):
    timm["head.weight"] = np.ones((21843, SIZE.dim), np.float32)
    timm["head.bias"] = np.ones(21843, np.float32)
    save_file(timm, tmp_path / "model.safetensors")
    backbone = load_vit_backbone(tmp_path / "model.safetensors", MODEL)
    assert backbone.carried[f"{VIT_PREFIX}head.weight"].shape == (21843, SIZE.dim)


def test_all_differences_come_in_one_error(timm, tmp_path):
    del timm["blocks.3.norm1.bias"]
    timm["dist_token"] = np.zeros((1, 1, SIZE.dim), np.float32)
    timm["blocks.5.mlp.fc1.weight"] = np.zeros((7, SIZE.dim), np.float32)
    timm["norm.bias"] = np.full(SIZE.dim, np.nan, np.float32)
    save_file(timm, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_vit_backbone(tmp_path / "model.safetensors", MODEL)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/model.safetensors does not fit the model: 1 missing")
    assert "1 missing: blocks.3.norm1.bias" in message
    assert "1 unexpected: dist_token" in message
    assert "1 misshapen: blocks.5.mlp.fc1.weight (7, 48) instead of (96, 48)" in message
    assert "1 not finite: norm.bias" in message


def test_all_differences_of_an_augreg_file(timm, tmp_path):
    file = augreg(timm)
    layer = "Transformer/encoderblock_2/MultiHeadDotProductAttention_1"
    del file[f"{layer}/key/bias"], file["head/bias"]
    file[f"{layer}/out/kernel"] = np.zeros((6, 8, SIZE.dim), np.float32)
    file["pre_logits/kernel"] = np.zeros(3, np.float32)
    file["embedding/kernel"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "net.npz", **file)
    with pytest.raises(CheckpointError) as caught:
        load_vit_backbone(tmp_path / "net.npz", MODEL)
    message = str(caught.value)
    assert f"{layer}/key/bias missing; " in message
    assert f"{layer}/out/kernel (6, 8, 48) instead of (3, 16, 48); " in message
    assert "missing: blocks.2.attn.proj.weight, blocks.2.attn.qkv.bias, head.bias" in message
    assert "1 unexpected: pre_logits/kernel" in message
    assert "1 misshapen: patch_embed.proj.weight (3,)" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("net.npz", b"no archive", r"net\.npz: not a readable \.npz file"),
        ("net.npz", None, r"net\.npz: cannot be read \(No such file"),
        ("net.safetensors", b"x", "not a readable safetensors file"),
        ("net.bin", b"x", r"expected a \.pth, \.pt or \.safetensors file"),
    ],
)
def test_unreadable_files(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_vit_backbone(tmp_path / name, MODEL)


def test_another_width_is_told_in_one_line(timm, tmp_path):
    save_file(timm, tmp_path / "model.safetensors")
    wide = GLPI(SIZES["glpi_ti16"], 0.5)
    with pytest.raises(CheckpointError, match="a ViT of width 48, where the model has 192: take"):
        load_vit_backbone(tmp_path / "model.safetensors", wide)


def test_golden_resampled_positions():
    for old, expected in RESAMPLED.items():
        i, j = np.mgrid[:old, :old]
        grid = ((7 * i + 3 * j * j) % 5).reshape(1, -1, 1)
        given = np.concatenate([np.full((1, 1, 1), 9), grid], 1).astype(np.float32)
        side = len(expected)
        fitted = resample_positions(given, side, "file")
        assert fitted.shape == (1, 1 + side**2, 1)
        assert fitted.dtype == np.float32
        assert fitted[0, 0, 0] == 9
        np.testing.assert_allclose(fitted[0, 1:, 0].reshape(side, side), expected, atol=1e-5)
        np.testing.assert_array_equal(resample_positions(given, old, "file"), given)


def test_a_file_of_another_crop(timm, tmp_path):
    """Its position embeddings alone are changed."""
    rng = np.random.default_rng(3)
    given = rng.normal(size=(1, 1 + 6**2, SIZE.dim)).astype(np.float32)
    save_file(timm | {"pos_embed": given}, tmp_path / "model.safetensors")
    backbone = load_vit_backbone(tmp_path / "model.safetensors", MODEL)
    assert_is(backbone, timm | {"pos_embed": resample_positions(given, 4, "file")})

    save_file(timm | {"pos_embed": given[:, :-1]}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="pos_embed has 36 positions, which are no class"):
        load_vit_backbone(tmp_path / "model.safetensors", MODEL)


@pytest.mark.torch
@pytest.mark.parametrize(("old", "side"), [(14, 24), (24, 14), (14, 4), (7, 14), (14, 13)])
def test_positions_are_resampled_as_torch_does(old, side):
    import torch

    given = np.random.default_rng(old).normal(size=(1, 1 + old**2, 6)).astype(np.float32)
    grid = torch.from_numpy(given[:, 1:].reshape(1, old, old, 6)).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(
        grid, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    expected = theirs.permute(0, 2, 3, 1).reshape(1, side**2, 6).numpy()
    fitted = resample_positions(given, side, "file")
    np.testing.assert_allclose(fitted[:, 1:], expected, atol=1e-5)
    np.testing.assert_array_equal(fitted[:, 0], given[:, 0])


@pytest.mark.torch
def test_timm_pth(timm, tmp_path):
    import torch

    state = {f"module.{name}": torch.from_numpy(array) for name, array in timm.items()}
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    assert_is(load_vit_backbone(tmp_path / "model.pth", MODEL), timm)
