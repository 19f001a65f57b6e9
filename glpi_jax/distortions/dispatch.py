"""The 25 KADID types and how one is applied to an 8-bit image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import blur, brightness, color, compression, noise, sharpness, spatial
from glpi_jax.distortions.bands import look_up, row_bands
from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.distortions.denoising import TOTAL_VARIATION, Denoiser
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.kadid_scores import LEVELS
from glpi_jax.distortions.unit_image import UnitImage


@dataclass(frozen=True)
class Distortion:
    """One distortion type: KADID's number and five levels, and what makes it.

    `function` takes a `UnitImage`, the level's parameter, a `Draw` if `draw` names one, and denoise
    also `denoiser`; it returns (H, W, 3), float32 around 0..1 or uint8. Values given under the name
    `draw` replace those that the type draws. `min_side` is the shortest image side, in pixels, that
    the type is defined for. `together`, where there is one, makes several levels at once from their
    parameters, in less time and with the same pixels.
    """

    number: int
    function: Callable[..., FloatImage | NDArray[np.uint8]]
    levels: tuple[float, float, float, float, float]
    draw: str | None = None
    min_side: int = 1
    together: Callable[[UnitImage, Sequence[Any]], list[NDArray[np.uint8]]] | None = None

    @property
    def name(self) -> str:
        """Name of the type, that of its function."""
        return self.function.__name__

    @property
    def group(self) -> str:
        """Name of the group, that of the function's module."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def random(self) -> bool:
        """Whether it draws numbers; quantization searches for what its draw would replace."""
        return self.draw is not None and self.function is not spatial.quantization


_TABLE = (
    Distortion(1, blur.gaussian_blur, (0.1, 0.5, 1, 2, 5)),
    Distortion(2, blur.lens_blur, (1, 2, 4, 6, 8)),
    Distortion(3, blur.motion_blur, (1, 2, 4, 6, 10), "angle_deg"),
    Distortion(4, color.color_diffusion, (1, 3, 6, 8, 12)),
    Distortion(5, color.color_shift, (1, 3, 6, 8, 12), "rand2", min_side=2),
    Distortion(
        6,
        color.color_quantization,
        (64, 48, 32, 16, 8),
        together=color.color_quantization_levels,
    ),
    Distortion(7, color.color_saturation_hsv, (0.4, 0.2, 0.1, 0, -0.4)),
    Distortion(8, color.color_saturation_lab, (1, 2, 3, 6, 9)),
    Distortion(9, compression.jpeg2000, (16, 32, 45, 120, 400), min_side=32),
    Distortion(10, compression.jpeg, (43, 36, 24, 7, 4)),
    Distortion(11, noise.white_noise, (0.001, 0.002, 0.003, 0.005, 0.01), "gauss"),
    Distortion(12, noise.white_noise_ycbcr, (0.0001, 0.0005, 0.001, 0.002, 0.003), "gauss"),
    Distortion(13, noise.impulse_noise, (0.001, 0.005, 0.01, 0.02, 0.03), "unif"),
    Distortion(14, noise.multiplicative_noise, (0.001, 0.005, 0.01, 0.02, 0.05), "unif"),
    Distortion(15, noise.denoise, (0.01, 0.03, 0.05, 0.1, 0.15), "gauss"),
    Distortion(16, brightness.brighten, (0.1, 0.2, 0.4, 0.7, 1.1)),
    Distortion(17, brightness.darken, (0.05, 0.1, 0.2, 0.4, 0.8)),
    Distortion(18, brightness.mean_shift, (0.15, 0.08, 0, -0.08, -0.15)),
    Distortion(19, spatial.jitter, (0.05, 0.1, 0.2, 0.5, 1), "normal"),
    Distortion(20, spatial.non_eccentricity_patch, (20, 40, 60, 80, 100), "rand_sequence", 48),
    Distortion(21, spatial.pixelate, (0.01, 0.05, 0.1, 0.2, 0.5)),
    Distortion(22, spatial.quantization, (20, 16, 13, 10, 7), "thresholds_255"),
    Distortion(23, spatial.color_block, (2, 4, 6, 8, 10), "rects", min_side=32),
    Distortion(24, sharpness.high_sharpen, (1, 2, 3, 6, 12)),
    Distortion(25, sharpness.contrast_change, (0.3, 0.15, 0, -0.4, -0.6)),
)

