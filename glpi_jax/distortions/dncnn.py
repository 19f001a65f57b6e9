"""DnCNN as a denoiser for type 15, with weights that the user supplies.

K. Zhang et al., "Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising"
(IEEE TIP 2017), in the layouts of the authors' KAIR repository (`models/network_dncnn.py`, act_mode
"R": batch normalisation merged into the convolutions). Importing this module starts JAX.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.weights.torch_files import CheckpointError, read_state

_FEATURES = 64
# Names of KAIR's files by number of convolutions and channels.
_LAYOUTS = {
    (17, 1): "dncnn_15, dncnn_25, dncnn_50",
    (20, 1): "dncnn_gray_blind",
    (20, 3): "dncnn_color_blind",
}


class DnCNN(nn.Module):
    """The network: `depth` 3x3 convolutions with ReLU between them, which estimate the noise.

    Images (B, H, W, channels) in 0..1, float32, to images of the same shape without the noise,
    unclipped.
    """

    depth: int
    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Subtract the estimated noise."""
        x = images
        for layer in range(self.depth):
            last = layer == self.depth - 1
            x = nn.Conv(
                self.channels if last else _FEATURES,
                (3, 3),
                padding="SAME",
                precision=jax.lax.Precision.HIGHEST,
                name=f"conv_{layer}",
            )(x)
            x = x if last else nn.relu(x)
        return images - x


@partial(jax.jit, static_argnums=0)
def _apply(network: DnCNN, params: Mapping[str, Any], images: jax.Array) -> jax.Array:
    denoised = network.apply({"params": params}, images)
    assert isinstance(denoised, jax.Array)  # not a pair with changed variables
    return denoised


@dataclass(frozen=True)
class DnCNNDenoiser:
    """A DnCNN as `glpi_jax.saqt.Denoiser`; it is blind to the variance.

    A network of one channel denoises each colour channel alone, as the original does.
    """

    network: DnCNN
    params: dict[str, dict[str, np.ndarray]]
    identity: str

    def __call__(self, noisy: FloatImage, variance: float) -> FloatImage:
        """Image (H, W, 3) without the noise, unclipped; each new image size is compiled once."""
        # (1, H, W, 3), or the channels as images (3, H, W, 1).
        images = noisy[None] if self.network.channels == 3 else np.moveaxis(noisy, -1, 0)[..., None]
        denoised = np.asarray(_apply(self.network, self.params, images))
        return denoised[0] if self.network.channels == 3 else np.moveaxis(denoised[..., 0], 0, -1)


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
    params: dict[str, dict[str, np.ndarray]] = {}
    problems = []
    for layer in range(depth):
        inputs = channels if layer == 0 else _FEATURES
        outputs = channels if layer == depth - 1 else _FEATURES
        shapes = {"weight": (outputs, inputs, 3, 3), "bias": (outputs,)}
        entry = {}
        for kind, shape in shapes.items():
            name = f"model.{2 * layer}.{kind}"
            array = state.pop(name, None)
            if array is None:
                problems.append(f"{name} is missing")
            elif array.shape != shape:
                problems.append(f"{name} has shape {array.shape} instead of {shape}")
            elif not np.isfinite(array).all():
                problems.append(f"{name} is not finite")
            else:
                entry[kind] = array
        if len(entry) == 2:
            kernel = np.ascontiguousarray(entry["weight"].transpose(2, 3, 1, 0))
            params[f"conv_{layer}"] = {"kernel": kernel, "bias": entry["bias"]}
    problems += [f"{name} is unexpected" for name in sorted(state)]
    if problems:
        raise CheckpointError(f"{path} does not fit DnCNN: {'; '.join(problems)}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = f"DnCNN of {depth} layers and {channels} channel(s), weights SHA-256 {digest}"
    return DnCNNDenoiser(DnCNN(depth, channels), params, identity)


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
