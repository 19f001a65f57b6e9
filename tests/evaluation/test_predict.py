import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.evaluation.predict import compile_scorer, predict
from glpi_jax.models.glpi import build
from glpi_jax.training.state import init_variables, key_of


def mean_of_pixels(calls):
    """A stand-in for the model: each crop's score is its first pixel."""

    def score_crops(variables, crops):
        calls.append(len(crops))
        return jnp.asarray(crops[:, 0, 0, 0], jnp.float32)

    return score_crops


def images_of(counts):
    """Image i has counts[i] crops whose first pixels are 10·i, 10·i + 1, …"""
    for i, count in enumerate(counts):
        crops = np.zeros((count, 4, 4, 3), np.uint8)
        crops[:, 0, 0, 0] = 10 * i + np.arange(count)
        yield f"image {i}", crops


@pytest.mark.parametrize("batch_size", [2, 4, 6, 100])
def test_crops_are_averaged_per_image_whatever_the_batches(batch_size):
    calls = []
    counts = [3, 1, 7, 2]
    results = list(
        predict(
            mean_of_pixels(calls), {}, images_of(counts), batch_size=batch_size, mesh=make_mesh(2)
        )
    )
    assert set(calls) == {batch_size}
    assert [key for key, _ in results] == [f"image {i}" for i in range(4)]
    for i, (_, prediction) in enumerate(results):
        scores = 10 * i + np.arange(counts[i])
        assert prediction.score == scores.mean()
        assert prediction.crop_std == pytest.approx(scores.std())


def test_no_images():
    assert list(predict(mean_of_pixels([]), {}, [], batch_size=2, mesh=make_mesh(2))) == []


def test_batch_size_must_fit_the_devices():
    with pytest.raises(GlpiError, match=r"config.evaluation.batch_size = 3"):
        list(predict(mean_of_pixels([]), {}, [], batch_size=3, mesh=make_mesh(2)))


def test_images_arrive_in_order_while_later_ones_are_read():
    """The first results come before the last image is asked for: memory stays bounded."""
    asked = []

    def images():
        for key, crops in images_of([2] * 20):
            asked.append(key)
            yield key, crops

    results = predict(mean_of_pixels([]), {}, images(), batch_size=4, mesh=make_mesh(2))
    assert next(results)[0] == "image 0"
    assert len(asked) <= 4


def test_scorer_normalises_pixels_as_the_official_transform():
    model = build("glpi_demo", dropout=0.5)
    variables = jax.jit(functools.partial(init_variables, model))(key_of(0))
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    ours = compile_scorer(model, make_mesh(2))(variables, crops)
    expected, _ = jax.jit(model.apply)(variables, (crops.astype(np.float32) / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