DISTORTIONS: dict[int, Distortion] = {distortion.number: distortion for distortion in _TABLE}
"""The 25 types by KADID number."""

# Values lie about 0..1; one 8-bit step is 0.004.
_FLAT_RANGE = 1e-5


def find_distortion(number_or_name: int | str) -> Distortion:
    """The type of that KADID number or name; a GlpiError lists those that there are."""
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
    flat = not high - low > _FLAT_RANGE
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
    """Where 8-bit values (256,) lie from the image's minimum 0 to its maximum 1; 255ths if flat."""
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
        """Take an image (H, W, 3), uint8, RGB, else a GlpiError; type 15 uses the denoiser."""
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
        parameter = self._parameter(distortion, level)
        given = dict(draw or {})
        options: dict[str, Any] = {}
        if distortion.draw is not None:
            values = given.pop(distortion.draw, None)
            options["draw"] = Draw(distortion.name, distortion.draw, rng, values)
        if distortion.function is noise.denoise:
            options["denoiser"] = self._denoiser
        if given:
            raise GlpiError(
                f"{distortion.name}: unknown draw {min(given)!r}; "
                f"its draws are: {distortion.draw or 'none'}."
            )
        return stretch_to_uint8(distortion.function(self._image, parameter, **options))

    def distort_levels(
        self, number_or_name: int | str, rngs: Sequence[np.random.Generator | None]
    ) -> list[NDArray[np.uint8]]:
        """The image under one type at levels 1 to 5, each as `distort` makes it from its `rng`."""
        distortion = find_distortion(number_or_name)
        if len(rngs) != len(distortion.levels):
            raise GlpiError(
                f"{distortion.name}: distort_levels takes {len(distortion.levels)} generators, "
                f"one a level, not {len(rngs)}."
            )
        rng_of = dict(zip(LEVELS, rngs, strict=True))
        return [image for _, image in self.each_level(distortion.number, rng_of)]

    def each_level(
        self, number_or_name: int | str, rngs: Mapping[int, np.random.Generator | None]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield each level of `rngs` and the image as `distort` makes it from the level's `rng`.

        What this type alone derives from the image is dropped in the end: of a large photograph it
        takes a lot of memory.
        """
        distortion = find_distortion(number_or_name)
        if distortion.together is None:
            for level, rng in rngs.items():
                yield level, self.distort(distortion.number, level, rng)
        else:
            parameters = [self._parameter(distortion, level) for level in rngs]
            for level, made in zip(rngs, distortion.together(self._image, parameters), strict=True):
                yield level, stretch_to_uint8(made)
        self._image.forget()

    def _parameter(self, distortion: Distortion, level: int) -> float:
        """Check a level and the image's size; return the parameter of the type's function."""
        if level not in LEVELS:
            raise GlpiError(
                f"{distortion.name}: level {level!r} does not exist; levels are 1 to {LEVELS[-1]}."
            )
        height, width, _ = self._image.shape
        if min(height, width) < distortion.min_side:
            raise GlpiError(
                f"{distortion.name}: the image is {width}x{height} pixels; "
                f"it needs at least {distortion.min_side} a side."
            )
        return distortion.levels[int(level) - 1]


def _check_image(image: NDArray[np.uint8]) -> None:
    found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
    if found != np.uint8:
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
        draw: values that replace draws, by name (`Distortion.draw`).
        denoiser: what type 15 removes its noise with; `denoiser.identity` names it for the record.
            The other types do not use it.

    Returns:
        (H, W, 3), uint8.

    Raises:
        GlpiError: unknown type or level, an image of the wrong dtype, shape or size, a random type
            with neither `rng` nor `draw`, or a draw of a wrong name or shape.
    """
    return Distorter(image, denoiser).distort(number_or_name, level, rng, draw)
