"""The whole ResNet on padded batches: the padding must not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from glpi_jax.models.layers import max_pool
from glpi_jax.models.resnet import IMAGENET_MEAN, IMAGENET_STD, ResNet, semantic_vectors

NETWORK = ResNet(
    stem=4, widths=(2, 3, 4, 5), blocks=(1, 2, 1, 1), inference_stages=(), dtype=jnp.float32
)


@pytest.fixture(scope="module")
def variables():
    """Random in every entry: biases and means lift the padding away from zero."""
    shapes = jax.eval_shape(
        lambda: NETWORK.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    )
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "var":
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan_in = max(1, leaf.size // leaf.shape[-1])
        return rng.normal(0.2, fan_in**-0.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def normalised(image: np.ndarray) -> np.ndarray:
    return ((image / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)).astype(np.float32)


SIZES = np.array([(33, 47), (1, 1), (64, 18)], np.int32)
# Images in the upper left corner, and noise around them.
BATCH = np.random.default_rng(1).integers(0, 256, (len(SIZES), 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def alone(variables):
    """The stages of each image without padding."""
    run = jax.jit(lambda image: NETWORK.apply(variables, image, False)[1])
    return [
        run(normalised(image[None, :height, :width]))
        for image, (height, width) in zip(BATCH, SIZES, strict=True)
    ]


def test_every_stage_is_that_of_the_image_alone(variables, alone):
    run = jax.jit(lambda images, sizes: NETWORK.apply(variables, images, False, sizes)[1])
    together = run(normalised(BATCH), SIZES)
    assert list(together) == ["layer1", "layer2", "layer3", "layer4"]
    for i, (height, width) in enumerate(SIZES):
        for name, expected in alone[i].items():
            rows, columns = expected.shape[1:3]
            stride = 2 ** (int(name[-1]) + 1)
            assert (rows, columns) == (-(-height // stride), -(-width // stride))
            np.testing.assert_allclose(
                together[name][i, :rows, :columns], expected[0], atol=1e-5, rtol=1e-5
            )


def test_semantic_vector_is_the_mean_over_the_image_at_unit_length(variables, alone):
    run = jax.jit(lambda images, sizes: semantic_vectors(NETWORK, variables, images, sizes))
    vectors = run(BATCH, SIZES)
    assert vectors.shape == (len(SIZES), 20)
    assert vectors.dtype == jnp.float32
    for vector, stages in zip(vectors, alone, strict=True):
        pooled = np.asarray(stages["layer4"], np.float64)[0].mean((0, 1))
        np.testing.assert_allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-5)


def test_semantic_vectors_take_full_precision_on_every_device(variables):
    """TPUs and GPUs compute in fewer bits unless told not to."""
    with jax.default_matmul_precision("default"):
        program = jax.make_jaxpr(lambda x, s: semantic_vectors(NETWORK, variables, x, s))(
            np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 2), np.int32)
        )
    products = [
        equation.params["precision"]
        for equation in program.eqns
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    assert len(products) == 1 + 5 * 3 + 4  # stem, three in each block, four projections
    assert set(products) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


def test_padded_images_have_no_batch_statistics(variables):
    with pytest.raises(ValueError, match="train needs sizes=None"):
        NETWORK.apply(
            variables,
            np.zeros((1, 32, 32, 3), np.float32),
            True,
            np.ones((1, 2), np.int32),
            mutable=["batch_stats"],
        )


@pytest.mark.parametrize("sides", [(7, 5), (8, 5), (1, 1), (3, 2)])
def test_max_pool_of_odd_sides(sides):
    x = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    expected = nn.max_pool(jnp.asarray(x), (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x), plain=False), expected)
