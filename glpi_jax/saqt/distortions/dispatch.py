"""The 25 KADID types and how one is applied to an 8-bit image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glpi_jax.errors import GlpiError
from glpi_jax.saqt.distortions import (
    blur,
    brightness,
    color,
    compression,
    noise,
    sharpness,
    spatial,
)
from glpi_jax.saqt.distortions.color_spaces import FloatImage


@dataclass(frozen=True)
class Distortion:
    """One distortion type: KADID's number, its name, its group and its five levels.

    `function` takes a float32 image (H, W, 3) in 0..1 and the level's parameter, a random one also
    `rng`; `draw_names` are the keyword arguments that replace its draws. `min_side` is the shortest
    image side, in pixels, that it is defined for.
    """

    number: int
    name: str
    group: str
    levels: tuple[float, float, float, float, float]
    function: Callable[..., FloatImage]
    random: bool = False
    draw_names: tuple[str, ...] = ()
    min_side: int = 1


_TABLE = (
    Distortion(1, "gaussian_blur", "blur", (0.1, 0.5, 1, 2, 5), blur.gaussian_blur),
    Distortion(2, "lens_blur", "blur", (1, 2, 4, 6, 8), blur.lens_blur),
    Distortion(3, "motion_blur", "blur", (1, 2, 4, 6, 10), blur.motion_blur, True, ("angle_deg",)),
    Distortion(4, "color_diffusion", "color", (1, 3, 6, 8, 12), color.color_diffusion),
    Distortion(
        5, "color_shift", "color", (1, 3, 6, 8, 12), color.color_shift, True, ("rand2",), min_side=2
    ),
    Distortion(6, "color_quantization", "color", (64, 48, 32, 16, 8), color.color_quantization),
    Distortion(
        7, "color_saturation_hsv", "color", (0.4, 0.2, 0.1, 0, -0.4), color.color_saturation_hsv
    ),
    Distortion(8, "color_saturation_lab", "color", (1, 2, 3, 6, 9), color.color_saturation_lab),
    Distortion(
        9, "jpeg2000", "compression", (16, 32, 45, 120, 400), compression.jpeg2000, min_side=32
    ),
    Distortion(10, "jpeg", "compression", (43, 36, 24, 7, 4), compression.jpeg),
    Distortion(
        11,
        "white_noise",
        "noise",
        (0.001, 0.002, 0.003, 0.005, 0.01),
        noise.white_noise,
        True,
        ("gauss",),
    ),
    Distortion(
        12,
        "white_noise_ycbcr",
        "noise",
        (0.0001, 0.0005, 0.001, 0.002, 0.003),
        noise.white_noise_ycbcr,
        True,
        ("gauss",),
    ),
    Distortion(
        13,
        "impulse_noise",
        "noise",
        (0.001, 0.005, 0.01, 0.02, 0.03),
        noise.impulse_noise,
        True,
        ("unif",),
    ),
    Distortion(
        14,
        "multiplicative_noise",
        "noise",
        (0.001, 0.005, 0.01, 0.02, 0.05),
        noise.multiplicative_noise,
        True,
        ("unif",),
    ),
    Distortion(16, "brighten", "brightness", (0.1, 0.2, 0.4, 0.7, 1.1), brightness.brighten),
    Distortion(17, "darken", "brightness", (0.05, 0.1, 0.2, 0.4, 0.8), brightness.darken),
    Distortion(
        18, "mean_shift", "brightness", (0.15, 0.08, 0, -0.08, -0.15), brightness.mean_shift
    ),
    Distortion(
        19, "jitter", "spatial", (0.05, 0.1, 0.2, 0.5, 1), spatial.jitter, True, ("normal",)
    ),
    Distortion(
        20,
        "non_eccentricity_patch",
        "spatial",
        (20, 40, 60, 80, 100),
        spatial.non_eccentricity_patch,
        True,
        ("rand_sequence",),
        min_side=48,
    ),
    Distortion(21, "pixelate", "spatial", (0.01, 0.05, 0.1, 0.2, 0.5), spatial.pixelate),
    Distortion(
        22,
        "quantization",
        "spatial",
        (20, 16, 13, 10, 7),
        spatial.quantization,
        draw_names=("thresholds_255",),
    ),
    Distortion(
        23,
        "color_block",
        "spatial",
        (2, 4, 6, 8, 10),
        spatial.color_block,
        True,
        ("rects",),
        min_side=32,
    ),
    Distortion(24, "high_sharpen", "sharpness", (1, 2, 3, 6, 12), sharpness.high_sharpen),
    Distortion(
        25, "contrast_change", "sharpness", (0.3, 0.15, 0, -0.4, -0.6), sharpness.contrast_change
    ),
)

DISTORTIONS: dict[int, Distortion] = {distortion.number: distortion for distortion in _TABLE}
"""The offered types by KADID number: all 25 but 15 (denoise), which needs MATLAB's DnCNN."""

