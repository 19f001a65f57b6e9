"""The three forms of the weights in a hub folder."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glpi_jax.core.errors import GlpiError
from glpi_jax.hub.card import _FORM_NOTES, _LEFT_OUT, with_form
from glpi_jax.hub.weights_file import decode_weights, encode_weights


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(128, 96)).astype(np.float32)
    kernel[3] = 0  # a row without a largest weight
    kernel[5] *= 1000
    conv = rng.normal(size=(64, 32, 3, 3)).astype(np.float32)
    return {"a.weight": kernel, "b.weight": conv, "b.bias": rng.normal(size=64).astype("f4")}


def read(arrays, form, tmp_path):
    path = tmp_path / f"{form}.safetensors"
    path.write_bytes(encode_weights(arrays, form))
    return decode_weights(path)[0], path.stat().st_size


def test_float32_is_exact(arrays, tmp_path):
    found, _ = read(arrays, "float32", tmp_path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_float16_rounds_every_array(arrays, tmp_path):
    found, size = read(arrays, "float16", tmp_path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array.astype(np.float16))
    assert size < 0.52 * sum(array.nbytes for array in arrays.values())


def test_int8_is_off_by_half_a_step_of_its_row(arrays, tmp_path):
    found, size = read(arrays, "int8", tmp_path)
    assert found.keys() == arrays.keys()
    for name in ("a.weight", "b.weight"):
        flat, wanted = (x[name].reshape(len(x[name]), -1) for x in (found, arrays))
        step = np.abs(wanted).max(1, keepdims=True) / 127
        assert (np.abs(flat - wanted) <= 0.5001 * step).all()
        assert np.abs(flat - wanted).max() > 0
    np.testing.assert_array_equal(found["b.bias"], arrays["b.bias"])
    assert size < 0.3 * sum(array.nbytes for array in arrays.values())


def test_int8_without_its_scale_stays_int8_for_the_check(arrays, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_weights(arrays, "int8"))
    stored = load_file(path)
    del stored["a.weight.int8_scale"]
    stored["c.int8_scale"] = np.ones(2, np.float32)  # of no kernel
    save_file(stored, path)
    found, _ = decode_weights(path)
    assert found["a.weight"].dtype == np.int8
    assert "c.int8_scale" in found


def test_numbers_beyond_float16_are_refused():
    with pytest.raises(GlpiError, match=r"a\.weight: holds numbers beyond float16"):
        encode_weights({"a.weight": np.array([1e6], np.float32)}, "float16")


def test_unknown_form_is_refused(arrays):
    with pytest.raises(GlpiError, match="weights 'int4': choose one of float32, float16, int8"):
        encode_weights(arrays, "int4")


def test_a_kept_card_tells_the_form_of_the_weights():
    card = f"text {_LEFT_OUT}{_FORM_NOTES['float16']} more"
    assert with_form(card, "int8") == f"text {_LEFT_OUT}{_FORM_NOTES['int8']} more"
    assert with_form(card, "float32") == f"text {_LEFT_OUT} more"
    assert with_form("written by hand", "int8") == "written by hand"
