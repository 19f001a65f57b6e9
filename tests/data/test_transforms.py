import numpy as np
import pytest

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.transforms import (
    grid_crops,
    image_rng,
    pad_to_crop,
    random_crop,
    random_crops,
    random_flips,
    resize,
)


def positions(height: int, width: int) -> np.ndarray:
    """An image whose pixels hold their own (row, column)."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1)


def test_image_rng_is_fixed_by_name_and_seed() -> None:
    # Written down so that evaluation crops stay the same between versions.
    assert image_rng("a/b.png", 0).integers(1000, size=4).tolist() == [864, 155, 697, 617]
    draws = {
        tuple(image_rng(name, seed).integers(1000, size=4))
        for name in ("a.png", "b.png")
        for seed in (0, 1)
    }
    assert len(draws) == 4
    with pytest.raises(GlpiError, match="seed -1"):
        image_rng("a.png", -1)


def test_padding_mirrors_evenly() -> None:
    padded = pad_to_crop(positions(2, 9), 5)
    assert padded.shape == (5, 9, 3)
    assert padded[:, 0, 0].tolist() == [0, 0, 1, 1, 0]
    assert padded[0, :, 1].tolist() == list(range(9))


def test_padding_repeats_until_large_enough() -> None:
    image = np.array([[[7, 8, 9]]], np.uint8)
    np.testing.assert_array_equal(pad_to_crop(image, 224), np.broadcast_to(image, (224, 224, 3)))
    assert pad_to_crop(positions(3, 2), 12)[:, 0, 0].tolist() == [
        2,
        2,
        1,
        0,
        0,
        1,
        2,
        2,
        1,
        0,
        0,
        1,
    ]


def test_large_enough_image_is_untouched() -> None:
    image = positions(6, 7)
    assert pad_to_crop(image, 6) is image


def test_random_crop_reaches_every_position() -> None:
    image = positions(6, 5)
    rng = np.random.default_rng(0)
    corners = set()
    for _ in range(300):
        crop = random_crop(image, 4, rng)
        assert crop.shape == (4, 4, 3)
        top, left = crop[0, 0, :2].tolist()
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 4])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(2)}


def test_random_crop_of_smaller_image() -> None:
    assert random_crop(positions(1, 1), 8, np.random.default_rng(0)).shape == (8, 8, 3)


@pytest.mark.parametrize("horizontal", [0.0, 1.0])
@pytest.mark.parametrize("vertical", [0.0, 1.0])
def test_flips(horizontal: float, vertical: float) -> None:
    image = positions(3, 4)
    rng = np.random.default_rng(0)
    flipped = random_flips(image, horizontal=horizontal, vertical=vertical, rng=rng)
    expected = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    np.testing.assert_array_equal(flipped, expected)
    # What follows is independent of the probabilities.
    assert rng.random() == np.random.default_rng(0).random(3)[2]


def test_flip_probability_is_checked() -> None:
    with pytest.raises(GlpiError, match=r"vertical flip probability 1\.5"):
        random_flips(positions(2, 2), horizontal=0.5, vertical=1.5, rng=np.random.default_rng(0))


def test_random_crops() -> None:
    image = positions(40, 50)
    crops = random_crops(image, 8, 25, image_rng("a", 0))
    assert crops.shape == (25, 8, 8, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, random_crops(image, 8, 25, image_rng("a", 0)))
    assert len({tuple(crop[0, 0]) for crop in crops}) > 15


def test_grid_of_a_square_image() -> None:
    crops = grid_crops(positions(12, 12), 4, 9)
    corners = [tuple(crop[0, 0, :2].tolist()) for crop in crops]
    assert corners == [(top, left) for top in (0, 4, 8) for left in (0, 4, 8)]


@pytest.mark.parametrize("count", [1, 2, 5, 7, 13, 25])
@pytest.mark.parametrize(("height", "width"), [(30, 41), (41, 30), (8, 90), (8, 8), (3, 2)])
def test_grid_gives_exactly_count_inside_the_image(height: int, width: int, count: int) -> None:
    crops = grid_crops(positions(height, width), 8, count)
    assert crops.shape == (count, 8, 8, 3)
    if height >= 8 and width >= 8 and count > 1:
        # The long side is covered from edge to edge.
        axis = 0 if height > width else 1
        assert crops[..., axis].min() == 0
        assert crops[..., axis].max() == max(height, width) - 1


def test_grid_follows_the_room_to_move() -> None:
    """A strip as high as the crop gets one row, all crops distinct."""
    crops = grid_crops(positions(8, 30), 8, 10)
    assert len({tuple(crop[0, 0]) for crop in crops}) == 10


def test_single_grid_crop_is_centred() -> None:
    assert grid_crops(positions(10, 14), 4, 1)[0, 0, 0, :2].tolist() == [3, 5]


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resize(method: str) -> None:
    image = np.full((6, 8, 3), 90, np.uint8)
    resized = resize(image, 4, 3, method=method)  # type: ignore[arg-type]
    np.testing.assert_array_equal(resized, np.full((4, 3, 3), 90, np.uint8))


def test_resize_methods_differ() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    bilinear = resize(image, 20, 20, method="bilinear")
    assert (bilinear != resize(image, 20, 20, method="bicubic")).any()


def test_resize_errors() -> None:
    with pytest.raises(GlpiError, match="resize to 0×3"):
        resize(positions(4, 4), 0, 3, method="bilinear")
    with pytest.raises(GlpiError, match="bilinear, bicubic"):
        resize(positions(4, 4), 2, 3, method="nearest")  # type: ignore[arg-type]


def test_count_and_crop_are_checked() -> None:
    for make in (
        lambda: random_crops(positions(4, 4), 2, 0, np.random.default_rng(0)),
        lambda: grid_crops(positions(4, 4), 2, 0),
    ):
        with pytest.raises(GlpiError, match="0 crops an image"):
            make()
    with pytest.raises(GlpiError, match="crop 0"):
        pad_to_crop(positions(4, 4), 0)