# Values lie about 0..1; one 8-bit step is 0.004.
_FLAT_RANGE = 1e-5


def find_distortion(number_or_name: int | str) -> Distortion:
    """The type of that KADID number or name.

    Raises:
        GlpiError: no such type is offered; the message lists those that are.
    """
    for distortion in _TABLE:
        if number_or_name in (distortion.number, distortion.name):
            return distortion
    available = ", ".join(f"{distortion.number} {distortion.name}" for distortion in _TABLE)
    raise GlpiError(f"Distortion {number_or_name!r} is not available; available are: {available}.")


def stretch(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Linearly onto 0..1 with ONE minimum and maximum over the whole array, NaN ignored.

    A constant array (or one of NaN alone) is left as it is; constant up to float32 rounding is
    constant, or a flat image would come out as amplified rounding noise.
    """
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if not high - low > _FLAT_RANGE:
        return values
    return (values - low) / (high - low)


def _to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round half up to 0..255; NaN becomes 0."""
    scaled = np.floor(values * 255.0 + 0.5)
    return np.nan_to_num(np.clip(scaled, 0, 255), nan=0).astype(np.uint8)


def _check_image(image: NDArray[np.uint8], distortion: Distortion) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise GlpiError(f"{distortion.name}: the image must be a uint8 array, not {found}.")
    if image.ndim != 3 or image.shape[2] != 3:
        raise GlpiError(
            f"{distortion.name}: the image must be (height, width, 3), not {image.shape}."
        )
    if min(image.shape[:2]) < distortion.min_side:
        raise GlpiError(
            f"{distortion.name}: the image is {image.shape[1]}x{image.shape[0]} pixels; "
            f"it needs at least {distortion.min_side} a side."
        )


def distort(
    image: NDArray[np.uint8],
    number_or_name: int | str,
    level: int,
    rng: np.random.Generator | None = None,
    draw: Mapping[str, ArrayLike] | None = None,
) -> NDArray[np.uint8]:
    """Apply one KADID distortion to an image, as the generator of KADIS-700k does.

    The image is stretched onto 0..1 (one minimum and maximum for all channels), distorted, and
    stretched again, so that levels without effect still change an image that does not span 0..255.

    Args:
        image: (H, W, 3), uint8, RGB.
        number_or_name: KADID number (1..25 but 15) or name, see `DISTORTIONS`.
        level: 1 (weakest, by KADID's order) to 5.
        rng: source of a random type's draws; see `seed_for`. Not used by the other types.
        draw: values that replace draws, by name (`Distortion.draw_names`).

    Returns:
        (H, W, 3), uint8.

    Raises:
        GlpiError: unknown type or level, an image of the wrong dtype, shape or size, a random type
            with neither `rng` nor `draw`, or a draw of a wrong name or shape.
    """
    distortion = find_distortion(number_or_name)
    if level not in (1, 2, 3, 4, 5):
        raise GlpiError(f"{distortion.name}: level {level!r} does not exist; levels are 1 to 5.")
    _check_image(image, distortion)
    draws: dict[str, Any] = dict(draw or {})
    unknown = sorted(set(draws) - set(distortion.draw_names))
    if unknown:
        known = ", ".join(distortion.draw_names) or "none"
        raise GlpiError(f"{distortion.name}: unknown draw {unknown[0]!r}; its draws are: {known}.")
    if distortion.random:
        draws["rng"] = rng
    spans = image.min() < image.max()
    unit = (stretch(image.astype(np.float64)) if spans else image / 255).astype(np.float32)
    result = distortion.function(unit, distortion.levels[int(level) - 1], **draws)
    return _to_uint8(stretch(result))
