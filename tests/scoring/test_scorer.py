"""Scores from Python: every kind of image, one or many, in one compiled program."""

import io
import itertools
import math
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import glpi_jax
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.transforms import grid_crops, image_rng, random_crops
from glpi_jax.scoring import PAPER_CROPS, Crops, ImageScore, Problem, reading
from glpi_jax.scoring.reading import MemoryBudget

ROUNDING = 1e-6  # float32, summed in blocks that depend on the place in a batch


def assert_same_but_name(result, expected):
    """Numbers up to rounding."""
    for key, value in vars(expected).items():
        if isinstance(value, float):
            assert getattr(result, key) == pytest.approx(value, rel=ROUNDING, abs=ROUNDING)
        elif key != "image":
            assert getattr(result, key) == value


def test_every_kind_of_image_gives_the_same_score(scorer, save, make_pixels):
    path = save("a.png", 100, 130)
    with Image.open(path) as picture:
        results = scorer.score([path, str(path), path.read_bytes(), picture, make_pixels(100, 130)])
    assert [result.image for result in results] == [
        str(path), str(path), "image 2", str(path), "image 4"
    ]  # fmt: skip
    assert isinstance(results[0].score, float)
    for result in results:
        assert_same_but_name(result, results[0])


def test_a_single_image_gives_a_single_result(scorer, save, make_pixels):
    path = save("a.png", 100, 130)
    (expected,) = scorer.score([path])
    for single in (path, str(path), path.read_bytes(), make_pixels(100, 130)):
        assert_same_but_name(scorer.score(single), expected)
    batch = np.stack([make_pixels(80, 90)] * 3)
    assert len(scorer.score(batch)) == len(scorer.score(jnp.asarray(batch))) == 3
    assert scorer.score([]) == []


def test_one_image_is_one_for_score_iter_too(scorer, save, make_pixels):
    """Not the letters of a path, the lines of a file or the rows of an array."""
    path = save("a.png", 100, 130)
    expected = scorer.score(path)
    for single in (str(path), path.read_bytes(), make_pixels(100, 130)):
        (result,) = scorer.score_iter(single)
        assert_same_but_name(result, expected)


def test_open_files_buffers_and_jax_arrays(scorer, save, make_pixels):
    path = save("a.png", 100, 130)
    expected = scorer.score(path)
    content = path.read_bytes()
    with open(path, "rb") as file:
        assert_same_but_name(scorer.score(file), expected)
        file.seek(0)
        buffers = [file, io.BytesIO(content), bytearray(content), memoryview(content)]
        results = scorer.score([*buffers, jnp.asarray(make_pixels(100, 130))])
        file.seek(0)
        assert scorer.quality_map(file).image.shape == (100, 130, 3)
    assert [result.image for result in results] == [
        str(path), "image 1", "image 2", "image 3", "image 4"
    ]  # fmt: skip
    others = [io.BytesIO(content), *buffers[2:], jnp.asarray(make_pixels(100, 130))]
    for result in (*results, *map(scorer.score, others)):
        assert_same_but_name(result, expected)
    with open(path, encoding="latin-1") as text, pytest.raises(TypeError, match=r"a\.png: .* 'rb'"):
        scorer.score(text)


def test_a_result_is_the_mean_of_its_crops_with_their_spread(scorer, make_pixels):
    image = make_pixels(200, 150)
    result = scorer.score(image)
    alone = [
        scorer.score(crop).score for crop in grid_crops(image, scorer.crop, scorer.crops.count)
    ]
    assert result.crops == scorer.crops.count == 16
    assert result.score == pytest.approx(np.mean(alone), abs=1e-5)
    assert result.crop_std == pytest.approx(np.std(alone), abs=1e-5)
    assert result.standard_error == pytest.approx(np.std(alone, ddof=1) / 4, abs=1e-5)


def test_one_crop_has_no_standard_error(make_pixels):
    result = glpi_jax.load(crops=1).score(make_pixels(100, 100))
    assert (result.crops, result.crop_std, result.standard_error) == (1, 0.0, None)


def test_grey_and_transparent_arrays(scorer, make_pixels):
    grey = make_pixels(90, 90)[:, :, 0]
    colors = np.repeat(grey[:, :, None], 3, axis=2)
    seen = np.dstack([colors, np.full_like(grey, 255)])
    gone = np.dstack([colors, np.zeros_like(grey)])
    white = np.full_like(colors, 255)
    scores = [r.score for r in scorer.score([colors, grey, grey[:, :, None], seen, gone, white])]
    assert scores[:4] == pytest.approx([scores[0]] * 4, abs=1e-5)
    assert scores[4] == pytest.approx(scores[5], abs=1e-5)
    assert abs(scores[4] - scores[0]) > 0.01


