"""Files of every kind, damaged in every way: each is scored or named, and stops no other.

`GLPI_FUZZ=20000` runs as many mutations as that instead of a few hundred.
"""

import io
import math
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import glpi_jax
from glpi_jax.data.images import ImageError, decode_image, pixel_count, walk_images
from glpi_jax.scoring import Scorer
from glpi_jax.scoring.inputs import list_inputs

MUTATIONS = int(os.environ.get("GLPI_FUZZ", "400"))
SLOWEST_SECONDS = 20  # of one small damaged file: more is a hang, not a busy machine
MOST_BYTES = 2**30  # that decoding damaged small files may add to this process

pytestmark = pytest.mark.filterwarnings(
    # What Pillow remarks on damaged files; the command shows its users none of it.
    "ignore::UserWarning",
    "default::DeprecationWarning",
    "default::PIL.Image.DecompressionBombWarning",
)


@pytest.fixture(scope="module")
def scorer(shared_compilations: dict[str, str]) -> Scorer:
    return glpi_jax.load(crops=1)


def photograph(height: int = 70, width: int = 90) -> Image.Image:
    rng = np.random.default_rng(height)
    blocks = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    image = blocks.repeat(10, axis=0).repeat(10, axis=1)[:height, :width]
    return Image.fromarray(image ^ rng.integers(0, 16, image.shape, dtype=np.uint8))


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def with_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    return exif


def real_files() -> dict[str, bytes]:
    image = photograph()
    moving = {"save_all": True, "append_images": [image.rotate(90)], "duration": 50}
    return {
        "plain.jpg": encoded(image, "JPEG"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True, exif=with_exif()),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "plain.png": encoded(image, "PNG", exif=with_exif()),
        "palette.png": encoded(image.quantize(40), "PNG", transparency=3),
        "moving.png": encoded(image, "PNG", **moving),
        "lossy.webp": encoded(image, "WEBP", exif=with_exif()),
        "lossless.webp": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "moving.webp": encoded(image, "WEBP", **moving),
        "plain.tif": encoded(image, "TIFF"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encoded(image, "TIFF", compression="jpeg"),
        "pages.tif": encoded(image, "TIFF", save_all=True, append_images=[image]),
        "plain.gif": encoded(image, "GIF"),
        "moving.gif": encoded(image, "GIF", **moving),
        "plain.bmp": encoded(image, "BMP"),
        "rle.bmp": rle_bmp(),
        "plain.ppm": encoded(image, "PPM"),
        "plain.jp2": encoded(image, "JPEG2000"),
    }


def rle_bmp() -> bytes:
    """A BMP with run lengths, which Pillow reads and does not write: rows of one colour."""
    rows = b"".join(bytes([90, row % 256, 0, 0]) for row in range(70)) + b"\0\1"
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, 90, 70, 1, 8, 1, len(rows), 0, 0, 256, 0)
    offset = 14 + len(info) + len(palette)
    header = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    return header + info + palette + rows


FILES = real_files()


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes changed, cut, doubled, moved, or set to what headers count wrongly with."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        kind, place = rng.integers(6), int(rng.integers(len(content)))
        if kind == 0:
            content[place] = rng.integers(256)
        elif kind == 1:  # headers hold the most that can go wrong
            content[int(rng.integers(min(64, len(content))))] = rng.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            content = content[: max(1, place)]
        elif kind == 3:
            content[place:place] = content[place : place + 40]
        elif kind == 4:
            del content[place : place + int(rng.integers(1, 40))]
        else:
            content[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )
        content = content or bytearray(b"\0")
    return bytes(content)


def decoded_or_named(data: bytes) -> bool:
    """Whether the data is an image; what is none must say so in one line, and in time."""
    begin = time.monotonic()
    pixels, message = None, ""
    try:
        pixels = decode_image(data, "picture", apply_orientation=True)
    except ImageError as error:
        message = str(error)
    assert time.monotonic() - begin < SLOWEST_SECONDS
    if pixels is None:
        assert message.startswith("picture: ")
        assert "\n" not in message
        return False
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return True


@contextmanager
def grows_by_less_than(most: int) -> Iterator[None]:
    """Check the most memory that this process has at any time in the block."""

    def kilobytes(field: str) -> int:
        found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1])

    Path("/proc/self/clear_refs").write_text("5")  # forget the most so far
    before = kilobytes("VmRSS")
    yield
    assert (kilobytes("VmHWM") - before) * 1024 < most


def test_the_files_are_good_before_they_are_damaged():
    for name, data in FILES.items():
        assert decoded_or_named(data), name
        assert pixel_count(data) == 70 * 90


