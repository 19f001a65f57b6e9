"""The 25 KADID types and how one is applied to an 8-bit image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import (
    blur,
    brightness,
    color,
    compression,
    noise,
    sharpness,
    spatial,
)
from glpi_jax.distortions.bands import look_up, row_bands
from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.distortions.denoising import TOTAL_VARIATION, Denoiser
from glpi_jax.distortions.kadid_scores import LEVELS
from glpi_jax.distortions.unit_image import UnitImage


@dataclass(frozen=True)
class Distortion:
    """One distortion type: KADID's number, its name, its group and its five levels.

    `function` takes a `UnitImage` and the level's parameter, a random one also `rng` and denoise
    also `denoiser`; it returns (H, W, 3), float32 around 0..1 or uint8. `draw_names` are the
    keyword arguments that replace its draws. `together`, where there is one, makes several levels
    at once from their parameters, in less time and with the same pixels. `min_side` is the shortest
    image side, in pixels, that the type is defined for.
    """

    number: int
    name: str
    group: str
    levels: tuple[float, float, float, float, float]
    function: Callable[..., FloatImage | NDArray[np.uint8]]
    random: bool = False
    draw_names: tuple[str, ...] = ()
    together: Callable[[UnitImage, Sequence[Any]], list[NDArray[np.uint8]]] | None = None
    min_side: int = 1


def _noise(
    number: int,
    function: Callable[..., FloatImage],
    levels: tuple[float, float, float, float, float],
    draw: str,
) -> Distortion:
    return Distortion(number, function.__name__, "noise", levels, function, True, (draw,))


_TABLE = (
    Distortion(1, "gaussian_blur", "blur", (0.1, 0.5, 1, 2, 5), blur.gaussian_blur),
    Distortion(2, "lens_blur", "blur", (1, 2, 4, 6, 8), blur.lens_blur),
    Distortion(3, "motion_blur", "blur", (1, 2, 4, 6, 10), blur.motion_blur, True, ("angle_deg",)),
    Distortion(4, "color_diffusion", "color", (1, 3, 6, 8, 12), color.color_diffusion),
    Distortion(
        5, "color_shift", "color", (1, 3, 6, 8, 12), color.color_shift, True, ("rand2",), min_side=2
    ),
    Distortion(
        6,
        "color_quantization",
        "color",
        (64, 48, 32, 16, 8),
        color.color_quantization,
        together=color.color_quantization_levels,
    ),
    Distortion(
        7, "color_saturation_hsv", "color", (0.4, 0.2, 0.1, 0, -0.4), color.color_saturation_hsv
    ),
    Distortion(8, "color_saturation_lab", "color", (1, 2, 3, 6, 9), color.color_saturation_lab),
    Distortion(
        9, "jpeg2000", "compression", (16, 32, 45, 120, 400), compression.jpeg2000, min_side=32
    ),
    Distortion(10, "jpeg", "compression", (43, 36, 24, 7, 4), compression.jpeg),
    _noise(11, noise.white_noise, (0.001, 0.002, 0.003, 0.005, 0.01), "gauss"),
    _noise(12, noise.white_noise_ycbcr, (0.0001, 0.0005, 0.001, 0.002, 0.003), "gauss"),
    _noise(13, noise.impulse_noise, (0.001, 0.005, 0.01, 0.02, 0.03), "unif"),
    _noise(14, noise.multiplicative_noise, (0.001, 0.005, 0.01, 0.02, 0.05), "unif"),
    _noise(15, noise.denoise, (0.01, 0.03, 0.05, 0.1, 0.15), "gauss"),
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
"""The 25 types by KADID number."""

# Values lie about 0..1; one 8-bit step is 0.004.
FLAT_RANGE = 1e-5


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


def stretch_to_uint8(values: FloatImage | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Linearly onto 0..255 with ONE minimum and maximum over the whole array (H, W, C), rounded.

    uint8 values stand for 255ths. NaN is ignored in the range and becomes 0. A constant array is
    only clipped and rounded; constant up to float32 rounding is constant, or a flat image would
    come out as amplified rounding noise.
    """
    if values.dtype == np.uint8:
        table = np.floor(255 * _unit_table(values) + 0.5).clip(0, 255).astype(np.uint8)
        return look_up(table, values.astype(np.uint8, copy=False))
    low, high = values.min(), values.max()
    lost = bool(np.isnan(low))
    if lost:
        low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    flat = not high - low > FLAT_RANGE
    result = np.empty(values.shape, dtype=np.uint8)
    for band in row_bands(*values.shape[:2]):
        scaled = values[band].clip(0, 1) if flat else (values[band] - low) / (high - low)
        scaled *= 255
        scaled += 0.5
        if lost:
            np.nan_to_num(scaled, copy=False, nan=0)
        result[band] = scaled  # truncated: none is negative
    return result


def _unit_table(image: FloatImage | NDArray[np.uint8]) -> NDArray[np.float64]:
    """For each 8-bit value (256,) its place between the image's minimum (0) and maximum (1).

    A constant image is only divided by 255. Entries of values outside the range mean nothing.
    """
    low, high = int(image.min()), int(image.max())
    if low == high:
        low, high = 0, 255
    return (np.arange(256) - low) / (high - low)


