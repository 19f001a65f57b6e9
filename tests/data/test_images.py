import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glpi_jax.data.images import ImageError, decode_image, list_images, read_image
from glpi_jax.errors import GlpiError


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
