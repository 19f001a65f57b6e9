"""torchvision's ResNet files: names, depth, checks, and the numbers of an independent network."""

import dataclasses
import hashlib
from functools import partial

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from glpi_jax.models.glpi import GLPI, SIZES
from glpi_jax.weights import backbones
from glpi_jax.weights.backbones import (
    RESNETS,
    ResNetSize,
    load_resnet,
    load_resnet_backbone,
    resnet_variables,
)
from glpi_jax.weights.convert import carried_names, is_count
from glpi_jax.weights.torch_files import CheckpointError

TINY = ResNetSize(4, (2, 3, 4, 5), (1, 2, 1, 1))


def torchvision_shapes(size: ResNetSize, *, counters: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes as torchvision writes them."""

    def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        parts = ("weight", "bias", "running_mean", "running_var")
        extra = {f"{name}.num_batches_tracked": ()} if counters else {}
        return {f"{name}.{part}": (channels,) for part in parts} | extra

    shapes = {"conv1.weight": (size.stem, 3, 7, 7), **norm("bn1", size.stem)}
    channels = size.stem
    for stage, (width, blocks) in enumerate(zip(size.widths, size.blocks, strict=True), 1):
        for i in range(blocks):
            block = f"layer{stage}.{i}"
            shapes[f"{block}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{block}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{block}.conv3.weight"] = (4 * width, width, 1, 1)
            for k, features in enumerate((width, width, 4 * width), 1):
                shapes |= norm(f"{block}.bn{k}", features)
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                shapes |= norm(f"{block}.downsample.1", 4 * width)
            channels = 4 * width
    return shapes | {"fc.weight": (1000, channels), "fc.bias": (1000,)}


def random_state(size: ResNetSize, *, counters: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in torchvision_shapes(size, counters=counters).items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(7, np.int64)
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
        else:
            scale = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
            state[name] = rng.normal(len(shape) == 1, scale, shape).astype(np.float32)
    return state


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(RESNETS, "tiny", TINY)
    return random_state(TINY)


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet50", 25_557_032), ("resnet101", 44_549_160)]
)
def test_depth_follows_from_the_names(name, parameters):
    """Every entry is used but the classifier; torchvision states these numbers of parameters."""
    shapes = torchvision_shapes(RESNETS[name], counters=False)
    state = {entry: np.broadcast_to(np.float32(0.5), shape) for entry, shape in shapes.items()}
    found, variables = resnet_variables(state, "state dict")
    assert found == name
    classifier = 1000 * 2048 + 1000
    leaves = traverse_util.flatten_dict(variables)
    assert len(leaves) == len(state) - 2
    count = sum(leaf.size for path, leaf in leaves.items() if path[0] == "params")
    assert count + classifier == parameters


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "tiny"])
def test_entries_of_a_whole_file(name, tiny):
    expected = torchvision_shapes(RESNETS[name], counters=False)
    assert backbones.torchvision_shapes(name) == expected


def test_values_and_layout(tiny):
    _, variables = resnet_variables(tiny, "state dict")
    block, statistics = variables["params"]["layer2_1"], variables["batch_stats"]["layer2_1"]
    np.testing.assert_array_equal(
        block["conv2"]["kernel"], tiny["layer2.1.conv2.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(block["bn3"]["scale"], tiny["layer2.1.bn3.weight"])
    np.testing.assert_array_equal(statistics["bn1"]["var"], tiny["layer2.1.bn1.running_var"])
    np.testing.assert_array_equal(
        variables["params"]["layer4_0"]["downsample_conv"]["kernel"][0, 0],
        tiny["layer4.0.downsample.0.weight"][:, :, 0, 0].T,
    )


def test_files_of_2016_have_no_counters(monkeypatch):
    monkeypatch.setitem(RESNETS, "tiny", TINY)
    name, _ = resnet_variables(random_state(TINY, counters=False), "state dict")
    assert name == "tiny"


def test_safetensors_file(tiny, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file({f"module.{name}": value for name, value in tiny.items()}, path)
    loaded = load_resnet(path)
    assert loaded.name == "tiny"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    image = jax.ShapeDtypeStruct((1, 33, 35, 3), np.float32)
    run = partial(loaded.module.apply, train=False)
    output, _ = jax.eval_shape(run, loaded.variables, image)
    assert output.shape == (1, 2, 2, 20)
    np.testing.assert_array_equal(
        loaded.variables["params"]["bn1"]["bias"], tiny["bn1.bias"].astype(np.float32)
    )


def test_all_differences_come_in_one_error(tiny):
    del tiny["layer1.0.bn2.running_mean"], tiny["fc.bias"]
    tiny["layer2.0.se.weight"] = np.zeros(3, np.float32)
    tiny["layer3.0.conv2.weight"] = np.zeros((4, 1, 3, 3), np.float32)
    tiny["fc.weight"] = np.zeros((1000, 7), np.float32)
    tiny["bn1.weight"] = np.full(4, np.inf, np.float32)
    with pytest.raises(CheckpointError) as caught:
        resnet_variables(tiny, "net.pth")
    message = str(caught.value)
    assert message.startswith("net.pth (tiny) does not fit the model: 2 missing: fc.bias, layer1.0")
    assert "1 unexpected: layer2.0.se.weight" in message
    assert "2 misshapen: fc.weight (1000, 7) instead of (None, 20)" in message
    assert "layer3.0.conv2.weight (4, 1, 3, 3) instead of (4, 4, 3, 3)" in message
    assert "1 not finite: bn1.weight" in message


def test_other_networks_are_refused(tiny):
    wide = {f"layer1.{i}.conv1.weight": np.zeros(1) for i in range(5)}
    with pytest.raises(CheckpointError, match=r"blocks \(5, 2, 1, 1\) .* resnet50 \(3, 4, 6, 3\)"):
        resnet_variables(tiny | wide, "net.pth")
    with pytest.raises(CheckpointError, match=r"vit\.pth: blocks \(\) in its stages"):
        resnet_variables({"cls_token": np.zeros(3)}, "vit.pth")
    with pytest.raises(CheckpointError, match=r"not an array: bn1\.bias, fc\.bias"):
        resnet_variables(tiny | {"bn1.bias": "text", "fc.bias": None}, "net.pth")


def test_the_hash_in_a_name_must_fit(tmp_path, monkeypatch, tiny):
    """As torch.hub checks it. A converted file under the same stem has another hash."""
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setattr(backbones, "read_state", lambda path: tiny)
    good = tmp_path / f"resnet101-{digest}.pth"
    good.write_bytes(content)
    assert load_resnet(good).name == "tiny"
    converted = tmp_path / "resnet101-5d3b4d8f.safetensors"
    converted.write_bytes(content)
    assert load_resnet(converted).name == "tiny"
    bad = tmp_path / "resnet101-5d3b4d8f.pth"
    bad.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"begins with {digest}, its name says 5d3b4d8f"):
        load_resnet(bad)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot be read \(No such file"):
        load_resnet(tmp_path / "none.pth")


@pytest.mark.torch
def test_every_stage_equals_torch(tmp_path):
    """An independent ResNet-50 of torch layers with torchvision's names, on an odd size."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, channels: int, width: int, stride: int, project: bool):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.downsample = nn.Sequential()
            if project:
                self.downsample.append(nn.Conv2d(channels, 4 * width, 1, stride, bias=False))
                self.downsample.append(nn.BatchNorm2d(4 * width))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = torch.relu(self.bn2(self.conv2(y)))
            return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))

    size = RESNETS["resnet50"]
    model = nn.Module()
    model.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    model.bn1 = nn.BatchNorm2d(64)
    channels = 64
    for stage, (width, blocks) in enumerate(zip(size.widths, size.blocks, strict=True), 1):
        layer = nn.Sequential()
        for i in range(blocks):
            stride = 2 if stage > 1 and i == 0 else 1
            layer.append(Bottleneck(channels, width, stride, i == 0))
            channels = 4 * width
        setattr(model, f"layer{stage}", layer)
    model.fc = nn.Linear(channels, 1000)
    state = random_state(size)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.eval()
    path = tmp_path / "resnet50.pth"
    torch.save(model.state_dict(), path)

    image = np.random.default_rng(1).normal(size=(1, 75, 97, 3)).astype(np.float32)
    expected = {}
    with torch.no_grad():
        x = torch.from_numpy(image.transpose(0, 3, 1, 2))
        x = torch.relu(model.bn1(model.conv1(x)))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(model, name)(x)
            expected[name] = x.numpy().transpose(0, 2, 3, 1)

    loaded = load_resnet(path)
    assert loaded.name == "resnet50"
    run = jax.jit(partial(loaded.module.apply, train=False))
    padded = np.full((1, 96, 128, 3), 3, np.float32)
    padded[:, :75, :97] = image
    for images, sizes in ((image, None), (padded, np.array([[75, 97]], np.int32))):
        _, taps = run(loaded.variables, images, sizes=sizes)
        for name, theirs in expected.items():
            ours = np.asarray(taps[name])[:, : theirs.shape[1], : theirs.shape[2]]
            assert np.isfinite(theirs).all()
            assert theirs.std() > 0.1
            assert np.abs(ours - theirs).max() <= 1e-4 * theirs.std(), name


