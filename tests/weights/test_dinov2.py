"""DINOv2's ViT inside of GLPI, against a NumPy forward of the original at patch 14."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf, softmax

from glpi_jax.models.glpi import SIZES, build
from glpi_jax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from glpi_jax.models.vit import ViT
from glpi_jax.weights.backbones import load_vit_backbone, with_gain
from glpi_jax.weights.dinov2 import resize_kernel
from glpi_jax.weights.torch_files import CheckpointError

SIZE = SIZES["glpi_demo"]
MODEL = build("glpi_demo", dropout=0.0)
DIM, SIDE, DEPTH = SIZE.vit_dim, SIZE.crop // SIZE.patch, SIZE.depth
TO_HUGGING_FACE = (
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("blocks.", "encoder.layer."),
    (".attn.proj.", ".attention.output.dense."),
    (".ls1.gamma", ".layer_scale1.lambda1"),
    (".ls2.gamma", ".layer_scale2.lambda1"),
)


@pytest.fixture(scope="module")
def original():
    """A DINOv2 of random values under timm's names, at patch 14."""
    rng = np.random.default_rng(0)

    def draw(*shape, scale=0.2, shift=0.0):
        return (rng.normal(size=shape) * scale + shift).astype(np.float32)

    hidden = SIZE.mlp_hidden
    arrays = {
        "cls_token": draw(1, 1, DIM),
        "mask_token": draw(1, DIM),
        "pos_embed": draw(1, 1 + SIDE**2, DIM),
        "patch_embed.proj.weight": draw(DIM, 3, 14, 14, scale=0.05),
        "patch_embed.proj.bias": draw(DIM),
        "norm.weight": draw(DIM, shift=1),
        "norm.bias": draw(DIM),
    }
    for i in range(DEPTH):
        block = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            arrays[f"{block}.{norm}.weight"] = draw(DIM, shift=1)
            arrays[f"{block}.{norm}.bias"] = draw(DIM)
        for name, (rows, columns) in {
            "attn.qkv": (3 * DIM, DIM),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (hidden, DIM),
            "mlp.fc2": (DIM, hidden),
        }.items():
            arrays[f"{block}.{name}.weight"] = draw(rows, columns)
            arrays[f"{block}.{name}.bias"] = draw(rows)
        for scale in ("ls1", "ls2"):
            arrays[f"{block}.{scale}.gamma"] = draw(DIM, scale=0.5)
    return arrays


def hugging_face(arrays, prefix=""):
    """The same state dict as `Dinov2Model` has it: query, key and value one by one."""
    renamed = {}
    for name, array in arrays.items():
        for ours, theirs in TO_HUGGING_FACE:
            name = name.replace(ours, theirs)
        if name.startswith("norm."):
            name = f"layernorm.{name.removeprefix('norm.')}"
        if ".attn.qkv." in name:
            for part, values in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                own = name.replace(".attn.qkv.", f".attention.attention.{part}.")
                renamed[f"{prefix}{own}"] = values
        else:
            renamed[f"{prefix}{name}"] = array
    return renamed


def norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def forward(arrays, image):
    """Tokens behind every block of the original, float64, for an image (56, 56, 3) from 0 to 1."""
    a = {name: array.astype(np.float64) for name, array in arrays.items()}
    x = (image - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    patches = x.reshape(SIDE, 14, SIDE, 14, 3).transpose(0, 2, 4, 1, 3).reshape(SIDE**2, -1)
    tokens = patches @ a["patch_embed.proj.weight"].reshape(DIM, -1).T + a["patch_embed.proj.bias"]
    x = np.concatenate([a["cls_token"][0], tokens]) + a["pos_embed"][0]
    outputs = []
    for i in range(DEPTH):
        w = {n.removeprefix(f"blocks.{i}."): v for n, v in a.items() if n.startswith(f"blocks.{i}")}
        y = norm(x, w["norm1.weight"], w["norm1.bias"]) @ w["attn.qkv.weight"].T
        y = (y + w["attn.qkv.bias"]).reshape(len(x), 3, SIZE.heads, -1).transpose(1, 2, 0, 3)
        attention = softmax(y[0] @ y[1].transpose(0, 2, 1) * y.shape[-1] ** -0.5, axis=-1)
        y = (attention @ y[2]).transpose(1, 0, 2).reshape(len(x), DIM)
        x = x + w["ls1.gamma"] * (y @ w["attn.proj.weight"].T + w["attn.proj.bias"])
        y = norm(x, w["norm2.weight"], w["norm2.bias"]) @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
        y = y * 0.5 * (1 + erf(y * 0.5**0.5))
        x = x + w["ls2.gamma"] * (y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"])
        outputs.append(x[1:])
    return outputs


def enlarged(image):
    """The image with every 14×14 patch enlarged linearly to 16×16, as (64, 64, 3)."""
    patches = image.reshape(SIDE, 14, SIDE, 14, 3).transpose(0, 2, 1, 3, 4)
    large = jax.image.resize(jnp.asarray(patches), (SIDE, SIDE, 16, 16, 3), "linear")
    return np.asarray(large).transpose(0, 2, 1, 3, 4).reshape(SIZE.crop, SIZE.crop, 3)


@pytest.mark.parametrize("names", ["timm", "hugging face", "hugging face, inside a model"])
def test_dinov2_gives_the_tokens_of_the_original(original, names, tmp_path):
    file = tmp_path / "vit.safetensors"
    prefix = "dinov2." if "inside" in names else ""
    save_file(original if names == "timm" else hugging_face(original, prefix), file)
    params = load_vit_backbone(file, MODEL).variables["params"]["vgfe"]
    image = np.random.default_rng(1).uniform(size=(56, 56, 3)).astype(np.float32)
    vit = ViT(
        dim=DIM,
        heads=SIZE.heads,
        mlp_hidden=SIZE.mlp_hidden,
        patch=SIZE.patch,
        taps=tuple(range(DEPTH)),
        dtype=jnp.dtype(jnp.float32),
    )
    with jax.default_matmul_precision("highest"):
        _, taps = vit.apply({"params": params}, 2 * enlarged(image)[None] - 1)
    for i, wanted in enumerate(forward(original, image)):
        ours = np.asarray(taps[f"block_{i}"][0])
        np.testing.assert_allclose(ours, wanted, atol=2e-4 * wanted.std(), rtol=0)


def test_gain_multiplies_tokens_and_changes_nothing_else(original, tmp_path):
    save_file(original, tmp_path / "vit.safetensors")
    plain = load_vit_backbone(tmp_path / "vit.safetensors", MODEL)
    vit = ViT(
        dim=DIM,
        heads=SIZE.heads,
        mlp_hidden=SIZE.mlp_hidden,
        patch=SIZE.patch,
        taps=tuple(range(DEPTH)),
        dtype=jnp.dtype(jnp.float32),
    )
    image = np.random.default_rng(1).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        one, many = (
            vit.apply({"params": backbone.variables["params"]["vgfe"]}, image)[1]
            for backbone in (plain, with_gain(plain, 8.0))
        )
    for name, tokens in one.items():
        np.testing.assert_allclose(many[name] / 8, tokens, atol=1e-4 * float(tokens.std()), rtol=0)
    carried = with_gain(plain, 8.0).carried
    np.testing.assert_array_equal(carried["vgfe.backbone.norm.weight"], original["norm.weight"])


def test_kernel_is_kept_at_its_own_size_and_restored_from_a_larger_one(original):
    kernel = original["patch_embed.proj.weight"]
    assert resize_kernel(kernel, 14) is kernel
    # The response to a flat patch is the sum of the kernel, whatever the size.
    np.testing.assert_allclose(resize_kernel(kernel, 16).sum((2, 3)), kernel.sum((2, 3)), atol=1e-4)


def test_dinov2_lacks_a_classifier_which_becomes_zeros(original, tmp_path):
    save_file(original, tmp_path / "vit.safetensors")
    carried = load_vit_backbone(tmp_path / "vit.safetensors", MODEL).carried
    assert not carried["vgfe.backbone.head.weight"].any()
    np.testing.assert_array_equal(carried["vgfe.backbone.norm.weight"], original["norm.weight"])


def test_faults_of_a_dinov2_file_are_reported_together(original, tmp_path):
    wrong = hugging_face(original) | {"embeddings.register_tokens": np.ones((1, 4, DIM), "f4")}
    wrong["encoder.layer.1.layer_scale1.lambda1"] = np.ones(DIM + 1, np.float32)
    del wrong["encoder.layer.2.attention.attention.key.weight"]
    del wrong["encoder.layer.3.layer_scale2.lambda1"]
    save_file(wrong, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_vit_backbone(tmp_path / "vit.safetensors", MODEL)
    for fault in ("register_tokens", "blocks.1.ls1.gamma", "blocks.2.attn.qkv", "blocks.3.ls2"):
        assert fault in str(error.value)