def test_pillow_images_of_any_mode(scorer, make_pixels):
    image = Image.fromarray(make_pixels(90, 90))
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "1"):
        result = scorer.score(image.convert(mode))
        assert math.isfinite(result.score), mode
    assert "no agreed white level" in scorer.score(image.convert("F")).error


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "NoneType is no image"),
        (7, "int is no image"),
        (io.StringIO("x"), "a file opened as text; open it with 'rb'"),
        (
            np.zeros((80, 80, 3), np.float32),
            r"an array of float32 with shape .*: multiply by 255 and \.astype\(numpy\.uint8\)",
        ),
        (np.zeros((80, 80, 2), np.uint8), r"with shape \(80, 80, 2\)"),
    ],
)
def test_what_is_no_image_is_a_mistake_of_the_caller(scorer, wrong, words):
    for images in (wrong, [wrong]):
        with pytest.raises(TypeError, match=f"image 0: .*{words}"):
            scorer.score(images)


def test_errors_take_their_place_and_stop_nothing(scorer, save, tmp_path):
    good = save("good.png", 70, 70)
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    sources = [tmp_path / "bad.png", good, Problem("x", "x: is nothing"), good, tmp_path / "no"]
    results = scorer.score(sources)
    assert [result.error is None for result in results] == [False, True, False, True, False]
    assert results[2] == ImageScore("x", error="x: is nothing")
    assert results[1].image == results[3].image
    assert results[1].score == pytest.approx(results[3].score, rel=ROUNDING)


def test_errors_come_out_however_many_there_are(scorer, make_pixels):
    """Not only with the next full batch, for which a run of bad files would wait for ever."""
    asked = itertools.count()

    def sources():
        for _ in asked:
            yield Problem("x", "x: bad")

    results = scorer.score_iter(itertools.chain([make_pixels(70, 70)], sources()))
    first, *rest = itertools.islice(results, 500)
    results.close()
    assert first.score is not None
    assert all(result.error for result in rest)
    assert next(asked) < 700


def test_a_generator_is_asked_for_a_few_at_a_time(scorer, make_pixels):
    image = make_pixels(70, 70)
    asked = itertools.count()
    results = scorer.score_iter(image for _ in asked)
    taken = list(itertools.islice(results, 100))
    results.close()
    assert len(taken) == 100
    assert next(asked) < 150


def test_an_image_in_memory_may_change_when_the_next_is_asked_for(scorer, make_pixels):
    first, second = make_pixels(80, 80), make_pixels(80, 80)[::-1].copy()
    expected = [result.score for result in scorer.score([first, second])]

    def reused():
        buffer = first.copy()
        yield buffer
        buffer[:] = second
        yield buffer

    assert [result.score for result in scorer.score(reused())] == expected


def test_threads_end_with_the_generator(scorer, save):
    before = set(threading.enumerate())
    results = scorer.score_iter(itertools.repeat(save("a.png", 70, 70)))
    next(results)
    readers = {
        thread
        for thread in set(threading.enumerate()) - before
        if thread.name.startswith("glpi-read")
    }
    assert readers
    results.close()
    for thread in readers:
        thread.join(60)
        assert not thread.is_alive()


def test_an_error_of_the_generator_is_the_callers(scorer, make_pixels):
    def broken():
        yield make_pixels(70, 70)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        scorer.score(broken())


def test_all_sizes_run_in_one_compiled_program(save, make_pixels):
    scorer = glpi_jax.load()
    sizes = [(64, 64), (70, 333), (401, 90), (20, 30), (300, 300), (16, 500)]
    results = scorer.score([make_pixels(*size) for size in sizes * 3])
    assert all(result.score is not None for result in results)
    scorer.score(save("a.png", 99, 77))
    scorer.quality_map(make_pixels(150, 130))
    assert scorer._score_crops._cache_size() == 1


