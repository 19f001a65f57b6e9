"""KADID group compression: JPEG 2000 (9) and JPEG (10), both through Pillow."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glpi_jax.distortions.unit_image import UnitImage


def _decode(encoded: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded)) as decoded:
        return np.asarray(decoded.convert("RGB"))


def encode_jpeg2000(pixels: NDArray[np.uint8], ratio: float) -> bytes:
    """JPEG 2000 file of an 8-bit image (H, W, 3) in about H*W*3/ratio bytes.

    9/7 wavelet, colour transform on, one layer, five decompositions: OpenJPEG's defaults for lossy
    colour, which Pillow does not choose by itself.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer,
        format="JPEG2000",
        irreversible=True,
        mct=1,
        num_resolutions=6,
        quality_layers=[ratio],
    )
    return buffer.getvalue()


def jpeg2000(image: UnitImage, ratio: float) -> NDArray[np.uint8]:
    """Type 9: JPEG 2000 at compression `ratio` (imcompressjp2k.m, which uses another codec).

    The image has 32 pixels or more a side; returns its 8-bit pixels (H, W, 3).
    """
    return _decode(encode_jpeg2000(image.pixels, ratio))


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Baseline JPEG file of an 8-bit image (H, W, 3): 4:2:0, libjpeg's scaled tables."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def jpeg(image: UnitImage, quality: int) -> NDArray[np.uint8]:
    """Type 10: JPEG of libjpeg `quality` (imcompressjpeg.m); returns 8-bit pixels (H, W, 3)."""
    return _decode(encode_jpeg(image.pixels, quality))