@pytest.mark.parametrize("name", FILES)
def test_mutated_files(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    count = -(-MUTATIONS // len(FILES))
    with grows_by_less_than(MOST_BYTES):
        outcomes = [decoded_or_named(mutated(rng, FILES[name])) for _ in range(count)]
    assert not all(outcomes)


@pytest.mark.parametrize("name", FILES)
def test_files_cut_at_every_kilobyte(name):
    data = FILES[name]
    for end in {0, 1, 2, 10, len(data) - 1, *range(512, len(data), 1024)}:
        decoded_or_named(data[:end])
    assert not decoded_or_named(data[: min(100, len(data) // 3)])


@settings(
    max_examples=max(40, MUTATIONS // 10),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(start=st.sampled_from(sorted(FILES)), kept=st.integers(0, 80), rest=st.binary(max_size=200))
def test_headers_followed_by_anything(start, kept, rest):
    decoded_or_named(FILES[start][:kept] + rest)


# Bombs


def png_of(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bombs() -> dict[str, bytes]:
    zeros = zlib.compress(b"\0" * 2**24, 9)
    screen = struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    return {
        "square.png": png_of(60_000, 60_000, zeros),
        "wide.png": png_of(2**31 - 1, 1, zeros),
        "tall.png": png_of(16, 2**30, zeros),
        "gif": b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\2\0;",
        "bmp": b"BM" + struct.pack("<IHHI", 60, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": b"P6 99999 99999 255\n" + b"\0" * 100,
    }  # fmt: skip


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_by_their_headers(name):
    bomb = bombs()[name]
    with grows_by_less_than(2**26), pytest.raises(ImageError, match="too large"):
        decode_image(bomb, name, apply_orientation=True)


def test_a_text_chunk_that_unpacks_without_end():
    text = zlib.compress(b"\0" * 2**27, 9)
    content = b"key\0\0" + text
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + content))
    good = encoded(photograph(), "PNG")
    with grows_by_less_than(2**26):
        decoded_or_named(good[:33] + chunk + good[33:])


# Modes


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "I;16", "I;16B", "I", "F", "RGB", "RGBA", "RGBa", "RGBX",
     "CMYK", "YCbCr", "LAB", "HSV"],
)  # fmt: skip
def test_every_mode_is_scored_or_refused_with_a_reason(scorer, mode):
    image = photograph()
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    elif mode in ("La", "RGBa"):
        image = image.convert(mode.upper()).convert(mode)
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    elif mode.startswith("I;16"):
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert(mode)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    result = scorer.score(image)
    if mode in ("I", "F"):
        assert "no agreed white level; save the image with 8 or 16 bits" in result.error
    else:
        assert math.isfinite(result.score)
        assert result.error is None


# Runs


def odd_folder(folder) -> int:
    """A folder of all that can be wrong with files; returns how many of its images are good."""
    good = encoded(photograph(), "PNG")
    rng = np.random.default_rng(0)
    names = [
        b"a space.png", b"new\nline.png", b"latin \xe9.png", "日本 🎉.png".encode(), b"-dash.png",
        b"quote'\".png", b"[bracket].png", b"star*.png", b"UPPER.PNG", b"percent %s %20.png",
    ]  # fmt: skip
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(good)
    for index, (name, data) in enumerate(FILES.items()):
        (folder / f"mutated{index}_{name}").write_bytes(mutated(rng, data)[:400])
        (folder / f"wrong{index}.jpg").write_bytes(data)
    for name, data in bombs().items():
        (folder / f"bomb_{name}.png").write_bytes(data)
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("hello")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "nowhere.png").symlink_to(folder / "missing")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "locked.png").write_bytes(good)
    (folder / "locked.png").chmod(0)
    return len(names) + len(FILES)


def test_good_files_are_scored_whatever_lies_beside_them(scorer, tmp_path):
    good = odd_folder(tmp_path)
    results = list(scorer.score_iter(list_inputs([str(tmp_path)])))
    assert len(results) == len({result.image for result in results})
    assert {result.image for result in results} == set(walk_images(tmp_path))
    scored = [result for result in results if result.error is None]
    assert all(math.isfinite(result.score) for result in scored)
    # As root a locked file can be read.
    sure = [r for r in scored if "mutated" not in r.image and "locked" not in r.image]
    assert len(sure) == good
    for result in results:
        assert (result.error is None) != (result.score is None)
        if result.error is not None:
            assert result.image in result.error


def test_a_run_of_mutations_in_memory(scorer):
    rng = np.random.default_rng(7)
    names = sorted(FILES)
    good = scorer.score(FILES["plain.png"]).score

    def sources():
        for index in range(MUTATIONS):
            name = names[index % len(names)]
            yield FILES["plain.png"] if index % 5 == 0 else mutated(rng, FILES[name])

    results = list(scorer.score_iter(sources()))
    assert len(results) == MUTATIONS
    assert [r.score for r in results[::5]] == pytest.approx([good] * len(results[::5]), abs=1e-4)
    assert any(result.error for result in results)