def test_exif_orientation_is_honoured(scorer, save, make_pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save("turned.png", 90, 150, exif=exif)
    assert scorer.score(turned).score == scorer.score(np.rot90(make_pixels(90, 150), -1)).score
    assert scorer.score(turned).score != scorer.score(make_pixels(90, 150)).score


def test_an_animation_is_noted(scorer, tmp_path, make_pixels):
    frames = [Image.fromarray(image) for image in (make_pixels(80, 80), make_pixels(80, 80)[::-1])]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    result = scorer.score(tmp_path / "a.png")
    assert result.note == "animated: the first frame is scored"
    assert result.score == scorer.score(make_pixels(80, 80)).score


def test_the_direction_and_range_are_told(scorer):
    assert (scorer.higher_is_better, scorer.lower_better) == (True, False)
    assert scorer.score_range == (1.0, 5.0)
    assert scorer.scale == "DMOS, 1 to 5, higher is better"


# Crops


def test_random_crops_follow_file_name_and_seed(save, tmp_path, make_pixels):
    path = save("deep/a.png", 150, 150)
    scorer = glpi_jax.load(crops=25, placement="random")
    assert scorer.crops == PAPER_CROPS
    first = scorer.score(path)
    same = save("elsewhere/a.png", 150, 150)
    other = save("deep/b.png", 150, 150)
    assert scorer.score(path).score == first.score == scorer.score(same).score
    assert scorer.score(other).score != first.score
    reseeded = glpi_jax.load(crops=25, placement="random", seed=1)
    assert reseeded.score(path).score != first.score
    array = make_pixels(150, 150)
    beside = scorer.score([other, array.copy()])[1].score
    assert scorer.score(array).score == pytest.approx(beside, rel=ROUNDING)
    assert scorer.score(array[::-1]).score != scorer.score(array).score


def test_random_crops_are_those_of_the_evaluation(make_pixels):
    image = make_pixels(150, 150)
    cut = Crops(5, "random", 3).cut(image, 64, "photo.jpg")
    np.testing.assert_array_equal(cut, random_crops(image, 64, 5, image_rng("photo.jpg", 3)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crops": 0}, "crops 0: must be 1 to 1024"),
        ({"placement": "everywhere"}, "crop placement 'everywhere': must be grid or random"),
        ({"placement": "random", "seed": -1}, "seed -1: must not be negative"),
        ({"seed": 7}, "seed 7: is for random placement; a grid is always the same"),
    ],
)
def test_crops_out_of_range(options, words):
    with pytest.raises(GlpiError, match=words):
        glpi_jax.load(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crops": 2.5}, "crops 2.5: must be a whole number, not float"),
        ({"crops": "9"}, "crops '9': must be a whole number, not str"),
        ({"placement": "random", "seed": "1"}, "seed '1': must be a whole number, not str"),
        ({"source": 3}, "source 3: must be a path or hf://owner/name, not int"),
    ],
)
def test_arguments_of_other_types(options, words):
    with pytest.raises(TypeError, match=words):
        glpi_jax.load(**options)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert Crops(np.int64(3), "random", np.uint8(1)).count == 3


def test_the_fingerprint_is_that_of_the_weights(scorer):
    again = glpi_jax.load(crops=2)
    assert again.fingerprint() == scorer.fingerprint()
    variables = again._variables
    leaf = variables["params"]["vgfe"]["pos_embed"]
    variables["params"]["vgfe"]["pos_embed"] = leaf.at[(0,) * leaf.ndim].add(1e-3)
    assert again.fingerprint() != scorer.fingerprint()


# Memory


def test_a_budget_is_kept_and_nobody_waits_for_ever():
    budget = MemoryBudget(100)
    lock = threading.Lock()
    used, most = 0, 0

    def work(size):
        nonlocal used, most
        for _ in range(50):
            with budget.reserve(size):
                with lock:
                    used += min(size, 100)
                    most = max(most, used)
                with lock:
                    used -= min(size, 100)

    threads = [threading.Thread(target=work, args=(size,)) for size in (10, 30, 60, 100, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert used == 0
    assert 0 < most <= 100


def test_who_needs_more_than_is_free_waits():
    budget = MemoryBudget(100)
    inside = threading.Event()

    def reserve():
        with budget.reserve(500):  # more than there is: all of it
            inside.set()

    thread = threading.Thread(target=reserve)
    with budget.reserve(1):
        thread.start()
        assert not inside.wait(0.1)
    assert inside.wait(30)
    thread.join()


def test_what_is_reserved_follows_the_header(scorer, save, monkeypatch):
    reserved = []
    before = MemoryBudget.reserve

    def reserve(self, size):
        reserved.append(size)
        return before(self, size)

    monkeypatch.setattr(MemoryBudget, "reserve", reserve)
    path = save("a.png", 100, 200)
    scorer.score([path, path.read_bytes()])
    decoded = reading.DECODING_BYTES_PER_PIXEL * 100 * 200
    assert sorted(reserved) == [decoded, decoded + path.stat().st_size]