@pytest.mark.parametrize("counters", [True, False])
def test_as_the_resnet_of_glpi(monkeypatch, tmp_path, counters):
    """Up to layer3; layer4 and the classifier are checked and left out."""
    monkeypatch.setitem(RESNETS, "tiny", TINY)
    size = dataclasses.replace(
        SIZES["glpi_demo"], stem=TINY.stem, widths=TINY.widths[:3], blocks=TINY.blocks[:3]
    )
    model = GLPI(size, 0.5)
    state = random_state(TINY, counters=counters)
    path = tmp_path / "tiny.safetensors"
    save_file(state, path)
    backbone = load_resnet_backbone(path, model)
    assert backbone.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    _, whole = resnet_variables(state, "state dict")
    for collection, tree in whole.items():
        expected = {name: part for name, part in tree.items() if not name.startswith("layer4")}
        ours = backbone.variables[collection]["clfe"]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, ours, expected)
        assert list(backbone.variables[collection]) == ["clfe"]
    assert backbone.carried.keys() == {name for name in carried_names(model) if is_count(name)}
    assert {int(count) for count in backbone.carried.values()} == {7 if counters else 0}

    save_file(state | {"layer4.0.bn1.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointError, match=r"1 misshapen: layer4\.0\.bn1\.weight \(3,\)"):
        load_resnet_backbone(path, model)
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"a tiny of blocks \(1, 2, 1, 1\) .* \(3, 4, 6\)"):
        load_resnet_backbone(path, GLPI(SIZES["glpi_ti16"], 0.5))
