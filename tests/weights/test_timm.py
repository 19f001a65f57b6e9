"""The modules themselves that published weights are made for: timm's ViT, torchvision's ResNet."""

import warnings

import jax
import numpy as np
import pytest
from flax import traverse_util

from glpi_jax.models.glpi import SIZES, build
from glpi_jax.models.vit import ViT
from glpi_jax.weights.backbones import load_resnet, load_vit_backbone, torchvision_shapes
from glpi_jax.weights.torch_names import to_flax_layout, to_torch_name

pytestmark = pytest.mark.torch

SIZE = SIZES["glpi_ti16"]
# Of the golden's kind: the largest difference, in standard deviations of what is compared.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def torchvision():
    """torchvision without its compiled operators, which PyPI's wheel for other PyTorches lacks."""
    import torch

    try:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:  # they are there
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchvision
    return torchvision


@pytest.fixture(scope="module")
def timm(torchvision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
    return timm


def randomised(module):
    """A module in evaluation mode with random weights, BatchNorm's statistics included."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and value.ndim < 2:
                value.add_(0.1 * torch.randn_like(value))
    return module.eval()


def images(height, width):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, height, width, 3)).astype(np.float32)


def nchw(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))


def assert_close(found, expected):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= TOLERANCE * expected.std()


def test_every_block_and_the_logits_of_timms_vit(timm, tmp_path):
    import torch
    from safetensors.torch import save_file

    # Logits from the mean over the patches: the Flax trunk does not hand out the class token.
    name = "vit_tiny_patch16_224"
    module = randomised(timm.create_model(name, pretrained=False, global_pool="avg"))
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    trunk = ViT(
        dim=SIZE.dim,
        heads=SIZE.heads,
        mlp_hidden=SIZE.mlp_hidden,
        patch=SIZE.patch,
        taps=tuple(range(12)),
        dtype=np.float32,
    )
    x = images(224, 224)
    shapes = traverse_util.flatten_dict(jax.eval_shape(trunk.init, jax.random.key(0), x))
    params = {}
    for path in shapes:
        entry, layout = to_torch_name("params", "/".join(("vgfe", *path[1:])))
        params[path] = to_flax_layout(state[entry.removeprefix("vgfe.backbone.")], layout)
    last, taps = jax.jit(trunk.apply)(traverse_util.unflatten_dict(params), x)
    with torch.no_grad():
        blocks = module.forward_intermediates(
            nchw(x), intermediates_only=True, output_fmt="NLC", norm=False
        )
        logits = module(nchw(x)).numpy()
    assert len(blocks) == len(taps) == 12
    for number, block in enumerate(blocks):
        assert_close(taps[f"block_{number}"], block)
    pooled = torch.from_numpy(np.asarray(last).mean(1))
    with torch.no_grad():
        assert_close(module.head(module.fc_norm(pooled)).numpy(), logits)

    # The file of the published form, whose final norm has another name.
    published = timm.create_model(name, pretrained=False)
    save_file(published.state_dict(), tmp_path / "vit.safetensors")
    loaded = load_vit_backbone(tmp_path / "vit.safetensors", build("glpi_ti16", dropout=0.0))
    kernel = loaded.variables["params"]["vgfe"]["blocks_9"]["mlp"]["fc2"]["kernel"]
    expected = published.state_dict()["blocks.9.mlp.fc2.weight"].numpy().T
    np.testing.assert_array_equal(kernel, expected)


def test_every_stage_and_the_logits_of_torchvisions_resnet(timm, torchvision, tmp_path):
    import torch

    module = randomised(torchvision.models.resnet50(weights=None))
    # timm publishes the same weights under the same names.
    assert timm.create_model("resnet50").state_dict().keys() == module.state_dict().keys()
    path = tmp_path / "resnet50.pth"
    torch.save(module.state_dict(), path)
    loaded = load_resnet(path)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    counts = {name for name in shapes if name.endswith("num_batches_tracked")}
    assert torchvision_shapes("resnet50") == {name: shapes[name] for name in shapes.keys() - counts}
    x = images(97, 75)
    features, taps = jax.jit(lambda v, x: loaded.module.apply(v, x, False))(loaded.variables, x)
    with torch.no_grad():
        y = module.maxpool(module.relu(module.bn1(module.conv1(nchw(x)))))
        for stage in (1, 2, 3, 4):
            y = getattr(module, f"layer{stage}")(y)
            assert_close(taps[f"layer{stage}"], y.numpy().transpose(0, 2, 3, 1))
        pooled = torch.from_numpy(np.asarray(features).mean((1, 2)))
        assert_close(module.fc(pooled).numpy(), module(nchw(x)).numpy())
