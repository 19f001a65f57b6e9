"""DnCNN as a denoiser for type 15, with weights that the user supplies.

K. Zhang et al., "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising"
(IEEE TIP 2017), in the layouts of the authors' KAIR repository (`models/network_dncnn.py`, act_mode
"R": batch normalisation merged into the convolutions): 3x3 convolutions with ReLU between them
estimate the noise. Importing this module starts JAX.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.weights.torch_files import CheckpointError, read_state

Layer = tuple[np.ndarray, np.ndarray]

_FEATURES = 64
# Names of KAIR's files by number of convolutions and channels.
_LAYOUTS = {
    (17, 1): "dncnn_15, dncnn_25, dncnn_50",
    (20, 1): "dncnn_gray_blind",
    (20, 3): "dncnn_color_blind",
}


@jax.jit
def _without_noise(layers: Sequence[tuple[jax.Array, jax.Array]], images: jax.Array) -> jax.Array:
    """Images (B, H, W, C) less the noise that the convolutions find, with ReLU between them."""
    noise = images
    for number, (kernel, bias) in enumerate(layers):
        noise = jax.lax.conv_general_dilated(
            jax.nn.relu(noise) if number > 0 else noise,
            kernel,
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        noise += bias[None, None, None]
    return images - noise


@dataclass(frozen=True)
class DnCNNDenoiser:
    """A DnCNN as `glpi_jax.distortions.Denoiser`; it is blind to the variance.

    A network of one channel denoises each colour channel alone, as the original does.

    Attributes:
        layers: kernel (3, 3, in, out) and bias (out,) of each convolution, float32.
        identity: number of layers and channels, and the file's SHA-256.
    """

    layers: tuple[Layer, ...]
    identity: str

    def __call__(self, noisy: FloatImage, variance: float) -> FloatImage:
        """Image (H, W, 3) without the noise, unclipped; each new image size is compiled once."""
        if self.layers[0][0].shape[2] == 3:
            return np.asarray(_without_noise(self.layers, noisy[None]))[0]
        planes = np.moveaxis(noisy, -1, 0)[..., None]
        return np.moveaxis(np.asarray(_without_noise(self.layers, planes))[..., 0], 0, -1)


def load_dncnn(path: str | Path) -> DnCNNDenoiser:
    """Read the weights of a KAIR DnCNN; which layout it is follows from the file.

    Args:
        path: .pth or .pt (these need PyTorch) or .safetensors with the names of KAIR's files,
            `model.0.weight`, `model.0.bias`, `model.2.weight` and so on.

    Returns:
        the denoiser; its `identity` holds the layout and the file's SHA-256.

    Raises:
        CheckpointError: (a GlpiError) unreadable file, no known layout, or entries missing,
            unexpected, misshapen or not finite.
    """
    path = Path(path)
    state = {name: _to_numpy(value, name, path) for name, value in read_state(path).items()}
    depth, channels = _layout(state, path)
    sizes = [channels, *[_FEATURES] * (depth - 1), channels]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        shapes[f"model.{2 * layer}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"model.{2 * layer}.bias"] = (outputs,)
    problems = []
    for name, shape in shapes.items():
        if name not in state:
            problems.append(f"{name} is missing")
        elif state[name].shape != shape:
            problems.append(f"{name} has shape {state[name].shape} instead of {shape}")
        elif not np.isfinite(state[name]).all():
            problems.append(f"{name} is not finite")
    problems += [f"{name} is unexpected" for name in sorted(state.keys() - shapes.keys())]
    if problems:
        raise CheckpointError(f"{path} does not fit DnCNN: {'; '.join(problems)}")
    layers = []
    for layer in range(depth):
        kernel = state[f"model.{2 * layer}.weight"].transpose(2, 3, 1, 0)
        layers.append((np.ascontiguousarray(kernel), state[f"model.{2 * layer}.bias"]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = f"DnCNN of {depth} layers and {channels} channel(s), weights SHA-256 {digest}"
    return DnCNNDenoiser(tuple(layers), identity)


def _to_numpy(value: Any, name: str, path: Path) -> np.ndarray:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise CheckpointError(f"{path}: {name} is not an array of numbers")
    return array.astype(np.float32)


def _layout(state: Mapping[str, np.ndarray], path: Path) -> tuple[int, int]:
    """Number of convolutions and channels, from the number of weights and the first one's shape."""
    depth = sum(name.endswith(".weight") for name in state)
    first = state.get("model.0.weight")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 0
    if (depth, channels) not in _LAYOUTS:
        known = "; ".join(f"{d} of {c}: {names}" for (d, c), names in _LAYOUTS.items())
        raise CheckpointError(
            f"{path}: not a KAIR DnCNN: it has {depth} weights and model.0.weight takes {channels} "
            f"channels; known are ({known})"
        )
    return depth, channels
