"""KADID group compression: JPEG 2000 (9) and JPEG (10), both through Pillow."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glpi_jax.saqt.distortions.color_spaces import FloatImage


def _to_uint8(image: FloatImage) -> NDArray[np.uint8]:
    """Round 0..1 to 0..255; truncating here would already cost about 50 dB."""
    return np.clip(np.floor(image * 255.0 + 0.5), 0, 255).astype(np.uint8)


def _decode(encoded: bytes) -> FloatImage:
    with Image.open(io.BytesIO(encoded)) as decoded:
        return np.asarray(decoded.convert("RGB"), dtype=np.float32) / np.float32(255)


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


def jpeg2000(image: FloatImage, ratio: float) -> FloatImage:
    """Type 9: JPEG 2000 at compression `ratio` (imcompressjp2k.m, which uses another codec).

    Image (H, W, 3), float32 in 0..1 (32 pixels or more a side), and the same out.
    """
    return _decode(encode_jpeg2000(_to_uint8(image), ratio))


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Baseline JPEG file of an 8-bit image (H, W, 3): 4:2:0, libjpeg's scaled tables."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def jpeg(image: FloatImage, quality: int) -> FloatImage:
    """Type 10: JPEG of libjpeg `quality` (imcompressjpeg.m).

    Image (H, W, 3), float32 in 0..1, and the same out.
    """
    return _decode(encode_jpeg(_to_uint8(image), quality))
