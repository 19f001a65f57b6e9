import os
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from glpi_jax.core.errors import GlpiError
from glpi_jax.data import images
from glpi_jax.data.images import (
    MAX_FILE_BYTES,
    ImageError,
    convert_image,
    decode_first_frame,
    decode_image,
    list_images,
    pixel_count,
    read_image,
    walk_images,
)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def decode(data: bytes, *, apply_orientation: bool = False) -> np.ndarray:
    array = decode_image(data, "picture", apply_orientation=apply_orientation)
    assert array.dtype == np.uint8
    assert array.ndim == 3
    assert array.shape[2] == 3
    assert array.flags.writeable
    assert array.flags.c_contiguous
    return array


def png(samples: np.ndarray, color_type: int, bits: int, *, size: tuple[int, int]) -> bytes:
    """A PNG file made by hand: Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def photograph(height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_color_is_exact(file_format: str) -> None:
    pixels = photograph()
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(pixels), file_format)), pixels)


def test_grey_is_replicated() -> None:
    grey = photograph()[..., 0]
    array = decode(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(array, np.stack([grey] * 3, axis=-1))


def test_bilevel_becomes_black_and_white() -> None:
    array = decode(encoded(Image.fromarray(np.array([[True, False]])), "PNG"))
    assert array[0, :, 0].tolist() == [255, 0]


def test_alpha_is_composited_on_white() -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    array = decode(encoded(Image.fromarray(pixels), "PNG"))
    assert array.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]


def test_grey_alpha_is_composited_on_white() -> None:
    array = decode(encoded(Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8)), "PNG"))
    assert array[0, :, 1].tolist() == [40, 255]


def test_palette_with_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    array = decode(encoded(image, "PNG", transparency=1))
    assert array.tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    assert decode(encoded(image, "PNG"))[0, 1].tolist() == [0, 255, 0]


def test_color_key_transparency_of_true_color() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    array = decode(encoded(image, "PNG", transparency=(1, 2, 3)))
    assert array.tolist() == [[[255, 255, 255], [4, 5, 6]]]


SIXTEEN_BIT = np.array([[0, 128, 129, 257, 32767, 40000, 65406, 65407, 65535]], np.uint16)
AS_EIGHT_BIT = [0, 0, 1, 1, 127, 156, 254, 255, 255]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_rounded(file_format: str) -> None:
    array = decode(encoded(Image.fromarray(SIXTEEN_BIT), file_format))
    assert array[0].tolist() == [[value] * 3 for value in AS_EIGHT_BIT]


def tiff(samples: bytes, bits: int, *, width: int, white_is_zero: bool) -> bytes:
    """A grey TIFF file of one row made by hand: Pillow writes no 12-bit grey."""
    tags = {
        256: width, 257: 1, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 122,
        277: 1, 278: 1, 279: len(samples),
    }  # fmt: skip
    directory = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + samples


@pytest.mark.parametrize(
    ("bits", "samples"),
    [
        (8, bytes((0, 128, 255))),
        (12, bytes.fromhex("000808FFF000")),  # packed
        (16, struct.pack("<3H", 0, 32896, 65535)),
    ],
)
def test_grey_tiff_of_any_depth_and_direction(bits: int, samples: bytes) -> None:
    upward = decode(tiff(samples, bits, width=3, white_is_zero=False))
    assert upward[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    if bits != 12:  # which Pillow does not read
        downward = decode(tiff(samples, bits, width=3, white_is_zero=True))
        assert downward[0].tolist() == [[255] * 3, [127] * 3, [0] * 3]


def test_compressed_tiff_whose_white_is_zero() -> None:
    image = Image.fromarray(SIXTEEN_BIT)
    data = encoded(image, "TIFF", tiffinfo={262: 0}, compression="tiff_lzw")
    assert decode(data)[0, :, 0].tolist() == [255 - value for value in AS_EIGHT_BIT]


def test_16_bit_grey_color_key_is_white() -> None:
    array = decode(encoded(Image.fromarray(SIXTEEN_BIT), "PNG", transparency=257))
    assert array[0, :, 0].tolist() == [0, 0, 1, 255, 127, 156, 254, 255, 255]


def test_16_bit_color_is_scaled_not_clipped() -> None:
    samples = np.repeat(SIXTEEN_BIT[..., None], 3, axis=2).astype(">u2")
    array = decode(png(samples, color_type=2, bits=16, size=(9, 1)))
    difference = array[0, :, 0].astype(int) - AS_EIGHT_BIT
    assert set(difference.tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_samples_without_a_white_level_are_refused(dtype: type) -> None:
    image = Image.fromarray(np.ones((2, 2), dtype))
    with pytest.raises(ImageError, match=r"^picture: .* no agreed white level; save .* 8 or 16"):
        decode(encoded(image, "TIFF"))


def test_cmyk_jpeg() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    array = decode(encoded(red, "JPEG", quality=95))
    assert np.abs(array.astype(int) - (200, 30, 40)).max() <= 4


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, [[1, 2], [3, 4], [5, 6]]), (3, [[6, 5], [4, 3], [2, 1]]), (6, [[5, 3, 1], [6, 4, 2]])],
)
def test_exif_orientation(orientation: int, turned: list[list[int]]) -> None:
    image = Image.fromarray(np.array([[1, 2], [3, 4], [5, 6]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "PNG", exif=exif)
    assert decode(data, apply_orientation=True)[..., 0].tolist() == turned
    assert decode(data)[..., 0].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_exif_orientation_of_16_bit_grey() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(Image.fromarray(SIXTEEN_BIT), "TIFF", exif=exif)
    assert decode(data, apply_orientation=True)[0, :, 0].tolist() == AS_EIGHT_BIT[::-1]


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_one_pixel() -> None:
    assert decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "the file is empty"),
        (b"not an image at all\n", "not an image in any format that Pillow reads"),
        (b"\x89PNG\r\n\x1a\n", "corrupt or truncated|not an image"),
        (encoded(Image.fromarray(photograph()), "PNG")[:-300], "corrupt or truncated"),
        (encoded(Image.fromarray(photograph()), "JPEG")[:-300], "corrupt or truncated"),
        (png(photograph(1, 1), 2, 8, size=(60_000, 60_000)), "too large"),
        (png(photograph(1, 1), 2, 8, size=(10_000, 10_000)), "too large"),
    ],
    ids=["empty", "text", "signature", "cut png", "cut jpeg", "bomb", "bomb warning"],
)
def test_bad_data_is_one_line_with_name_and_cause(data: bytes, cause: str) -> None:
    with pytest.raises(ImageError, match=cause) as caught:
        decode(data)
    message = str(caught.value)
    assert message.startswith("picture: ")
    assert "\n" not in message
    assert "BytesIO" not in message


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_damaged_files_decode_or_raise_image_error(file_format: str) -> None:
    whole = encoded(Image.fromarray(photograph(12, 12)), file_format)
    rng = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(len(whole), size=4):
            damaged[position] = rng.integers(256)
        cut = int(rng.integers(1, len(whole) + 1)) if rng.random() < 0.5 else len(whole)
        with suppress(ImageError):
            decode(bytes(damaged[:cut]), apply_orientation=True)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_pillows(orientation: int, file_format: str) -> None:
    pixels = photograph()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), file_format, exif=exif)
    with Image.open(BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    with Image.open(BytesIO(data)) as stored:
        for _ in range(2):  # the second time it is loaded
            given = convert_image(stored, "picture", apply_orientation=True)
            np.testing.assert_array_equal(given, expected)
        if file_format != "TIFF":  # which Pillow turns itself
            assert stored.size == (32, 24)  # a given image stays as it is
    np.testing.assert_array_equal(decode(data, apply_orientation=True), expected)
    np.testing.assert_array_equal(decode(data), pixels)


def test_damaged_exif_data_that_nobody_asks_for() -> None:
    pixels = photograph()
    exif = b"Exif\0\0no such data"
    data = encoded(Image.fromarray(pixels), "WEBP", exif=exif, lossless=True)
    np.testing.assert_array_equal(decode(data), pixels)


def test_strips_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG")
    whole = decode(data)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 5 * 32)
    np.testing.assert_array_equal(decode(data), whole)


def test_lab_becomes_the_color_it_was() -> None:
    pixels = np.full((4, 4, 3), (200, 30, 40), np.uint8)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = Image.fromarray(pixels)
    converted = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    assert np.abs(decode(encoded(converted, "TIFF")).astype(int) - pixels).max() <= 3


def test_an_animation_is_its_first_frame_and_says_so() -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    for file_format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        moving = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        frame, animated = decode_first_frame(moving, "picture", apply_orientation=True)
        assert animated
        assert frame[0, 0].tolist() == [255, 0, 0]
        still = encoded(frames[0], file_format, **options)
        assert not decode_first_frame(still, "picture", apply_orientation=True).animated


def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: a pipe or device"):
        read_image(tmp_path / "pipe.png", apply_orientation=False)


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "disk.png", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match=r"disk\.png: 2\.0 GiB are too many for an image"):
        read_image(tmp_path / "disk.png", apply_orientation=False)


@pytest.mark.parametrize("name", ["zero\0byte.png", "surrogate\ud800.png"])
def test_a_name_that_no_file_has_is_named(name: str) -> None:
    with pytest.raises(ImageError, match="no file has such a name"):
        read_image(name, apply_orientation=False)


def test_pixels_of_a_header(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(photograph()), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    assert pixel_count(data[:-20]) == pixel_count(tmp_path / "a.jpg") == 24 * 32
    assert pixel_count(b"no image") == pixel_count(tmp_path / "missing.jpg") == 0


def test_read_image(tmp_path: Path) -> None:
    pixels = photograph()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", apply_orientation=True), pixels)


def test_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "note.jpg"
    path.write_text("hello")
    with pytest.raises(ImageError, match=r"note\.jpg: not an image"):
        read_image(path, apply_orientation=False)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.png: no such image file"):
        read_image(tmp_path / "no.png", apply_orientation=False)
    with pytest.raises(ImageError, match="this is a folder"):
        read_image(tmp_path, apply_orientation=False)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ImageError, match=r"a\.png: permission denied"):
        read_image(tmp_path / "a.png", apply_orientation=False)


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.tiff", "note.txt", ".hidden.png", ".git/d.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    odd = tmp_path / "odd.data"
    odd.touch()
    photos = tmp_path / "photos"
    expected = [odd, photos / "a.JPG", photos / "b.png", photos / "sub" / "c.tiff"]
    assert list_images([odd, str(photos), photos / "b.png"]) == expected


def test_list_images_errors(tmp_path: Path) -> None:
    with pytest.raises(GlpiError, match=r"no image in this folder \(looked for \.bmp"):
        list_images([tmp_path])
    with pytest.raises(GlpiError, match=r"gone: no such file or folder"):
        list_images([tmp_path / "gone"])


def test_a_folder_is_walked_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b/z.png", "b.png", "a/1.png", "a.png", "a-1.png", "c/d/e.png", "c/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c/d/back").symlink_to(tmp_path)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    found = [Path(path) for path in walk_images(tmp_path)]
    assert found == sorted(found)
    assert len(found) == 8


def test_a_folder_is_walked_as_it_is_asked_for(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    walk = walk_images(tmp_path)
    assert next(walk) == str(tmp_path / "a/1.png")
    (tmp_path / "b/2.png").rename(tmp_path / "b/3.png")
    assert list(walk) == [str(tmp_path / "b/3.png")]


def test_very_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deep = "/".join("d" * 1200)
    for folder in (deep[:1200], deep):
        os.makedirs(folder)
    Path(deep, "a.png").touch()
    assert list(walk_images(Path("d"))) == [f"{deep}/a.png"]
    # pytest's own cleaning up goes no deeper than Python's stack.
    os.remove(f"{deep}/a.png")
    os.removedirs(deep)
