"""Distortions of whole batches in JAX, for accelerators; importing this module starts JAX.

The same formulas as the NumPy functions of the same names, in float32; which types there are says
`BATCHED`. The others work pixel after pixel, search, or call a codec.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import color_spaces as spaces
from glpi_jax.distortions.blur import disc_kernel
from glpi_jax.distortions.dispatch import FLAT_RANGE, Distortion, find_distortion
from glpi_jax.distortions.filters import gaussian_weights
from glpi_jax.distortions.sharpness import contrast_coefficients

# Accelerators multiply in fewer bits unless told.
_EXACT = jax.lax.Precision.HIGHEST


def distort_batch(
    images: ArrayLike,
    number_or_name: int | str,
    level: int,
    *,
    keys: jax.Array | None = None,
    draw: ArrayLike | None = None,
) -> jax.Array:
    """Apply one KADID distortion to each image of a batch, as `distort` does to one.

    Given the same draws the result is that of `distort` but for rounding; the numbers that a key
    gives are JAX's, not those of `seed_for`. Each type, level and shape is compiled once.

    Args:
        images: (B, H, W, 3), uint8, RGB.
        number_or_name: a type of `BATCHED`.
        level: 1 to 5.
        keys: (B,) typed PRNG keys (`jax.random.key`), one an image, for a random type; an image
            then depends on its own key alone.
        draw: instead of keys: angles in degrees (B,) of motion blur, standard normal values
            (B, H, W, 3) of white noise, or values uniform on 0..1 of impulse and multiplicative
            noise.

    Returns:
        (B, H, W, 3), uint8, on the device.

    Raises:
        GlpiError: a type that is not in `BATCHED`, an unknown level, images or draws of a wrong
            dtype or shape, or a random type with neither keys nor draw.
    """
    distortion = find_distortion(number_or_name)
    if distortion.number not in BATCHED:
        raise GlpiError(
            f"{distortion.name} cannot be batched; these types can: {', '.join(map(str, BATCHED))}."
        )
    if level not in (1, 2, 3, 4, 5):
        raise GlpiError(f"{distortion.name}: level {level!r} does not exist; levels are 1 to 5.")
    pixels = jnp.asarray(images)
    if pixels.dtype != jnp.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise GlpiError(
            f"{distortion.name}: a batch must be uint8 (batch, height, width, 3), "
            f"not {pixels.dtype} {pixels.shape}."
        )
    return _distort(distortion.number, int(level), pixels, _draws(distortion, pixels, keys, draw))


def _draws(
    distortion: Distortion,
    images: jax.Array,
    keys: jax.Array | None,
    draw: ArrayLike | None,
) -> jax.Array | None:
    """Draws of a random type with a leading batch axis, None for the others."""
    if not distortion.random:
        return None
    count, *size = images.shape
    if draw is not None:
        values = jnp.asarray(draw, jnp.float32)
        expected = (count,) if distortion.draw_names == ("angle_deg",) else images.shape
        if values.shape != expected:
            raise GlpiError(
                f"{distortion.name}: the draw has shape {values.shape}; it must be {expected}."
            )
        return values
    if keys is None:
        raise GlpiError(f"{distortion.name} is random: give keys, one an image, or its draw.")
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != (count,):
        raise GlpiError(
            f"{distortion.name}: keys must be {count} typed PRNG keys (jax.random.key), one an "
            f"image, not {keys.dtype} {keys.shape}."
        )
    sample: Callable[[jax.Array], jax.Array] = {
        "angle_deg": lambda key: jax.random.randint(key, (), 0, 181).astype(jnp.float32),
        "gauss": lambda key: jax.random.normal(key, tuple(size)),
        "unif": lambda key: jax.random.uniform(key, tuple(size)),
    }[distortion.draw_names[0]]
    return jax.vmap(sample)(keys)


@partial(jax.jit, static_argnums=(0, 1))
def _distort(number: int, level: int, images: jax.Array, draws: jax.Array | None) -> jax.Array:
    parameter = find_distortion(number).levels[level - 1]
    low, high = _range(images.astype(jnp.float32))
    flat = high == low
    unit = (images - jnp.where(flat, 0, low)) / jnp.where(flat, 255, high - low)
    function = BATCHED[number]
    made = function(unit, parameter) if draws is None else function(unit, parameter, draws)
    low, high = _range(made)
    flat = ~(high - low > FLAT_RANGE)
    stretched = jnp.where(flat, made.clip(0, 1), (made - low) / jnp.where(flat, 1, high - low))
    return jnp.floor(stretched * 255 + 0.5).astype(jnp.uint8)


def _range(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Minimum and maximum (B, 1, 1, 1) of each image."""
    axes = (1, 2, 3)
    return images.min(axes, keepdims=True), images.max(axes, keepdims=True)


