"""Colour conversions of the KADID generator, in float32, without any hidden clipping.

Image libraries clip negative XYZ values in their `lab2rgb`, MATLAB does not; on strongly
saturated colours (types 4 and 8) that alone costs 30 dB or more. All arrays are (H, W, 3).
"""

import numpy as np
from numpy.typing import NDArray

from glpi_jax.distortions.bands import by_bands

FloatImage = NDArray[np.float32]

# sRGB primaries and D65 white (IEC 61966-2-1), so that RGB (1, 1, 1) is Lab (100, 0, 0).
_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_RELATIVE = _RGB_TO_XYZ / _RGB_TO_XYZ.sum(axis=1, keepdims=True)
_RGB_TO_RELATIVE_XYZ = _RELATIVE.astype(np.float32)
_RELATIVE_XYZ_TO_RGB = np.linalg.inv(_RELATIVE).astype(np.float32)

_LAB_EPSILON = np.float32((6 / 29) ** 3)
_LAB_SLOPE = np.float32((29 / 6) ** 2 / 3)
_LAB_OFFSET = np.float32(4 / 29)

# ITU-R BT.601 studio swing: 8-bit Y in 16..235, Cb and Cr in 16..240, here divided by 255.
_YCBCR = [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
_RGB_TO_YCBCR = np.array(_YCBCR) / 255
_YCBCR_TO_RGB = np.linalg.inv(_RGB_TO_YCBCR)
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0]) / 255


def _linear_from_srgb(rgb: FloatImage) -> FloatImage:
    """Undo the sRGB gamma; odd-symmetric, so negative values keep their sign."""
    magnitude = np.abs(rgb)
    linear = ((magnitude + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    below = magnitude <= np.float32(0.04045)
    np.copyto(linear, magnitude / np.float32(12.92), where=below)
    return np.copysign(linear, rgb, out=linear)


def _srgb_from_linear(linear: FloatImage) -> FloatImage:
    """Apply the sRGB gamma; odd-symmetric, so negative values keep their sign."""
    magnitude = np.abs(linear)
    rgb = np.float32(1.055) * magnitude ** np.float32(1 / 2.4) - np.float32(0.055)
    below = magnitude <= np.float32(0.0031308)
    np.copyto(rgb, magnitude * np.float32(12.92), where=below)
    return np.copysign(rgb, linear, out=rgb)


@by_bands
def lab_from_rgb(rgb: FloatImage) -> FloatImage:
    """sRGB (H, W, 3), nominally 0..1, to CIE L*a*b* with D65 white: L 0..100, a and b unbounded."""
    xyz = _linear_from_srgb(rgb) @ _RGB_TO_RELATIVE_XYZ.T
    f = np.cbrt(xyz)
    np.copyto(f, _LAB_SLOPE * xyz + _LAB_OFFSET, where=xyz <= _LAB_EPSILON)
    lab = np.empty_like(f)
    lab[..., 0] = 116 * f[..., 1] - 16
    lab[..., 1] = 500 * (f[..., 0] - f[..., 1])
    lab[..., 2] = 200 * (f[..., 1] - f[..., 2])
    return lab


@by_bands
def rgb_from_lab(lab: FloatImage) -> FloatImage:
    """CIE L*a*b* (D65) to sRGB (H, W, 3); colours outside the gamut leave 0..1, XYZ may be < 0."""
    f = np.empty_like(lab)
    f[..., 1] = (lab[..., 0] + 16) / 116
    f[..., 0] = f[..., 1] + lab[..., 1] / 500
    f[..., 2] = f[..., 1] - lab[..., 2] / 200
    xyz: FloatImage = f * f * f
    np.copyto(xyz, (f - _LAB_OFFSET) / _LAB_SLOPE, where=f <= np.float32(6 / 29))
    linear: FloatImage = xyz @ _RELATIVE_XYZ_TO_RGB.T
    return _srgb_from_linear(linear)


@by_bands
def ycbcr_from_rgb(rgb: FloatImage) -> NDArray[np.float64]:
    """RGB (H, W, 3) in 0..1 to BT.601 studio YCbCr divided by 255 (Y 16/255..235/255)."""
    return rgb @ _RGB_TO_YCBCR.T + _YCBCR_OFFSET


@by_bands
def rgb_from_ycbcr(ycbcr: FloatImage) -> NDArray[np.float64]:
    """BT.601 studio YCbCr divided by 255 to RGB (H, W, 3), unclipped."""
    return (ycbcr - _YCBCR_OFFSET) @ _YCBCR_TO_RGB.T
