"""The one function between decoding and cropping: sizes, forms of a config, JSON."""

import json

import numpy as np
import pytest

from glpi_jax.core.config import load_config, to_plain
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import ImageError
from glpi_jax.data.preprocessing import MAX_PIXELS, Preprocessing
from glpi_jax.data.transforms import resize


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def preprocessing(*size):
    return Preprocessing(size, "bilinear", apply_orientation=False)


def from_config(plan_run, *overrides):
    config = load_config(plan_run.config[1], [f"--config.data.{each}" for each in overrides])
    return Preprocessing.of_section(config.data, "config.data")


@pytest.mark.parametrize(
    ("size", "before", "after"),
    [
        ((), (30, 40), (30, 40)),
        ((20, 10), (30, 40), (20, 10)),
        ((15,), (30, 40), (15, 20)),
        ((15,), (40, 30), (20, 15)),
        ((60,), (30, 40), (30, 40)),
        ((35,), (30, 40), (30, 40)),
        ((30,), (30, 30), (30, 30)),
        ((3,), (7, 10), (3, 4)),  # 4.29
        ((3,), (7, 11), (3, 5)),  # 4.71
        ((1,), (2, 3), (1, 2)),  # 1.5, up
        ((7,), (9, 9), (7, 7)),
    ],
)
def test_size_of_each_form(size, before, after):
    assert preprocessing(*size).size_of(*before) == after


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resized_uses_the_antialiased_filter(picture, method):
    exact = Preprocessing((20, 10), method, apply_orientation=False)
    shorter = Preprocessing((15,), method, apply_orientation=False)
    np.testing.assert_array_equal(
        exact.resized(picture, "a"), resize(picture, 20, 10, method=method)
    )
    np.testing.assert_array_equal(
        shorter.resized(picture, "a"), resize(picture, 15, 20, method=method)
    )


def test_resized_twice_changes_nothing_more(picture):
    for size in ((), (20, 10), (17,)):
        once = preprocessing(*size).resized(picture, "a")
        assert preprocessing(*size).resized(once, "a") is once


def test_resize_to_a_huge_size_is_refused_by_name(picture):
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ImageError, match=r"a\.png: would be resized to .* pixels, the most is"):
        preprocessing(side, side).resized(picture, "a.png")


def test_config_forms_are_read(plan_run):
    assert from_config(plan_run) == preprocessing()
    assert from_config(plan_run, "resize=(384,512)") == preprocessing(384, 512)
    assert from_config(plan_run, "resize=(384,)") == preprocessing(384)
    assert from_config(plan_run, "resize=384") == preprocessing(384)
    turned = from_config(plan_run, "resize_method=bicubic", "apply_orientation=true")
    assert turned == Preprocessing((), "bicubic", apply_orientation=True)


@pytest.mark.parametrize("wrong", ["(1,2,3)", "(0,)", "(0,5)", "('a','b')", "(1.5,2)", "(-7,)"])
def test_config_resize_of_another_form_names_the_key(plan_run, wrong):
    with pytest.raises(GlpiError, match=r"^config\.data\.resize = .*\(side,\) or \(height, width"):
        from_config(plan_run, f"resize={wrong}")


def test_truth_is_no_size():
    with pytest.raises(GlpiError, match="resize = "):
        preprocessing(True)


def test_unknown_method_names_the_key(plan_run):
    with pytest.raises(GlpiError, match=r"^config\.data\.resize_method = 'area': choose one of"):
        from_config(plan_run, "resize_method=area")


def test_json_and_saved_config_give_the_same(plan_run):
    config = load_config(plan_run.config[1], ["--config.data.resize=(7,)"])
    made = Preprocessing.of_section(config.data, "config.data")
    saved = json.loads(json.dumps(to_plain(config)))
    assert Preprocessing.of_section(saved["data"], "config.data") == made
    assert Preprocessing.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_words_describe_it():
    assert preprocessing().words == "size kept, EXIF orientation not applied"
    assert preprocessing(96, 128).words == (
        "resized to height 96 and width 128 pixels, bilinear, EXIF orientation not applied"
    )
    turned = Preprocessing((96,), "bicubic", apply_orientation=True)
    assert turned.words == (
        "shorter side reduced to at most 96 pixels, bicubic, EXIF orientation applied"
    )