# Filters and colour spaces, of images (B, H, W, C).


def _correlate(images: jax.Array, kernels: jax.Array | NDArray[np.float64]) -> jax.Array:
    """Each channel with an odd-sided kernel (h, w), or one an image (B, h, w); edges repeat."""
    count, height, width, channels = images.shape
    down, across = kernels.shape[-2] // 2, kernels.shape[-1] // 2
    padded = jnp.pad(images, ((0, 0), (down, down), (across, across), (0, 0)), mode="edge")
    if kernels.ndim == 2:  # every plane is an image of one channel
        planes = padded.transpose(0, 3, 1, 2).reshape(count * channels, 1, *padded.shape[1:3])
        groups = 1
        weights = jnp.asarray(kernels, jnp.float32)[None, None]
    else:  # every image is a group of channels with its own kernel, its planes are the batch
        planes = padded.transpose(3, 0, 1, 2)
        groups = count
        weights = jnp.asarray(kernels, jnp.float32)[:, None]
    filtered = jax.lax.conv_general_dilated(
        planes, weights, (1, 1), "VALID", feature_group_count=groups, precision=_EXACT
    )
    if kernels.ndim == 2:
        return filtered.reshape(count, channels, height, width).transpose(0, 2, 3, 1)
    return filtered.transpose(1, 2, 3, 0)


def _gaussian(images: jax.Array, sigma: float) -> jax.Array:
    """Rows and columns times one matrix each: faster than convolutions of one channel."""
    down = jnp.asarray(_gaussian_matrix(images.shape[1], sigma))
    across = jnp.asarray(_gaussian_matrix(images.shape[2], sigma))
    return jnp.einsum("ih,jw,bhwc->bijc", down, across, images, precision=_EXACT)


def _gaussian_matrix(side: int, sigma: float) -> NDArray[np.float32]:
    """The Gaussian along a line of `side` pixels, whose ends repeat, as a matrix (side, side)."""
    weights = gaussian_weights(sigma)
    half = len(weights) // 2
    target = np.repeat(np.arange(side), len(weights))
    source = (np.arange(side)[:, None] + np.arange(-half, half + 1)).clip(0, side - 1).ravel()
    matrix = np.zeros((side, side))
    np.add.at(matrix, (target, source), np.tile(weights, side))
    return matrix.astype(np.float32)


def _matrix(images: jax.Array, matrix: NDArray[np.floating]) -> jax.Array:
    return jnp.matmul(images, jnp.asarray(matrix.T, jnp.float32), precision=_EXACT)


def _lab(rgb: jax.Array) -> jax.Array:
    magnitude = jnp.abs(rgb)
    curve = ((magnitude + 0.055) / 1.055) ** 2.4
    linear = jnp.copysign(jnp.where(magnitude <= 0.04045, magnitude / 12.92, curve), rgb)
    xyz = _matrix(linear, spaces.RGB_TO_RELATIVE_XYZ)
    line = spaces.LAB_SLOPE * xyz + spaces.LAB_OFFSET
    x, y, z = jnp.moveaxis(jnp.where(xyz > spaces.LAB_EPSILON, jnp.cbrt(xyz), line), -1, 0)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _rgb(lab: jax.Array) -> jax.Array:
    """RGB of Lab, clipped to 0..1; negative XYZ is kept until then."""
    y = (lab[..., 0] + 16) / 116
    f = jnp.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    line = (f - spaces.LAB_OFFSET) / spaces.LAB_SLOPE
    linear = _matrix(jnp.where(f > 6 / 29, f * f * f, line), spaces.RELATIVE_XYZ_TO_RGB)
    magnitude = jnp.abs(linear)
    curve = 1.055 * magnitude ** (1 / 2.4) - 0.055
    rgb = jnp.where(magnitude <= 0.0031308, magnitude * 12.92, curve)
    return jnp.copysign(rgb, linear).clip(0, 1)


def _parabola(values: jax.Array, middle: float) -> jax.Array:
    return (((2 - 4 * middle) * values + (4 * middle - 1)) * values).clip(0, 1)


