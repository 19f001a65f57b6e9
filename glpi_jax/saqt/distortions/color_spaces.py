"""Colour conversions of the KADID generator, in float32, without any hidden clipping.

Image libraries clip negative XYZ values in their `lab2rgb`, MATLAB does not; on strongly
saturated colours (types 4 and 8) that alone costs 30 dB or more. All arrays are (H, W, 3).
"""

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

# sRGB primaries and D65 white (IEC 61966-2-1), so that RGB (1, 1, 1) is Lab (100, 0, 0).
_RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _RGB_TO_XYZ.sum(axis=1)
_RGB_TO_RELATIVE_XYZ = (_RGB_TO_XYZ / _WHITE[:, None]).astype(np.float32)
_RELATIVE_XYZ_TO_RGB = np.linalg.inv(_RGB_TO_XYZ / _WHITE[:, None]).astype(np.float32)

_LAB_EPSILON = np.float32((6 / 29) ** 3)
_LAB_SLOPE = np.float32((29 / 6) ** 2 / 3)
_LAB_OFFSET = np.float32(4 / 29)

# ITU-R BT.601 studio swing: 8-bit Y in 16..235, Cb and Cr in 16..240, here divided by 255.
_RGB_TO_YCBCR = (
    np.array(
        [
            [65.481, 128.553, 24.966],
            [-37.797, -74.203, 112.0],
            [112.0, -93.786, -18.214],
        ]
    )
    / 255
)
_YCBCR_OFFSET = np.array([16.0, 128.0, 128.0]) / 255
_YCBCR_TO_RGB = np.linalg.inv(_RGB_TO_YCBCR)


def _linear_from_srgb(rgb: FloatImage) -> FloatImage:
    """Undo the sRGB gamma; odd-symmetric, so negative values keep their sign."""
    magnitude = np.abs(rgb)
    linear = np.where(
        magnitude <= np.float32(0.04045),
        magnitude / np.float32(12.92),
        ((magnitude + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4),
    )
    return np.copysign(linear, rgb)


def _srgb_from_linear(linear: FloatImage) -> FloatImage:
    """Apply the sRGB gamma; odd-symmetric, so negative values keep their sign."""
    magnitude = np.abs(linear)
    rgb = np.where(
        magnitude <= np.float32(0.0031308),
        magnitude * np.float32(12.92),
        np.float32(1.055) * magnitude ** np.float32(1 / 2.4) - np.float32(0.055),
    )
    return np.copysign(rgb, linear)


def lab_from_rgb(rgb: FloatImage) -> FloatImage:
    """sRGB (H, W, 3), nominally 0..1, to CIE L*a*b* with D65 white: L 0..100, a and b unbounded."""
    xyz = _linear_from_srgb(rgb) @ _RGB_TO_RELATIVE_XYZ.T
    f = np.where(xyz > _LAB_EPSILON, np.cbrt(xyz), _LAB_SLOPE * xyz + _LAB_OFFSET)
    lab = np.empty_like(f)
    lab[..., 0] = 116 * f[..., 1] - 16
    lab[..., 1] = 500 * (f[..., 0] - f[..., 1])
    lab[..., 2] = 200 * (f[..., 1] - f[..., 2])
    return lab


def rgb_from_lab(lab: FloatImage) -> FloatImage:
    """CIE L*a*b* (D65) to sRGB (H, W, 3); colours outside the gamut leave 0..1, XYZ may be < 0."""
    f = np.empty_like(lab)
    f[..., 1] = (lab[..., 0] + 16) / 116
    f[..., 0] = f[..., 1] + lab[..., 1] / 500
    f[..., 2] = f[..., 1] - lab[..., 2] / 200
    xyz = np.where(f > np.float32(6 / 29), f * f * f, (f - _LAB_OFFSET) / _LAB_SLOPE)
    return _srgb_from_linear(xyz @ _RELATIVE_XYZ_TO_RGB.T)


def ycbcr_from_rgb(rgb: FloatImage) -> FloatImage:
    """RGB (H, W, 3) in 0..1 to BT.601 studio YCbCr divided by 255 (Y 16/255..235/255)."""
    return (rgb @ _RGB_TO_YCBCR.T + _YCBCR_OFFSET).astype(np.float32)


def rgb_from_ycbcr(ycbcr: FloatImage) -> FloatImage:
    """BT.601 studio YCbCr divided by 255 to RGB (H, W, 3), unclipped."""
    return ((ycbcr - _YCBCR_OFFSET) @ _YCBCR_TO_RGB.T).astype(np.float32)
