"""KADID group blur: Gaussian (1), lens (2) and motion blur (3)."""

import math

import numpy as np
from numpy.typing import NDArray

from glpi_jax.distortions.color_spaces import FloatImage
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.filters import PaddedSpectrum, correlate_sparse, gaussian_filter
from glpi_jax.distortions.unit_image import UnitImage

_LENS_MARGIN = 8  # the largest radius of the five levels


def gaussian_blur(image: UnitImage, sigma: float) -> FloatImage:
    """Type 1: Gaussian blur of `sigma` pixels (imblurgauss.m); sigma 0.1 is the identity."""
    return gaussian_filter(image.rgb, sigma)


def disc_kernel(radius: int) -> NDArray[np.float64]:
    """Share of each pixel inside a disc of integer `radius`, normalised; side 2*radius+1.

    The area of a disc over a pixel is an integral of clipped half chords, taken exactly: the
    chord half length sqrt(r^2 - x^2) is split where it crosses the pixel's lower and upper edge.
    """

    def area_below_arc(x: float) -> float:
        """Integral of sqrt(radius^2 - t^2) over t from 0 to x, for 0 <= x <= radius."""
        return 0.5 * (x * math.sqrt(radius**2 - x**2) + radius**2 * math.asin(x / radius))

    def pixel_area(column: int, row: int) -> float:
        """Area of the disc in the pixel centred at (column, row), for 0 <= row, column.

        Of a pixel that an axis runs through, twice the half on one side.
        """
        left, right = max(0.0, column - 0.5), min(column + 0.5, radius)
        lower, upper = max(0.0, row - 0.5), row + 0.5
        # Left of `full_until` the arc is above the pixel, right of `empty_from` below it.
        full_until = math.sqrt(radius**2 - upper**2) if upper < radius else 0.0
        empty_from = math.sqrt(radius**2 - lower**2) if lower < radius else 0.0
        full_until = min(max(full_until, left), right)
        empty_from = min(max(empty_from, left), right)
        area = (full_until - left) * (upper - lower)
        area += area_below_arc(empty_from) - area_below_arc(full_until)
        area -= (empty_from - full_until) * lower
        return area * (2 if row == 0 else 1) * (2 if column == 0 else 1)

    quadrant = np.array(
        [[pixel_area(column, row) for column in range(radius + 1)] for row in range(radius + 1)]
    )
    upper_half = np.hstack([quadrant[:, :0:-1], quadrant])
    kernel = np.vstack([upper_half[:0:-1], upper_half])
    return kernel / kernel.sum()


def _lens_spectrum(image: UnitImage) -> PaddedSpectrum:
    return PaddedSpectrum(np.moveaxis(image.rgb, -1, 0), _LENS_MARGIN)


def lens_blur(image: UnitImage, radius: int) -> FloatImage:
    """Type 2: correlation with a disc of `radius` pixels, at most 8 (imblurlens.m)."""
    blurred = image.once(_lens_spectrum).correlate(disc_kernel(radius))
    return np.ascontiguousarray(np.moveaxis(blurred, 0, -1))


def motion_kernel(length: int, angle_deg: float) -> NDArray[np.float64]:
    """Line of `length` pixels turned `angle_deg` counter-clockwise, as MATLAB's fspecial draws it.

    The weight of a pixel falls linearly with its distance to the line; beyond the line's ends the
    distance is to the end point, decided by the distance to the centre (not the usual segment).
    """
    half = (length - 1) / 2
    radius = math.ceil(half) + 1
    right, down = np.meshgrid(np.arange(-radius, radius + 1), np.arange(-radius, radius + 1))
    angle = math.radians(angle_deg)
    along = right * math.cos(angle) - down * math.sin(angle)
    perpendicular = -down * math.cos(angle) - right * math.sin(angle)
    beyond = np.hypot(right, down) >= half
    distance = np.where(
        beyond, np.hypot(perpendicular, half - np.abs(along)), np.abs(perpendicular)
    )
    kernel = np.maximum(1 - distance, 0)
    kernel[kernel < np.finfo(np.float64).eps * length**2] = 0
    return kernel / kernel.sum()


def motion_blur(image: UnitImage, length: int, draw: Draw) -> FloatImage:
    """Type 3: motion of `length` pixels (imblurmotion.m); length 1 is the identity.

    The draw is the angle, a whole number of degrees, uniform on 0..180 inclusive.
    """
    angle = draw.take((), lambda rng: rng.integers(0, 181))
    return correlate_sparse(image.rgb, motion_kernel(length, float(angle)))