class Distorter:
    """One image, ready to be distorted; its types and levels share what they derive from it.

    The image is stretched onto 0..1 (one minimum and maximum for all channels), distorted, and
    stretched again, so that levels without effect still change an image that does not span 0..255.
    Several calls on one object take less time than as many of `distort` and give the same pixels.
    It is not safe to use from several threads at once.
    """

    def __init__(self, image: NDArray[np.uint8], denoiser: Denoiser = TOTAL_VARIATION) -> None:
        """Take an image (H, W, 3), uint8, RGB, and what type 15 removes its noise with.

        Raises:
            GlpiError: wrong dtype or shape.
        """
        _check_image(image)
        self._denoiser = denoiser
        self._image = UnitImage(look_up(_unit_table(image).astype(np.float32), image))

    def distort(
        self,
        number_or_name: int | str,
        level: int,
        rng: np.random.Generator | None = None,
        draw: Mapping[str, ArrayLike] | None = None,
    ) -> NDArray[np.uint8]:
        """The image under one type and level; arguments, result and errors as `distort`'s."""
        distortion = find_distortion(number_or_name)
        parameter = _parameter(distortion, level)
        self._check_size(distortion)
        draws: dict[str, Any] = dict(draw or {})
        unknown = sorted(set(draws) - set(distortion.draw_names))
        if unknown:
            known = ", ".join(distortion.draw_names) or "none"
            raise GlpiError(
                f"{distortion.name}: unknown draw {unknown[0]!r}; its draws are: {known}."
            )
        if distortion.random:
            draws["rng"] = rng
        if distortion.function is noise.denoise:
            draws["denoiser"] = self._denoiser
        made = distortion.function(self._image, parameter, **draws)
        return stretch_to_uint8(made)

    def distort_levels(
        self, number_or_name: int | str, rngs: Sequence[np.random.Generator | None]
    ) -> list[NDArray[np.uint8]]:
        """The image under one type at levels 1 to 5, as `distort` makes them.

        Args:
            number_or_name: as for `distort`.
            rngs: a source of draws for each level, of which only random types make use.

        Raises:
            GlpiError: as for `distort`.
        """
        distortion = find_distortion(number_or_name)
        if len(rngs) != len(distortion.levels):
            raise GlpiError(
                f"{distortion.name}: distort_levels takes {len(distortion.levels)} generators, "
                f"one a level, not {len(rngs)}."
            )
        made = self.each_level(distortion.number, dict(enumerate(rngs, 1)))
        return [image for _, image in made]

    def each_level(
        self, number_or_name: int | str, rngs: Mapping[int, np.random.Generator | None]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield levels and the image under one type at these levels, as `distort` makes them.

        What this type alone derives from the image is dropped in the end: of a large photograph it
        takes a lot of memory.

        Args:
            number_or_name: as for `distort`.
            rngs: level → a source of draws, of which only random types make use.

        Raises:
            GlpiError: as for `distort`.
        """
        distortion = find_distortion(number_or_name)
        if distortion.together is None:
            for level, rng in rngs.items():
                yield level, self.distort(distortion.number, level, rng)
        else:
            parameters = [_parameter(distortion, level) for level in rngs]
            self._check_size(distortion)
            for level, made in zip(rngs, distortion.together(self._image, parameters), strict=True):
                yield level, stretch_to_uint8(made)
        self._image.forget()

    def _check_size(self, distortion: Distortion) -> None:
        height, width, _ = self._image.shape
        if min(height, width) < distortion.min_side:
            raise GlpiError(
                f"{distortion.name}: the image is {width}x{height} pixels; "
                f"it needs at least {distortion.min_side} a side."
            )


def _parameter(distortion: Distortion, level: int) -> float:
    if level not in LEVELS:
        raise GlpiError(
            f"{distortion.name}: level {level!r} does not exist; levels are 1 to {LEVELS[-1]}."
        )
    return distortion.levels[int(level) - 1]


def _check_image(image: NDArray[np.uint8]) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise GlpiError(f"An image to distort must be a uint8 array, not {found}.")
    if image.ndim != 3 or image.shape[2] != 3:
        raise GlpiError(f"An image to distort must be (height, width, 3), not {image.shape}.")
    if image.size == 0:
        raise GlpiError(f"The image to distort is {image.shape[1]}x{image.shape[0]} pixels.")


def distort(
    image: NDArray[np.uint8],
    number_or_name: int | str,
    level: int,
    rng: np.random.Generator | None = None,
    draw: Mapping[str, ArrayLike] | None = None,
    denoiser: Denoiser = TOTAL_VARIATION,
) -> NDArray[np.uint8]:
    """Apply one KADID distortion to an image, as the generator of KADIS-700k does.

    For several types or levels of one image a `Distorter` is faster.

    Args:
        image: (H, W, 3), uint8, RGB.
        number_or_name: KADID number (1..25) or name, see `DISTORTIONS`.
        level: 1 (weakest, by KADID's order) to 5.
        rng: source of a random type's draws; see `seed_for`. Not used by the other types.
        draw: values that replace draws, by name (`Distortion.draw_names`).
        denoiser: what type 15 removes its noise with; `denoiser.identity` names it for the record.
            The other types do not use it.

    Returns:
        (H, W, 3), uint8.

    Raises:
        GlpiError: unknown type or level, an image of the wrong dtype, shape or size, a random type
            with neither `rng` nor `draw`, or a draw of a wrong name or shape.
    """
    return Distorter(image, denoiser).distort(number_or_name, level, rng, draw)