# The types, of images in 0..1.


def _motion_kernels(length: int, angles_deg: jax.Array) -> jax.Array:
    """Kernels (B, side, side) of `blur.motion_kernel` for angles (B,)."""
    half = (length - 1) / 2
    radius = math.ceil(half) + 1
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    right, up = offsets[None, None, :], -offsets[None, :, None]
    angles = jnp.deg2rad(angles_deg)[:, None, None]
    along = right * jnp.cos(angles) + up * jnp.sin(angles)
    perpendicular = up * jnp.cos(angles) - right * jnp.sin(angles)
    distance = jnp.where(
        jnp.hypot(right, up) >= half,
        jnp.hypot(perpendicular, half - jnp.abs(along)),
        jnp.abs(perpendicular),
    )
    kernels = jnp.maximum(1 - distance, 0)
    return kernels / kernels.sum((1, 2), keepdims=True)


def _motion_blur(images: jax.Array, length: int, angles_deg: jax.Array) -> jax.Array:
    return _correlate(images, _motion_kernels(length, angles_deg))


def _color_diffusion(images: jax.Array, amount: float) -> jax.Array:
    lab = _lab(images)
    chroma = amount * _gaussian(lab[..., 1:], 1.5 * amount + 2)
    return _rgb(jnp.concatenate([lab[..., :1], chroma], axis=-1))


def _color_saturation_hsv(images: jax.Array, factor: float) -> jax.Array:
    value = images.max(-1, keepdims=True)
    return value - factor * (value - images)


def _color_saturation_lab(images: jax.Array, factor: float) -> jax.Array:
    return _rgb(_lab(images) * jnp.array([[[[1, factor, factor]]]], jnp.float32))


def _add_noise(images: jax.Array, variance: float, gauss: jax.Array) -> jax.Array:
    return (images + math.sqrt(variance) * gauss).clip(0, 1)


def _white_noise_ycbcr(images: jax.Array, variance: float, gauss: jax.Array) -> jax.Array:
    offset = jnp.asarray(spaces.YCBCR_OFFSET, jnp.float32).reshape(1, 1, 1, 3)
    noisy = _add_noise(_matrix(images, spaces.RGB_TO_YCBCR) + offset, variance, gauss)
    return _matrix(noisy - offset, spaces.YCBCR_TO_RGB).clip(0, 1)


def _impulse_noise(images: jax.Array, density: float, unif: jax.Array) -> jax.Array:
    return jnp.where(unif < density / 2, 0, jnp.where(unif < density, 1, images))


def _multiplicative_noise(images: jax.Array, variance: float, unif: jax.Array) -> jax.Array:
    return (images * (1 + math.sqrt(12 * variance) * (unif - 0.5))).clip(0, 1)


def _brighten(images: jax.Array, amount: float) -> jax.Array:
    middle = 0.5 + amount / 2
    lab = _lab(images)
    lightness = 100 * _parabola(lab[..., :1] / 100, middle)
    by_lab = _rgb(jnp.concatenate([lightness, lab[..., 1:]], axis=-1))
    return (2 * _parabola(images, middle) + by_lab) / 3


def _high_sharpen(images: jax.Array, amount: float) -> jax.Array:
    lab = _lab(images)
    lightness = lab[..., :1]
    lightness = lightness + amount * (lightness - _gaussian(lightness, 3))
    return _rgb(jnp.concatenate([lightness, lab[..., 1:]], axis=-1))


def _contrast_change(images: jax.Array, amount: float) -> jax.Array:
    first, third = contrast_coefficients(amount)
    offset = images - 0.5
    return ((third * offset * offset + first) * offset + 0.5).clip(0, 1)


BATCHED: Mapping[int, Callable[..., jax.Array]] = {
    1: _gaussian,
    2: lambda images, radius: _correlate(images, disc_kernel(radius)),
    3: _motion_blur,
    4: _color_diffusion,
    7: _color_saturation_hsv,
    8: _color_saturation_lab,
    11: _add_noise,
    12: _white_noise_ycbcr,
    13: _impulse_noise,
    14: _multiplicative_noise,
    16: _brighten,
    17: lambda images, amount: _parabola(images, 0.5 - amount / 2),
    18: lambda images, amount: (images + amount).clip(0, 1),
    24: _high_sharpen,
    25: _contrast_change,
}
"""What `distort_batch` knows, by KADID number: of images (B, H, W, 3) in 0..1 and the parameter."""
