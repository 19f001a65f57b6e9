"""benchmarks/dinov2_from_onnx.py on a graph as PyTorch exports it."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SCRIPT = Path(__file__).parents[2] / "benchmarks/dinov2_from_onnx.py"
D = 8


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("dinov2_from_onnx", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def graph(arrays, linear, path):
    """Write a model: named initializers, and linear layers whose kernels have numbers for names."""
    initial = dict(arrays)
    nodes = []
    for number, (node, kernel) in enumerate(linear.items()):
        initial[f"onnx::MatMul_{number}"] = kernel
        inputs = [f"x{number}", f"onnx::MatMul_{number}"]
        nodes.append(helper.make_node("MatMul", inputs, [f"y{number}"], name=node))
    tensors = [numpy_helper.from_array(array, name) for name, array in initial.items()]
    image = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, D])
    onnx.save(helper.make_model(helper.make_graph(nodes, "vit", [image], [], tensors)), path)


def draw(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def test_dinov2_has_the_names_and_axes_of_hugging_face(script, tmp_path):
    layer = "backbone.encoder.layer.0"
    arrays = {
        "backbone.embeddings.cls_token": draw(1, 1, D),
        f"{layer}.mlp.fc1.bias": draw(16),
        "decoder.upconv1.weight": draw(D, 4, 2, 2),  # no part of the ViT
        "onnx::Concat_7": draw(1, 1, D),
        "onnx::Reshape_9": draw(1, 9, D),
    }
    fc1, value = draw(D, 16), draw(D, D)
    linear = {
        "/backbone/encoder/layer.0/mlp/fc1/MatMul": fc1,
        "/backbone/encoder/layer.0/attention/attention/value/MatMul": value,
        "/decoder/out/MatMul": draw(D, D),
    }
    graph(arrays, linear, tmp_path / "vit.onnx")
    found = script.read_dinov2(tmp_path / "vit.onnx")
    wanted = {
        "embeddings.cls_token": arrays["backbone.embeddings.cls_token"],
        "embeddings.position_embeddings": np.concatenate(
            [arrays["onnx::Concat_7"], arrays["onnx::Reshape_9"]], 1
        ),
        "encoder.layer.0.mlp.fc1.bias": arrays[f"{layer}.mlp.fc1.bias"],
        "encoder.layer.0.mlp.fc1.weight": fc1.T,
        "encoder.layer.0.attention.attention.value.weight": value.T,
    }
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_graph_without_positions_is_refused(script, tmp_path):
    graph({"embeddings.cls_token": draw(1, 1, D)}, {}, tmp_path / "vit.onnx")
    with pytest.raises(SystemExit, match="no position embeddings"):
        script.read_dinov2(tmp_path / "vit.onnx")
