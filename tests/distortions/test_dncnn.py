"""DnCNN as denoiser: the network against its definition, and weights read strictly."""

import hashlib
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import distort
from glpi_jax.distortions.dncnn import load_dncnn


def kair_state(depth, channels):
    """Random weights under KAIR's names, of a size that keeps the activations about 1."""
    rng = np.random.default_rng(depth + channels)
    state = {}
    for layer in range(depth):
        inputs = channels if layer == 0 else 64
        outputs = channels if layer == depth - 1 else 64
        weight = rng.standard_normal((outputs, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        state[f"model.{2 * layer}.weight"] = weight.astype(np.float32)
        state[f"model.{2 * layer}.bias"] = (0.1 * rng.standard_normal(outputs)).astype(np.float32)
    return state


def by_definition(image, state):
    """Image (H, W, C) less the noise that the convolutions find in it, in float64."""
    x = np.moveaxis(image.astype(np.float64), -1, 0)
    depth = len(state) // 2
    for layer in range(depth):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        x = np.einsum("ihwkl,oikl->ohw", windows, state[f"model.{2 * layer}.weight"])
        x += state[f"model.{2 * layer}.bias"][:, None, None]
        if layer < depth - 1:
            x = np.maximum(x, 0)
    return image - np.moveaxis(x, 0, -1)


def saved(folder, state, name="weights.safetensors"):
    save_file(state, folder / name)
    return folder / name


NOISY = np.random.default_rng(0).random((9, 11, 3), dtype=np.float32)


@pytest.mark.parametrize(("depth", "channels"), [(17, 1), (20, 1), (20, 3)])
def test_network_is_that_of_the_definition(tmp_path, depth, channels):
    state = kair_state(depth, channels)
    denoised = load_dncnn(saved(tmp_path, state))(NOISY, 0.01)
    if channels == 3:
        expected = by_definition(NOISY, state)
    else:
        planes = [by_definition(NOISY[..., k : k + 1], state) for k in range(3)]
        expected = np.concatenate(planes, axis=-1)
    assert denoised.shape == NOISY.shape
    assert np.abs(expected - NOISY).max() > 0.3
    np.testing.assert_allclose(denoised, expected, atol=2e-5)


def test_identity_is_the_files_digest_and_survives_a_process_border(tmp_path):
    path = saved(tmp_path, kair_state(17, 1))
    denoiser = load_dncnn(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert denoiser.identity == f"DnCNN of 17 layers and 1 channel(s), weights SHA-256 {digest}"
    copy = pickle.loads(pickle.dumps(denoiser))
    assert copy.identity == denoiser.identity
    np.testing.assert_array_equal(copy(NOISY, 0.1), denoiser(NOISY, 0.1))


def test_as_denoiser_of_type_15(tmp_path):
    """Weights of 0 find no noise; a bias at the end is taken off everywhere."""
    state = {name: np.zeros_like(value) for name, value in kair_state(17, 1).items()}
    state["model.32.bias"][:] = 0.2
    denoiser = load_dncnn(saved(tmp_path, state))
    np.testing.assert_allclose(denoiser(NOISY, 0.1), NOISY - 0.2, atol=1e-7)
    image = (255 * NOISY).astype(np.uint8)
    made = distort(image, 15, 1, rng=np.random.default_rng(0), denoiser=denoiser)
    assert (made == 0).mean() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.4.bias"), r"does not fit DnCNN: model\.4\.bias is missing"),
        (lambda s: s.update({"model.4.bias": s["model.4.bias"][:9]}), r"shape \(9,\) instead of"),
        (lambda s: s["model.6.weight"].__setitem__(0, np.nan), r"model\.6\.weight is not finite"),
        (lambda s: s.update({"extra.bias": np.zeros(3, np.float32)}), r"extra\.bias is unexpected"),
        (lambda s: s.pop("model.4.weight"), r"has 16 weights .* takes 1 channels; known are \(17"),
        (lambda s: s.pop("model.0.weight"), "takes 0 channels"),
        (lambda s: s.update({"model.0.weight": s["model.0.weight"][0]}), "takes 0 channels"),
    ],
)
def test_other_weights_are_refused(tmp_path, change, message):
    state = kair_state(17, 1)
    change(state)
    with pytest.raises(GlpiError, match=rf"weights\.safetensors.*{message}"):
        load_dncnn(saved(tmp_path, state))


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(GlpiError, match="no such checkpoint file"):
        load_dncnn(tmp_path / "dncnn_25.pth")
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(GlpiError, match="not a readable safetensors file"):
        load_dncnn(tmp_path / "a.safetensors")
