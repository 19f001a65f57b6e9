"""Kernels, curves, colour spaces and index maps against published or recorded values."""

import colorsys

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from glpi_jax.distortions import DISTORTIONS, blur, brightness, color, noise, sharpness, spatial
from glpi_jax.distortions.color_dithering import dither, variance_palettes
from glpi_jax.distortions.color_spaces import (
    lab_from_rgb,
    rgb_from_lab,
    rgb_from_ycbcr,
    ycbcr_from_rgb,
)
from glpi_jax.distortions.cubic_convolution import sample_displaced
from glpi_jax.distortions.draws import Draw
from glpi_jax.distortions.filters import (
    PaddedSpectrum,
    correlate_sparse,
    gaussian_filter,
    gaussian_weights,
)
from glpi_jax.distortions.thresholds import minimise_nelder_mead
from glpi_jax.distortions.unit_image import UnitImage


def pixel(*values):
    return np.array([[values]], dtype=np.float32)


def colors(count=200):
    return np.random.default_rng(0).random((1, count, 3), dtype=np.float32)


def given(values):
    """A draw whose values are given."""
    return Draw("a type", "its draw", given=values)


def centred(kernel, side):
    """The kernel cut or padded with zeros to side x side."""
    margin = (kernel.shape[0] - side) // 2
    if margin > 0:
        cut = kernel[margin:-margin, margin:-margin]
        assert cut.sum() == pytest.approx(kernel.sum(), abs=1e-12)
        return cut
    return np.pad(kernel, -margin)


# Blur


def test_disc_kernels(goldens):
    arrays = goldens.load_arrays("kernels.npz")
    for radius, expected in zip(arrays["disk_r"], arrays["disk"], strict=True):
        kernel = blur.disc_kernel(int(radius))
        assert kernel.shape == (2 * radius + 1, 2 * radius + 1)
        np.testing.assert_allclose(centred(kernel, expected.shape[0]), expected, atol=1e-9)


def test_disc_of_radius_1_has_one_over_pi_in_the_centre(goldens):
    kernel = blur.disc_kernel(1)
    assert kernel[1, 1] == pytest.approx(1 / np.pi)
    anchors = goldens.unit()["doc_anchors"]
    np.testing.assert_allclose(kernel, anchors["fspecial_disk_1"], atol=5e-4)


def test_motion_kernels_at_every_angle(goldens):
    arrays = goldens.load_arrays("kernels.npz")
    for length, of_angle in zip(arrays["motion_len"], arrays["motion"], strict=True):
        for angle, expected in enumerate(of_angle):
            kernel = blur.motion_kernel(int(length), angle)
            # Stored by columns, hence transposed.
            np.testing.assert_allclose(
                centred(kernel, expected.shape[0]).T,
                expected,
                atol=1e-6,
                err_msg=f"{length} {angle}",
            )


def test_motion_is_counter_clockwise(goldens):
    anchor = goldens.unit()["doc_anchors"]["fspecial_motion_3_45"]
    np.testing.assert_allclose(centred(blur.motion_kernel(3, 45), 3), anchor, atol=5e-4)
    assert not np.allclose(centred(blur.motion_kernel(3, 135), 3), anchor, atol=5e-2)


def test_motion_kernel_is_not_the_textbook_distance_to_a_segment():
    """Beside a short oblique line's ends it differs from the distance to the segment."""
    kernel = blur.motion_kernel(2, 10)
    radius = kernel.shape[0] // 2
    down, right = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    angle = np.radians(10)
    along = right * np.cos(angle) - down * np.sin(angle)
    perpendicular = down * np.cos(angle) + right * np.sin(angle)
    distance = np.hypot(perpendicular, np.maximum(np.abs(along) - 0.5, 0))
    textbook = np.maximum(1 - distance, 0)
    assert np.abs(kernel - textbook / textbook.sum()).max() > 0.005


def test_motion_of_length_1_and_gauss_of_sigma_0_1_are_the_identity():
    image = colors(60).reshape(6, 10, 3)
    np.testing.assert_array_equal(blur.motion_blur(UnitImage(image), 1, given(37)), image)
    np.testing.assert_array_equal(blur.gaussian_blur(UnitImage(image), 0.1), image)


def test_gaussian_weights():
    assert [len(gaussian_weights(sigma)) for sigma in (0.1, 0.5, 1, 2, 5)] == [3, 3, 5, 9, 21]
    assert gaussian_weights(0.1).tolist() == [0, 1, 0]
    weights = gaussian_weights(1)
    np.testing.assert_allclose(weights[1:4] / weights[2], [np.exp(-0.5), 1, np.exp(-0.5)])


def correlate_by_spectrum(image, kernel):
    spectrum = PaddedSpectrum(np.moveaxis(image, -1, 0), 4)
    return np.moveaxis(spectrum.correlate(kernel), 0, -1)


@pytest.mark.parametrize("correlate", [correlate_sparse, correlate_by_spectrum])
def test_correlation_replicates_edges_and_does_not_flip(correlate):
    image = colors(12 * 9).reshape(12, 9, 3)
    kernel = np.random.default_rng(1).random((5, 3))
    padded = np.pad(image.astype(np.float64), ((2, 2), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 3), axis=(0, 1))
    expected = np.einsum("hwcij,ij->hwc", windows, kernel)
    np.testing.assert_allclose(correlate(image, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 2, 5])
def test_separable_filters_are_the_product_of_rows_and_columns(sigma):
    image = colors(130 * 70).reshape(130, 70, 3)
    weights = gaussian_weights(sigma)
    expected = correlate_sparse(image, np.outer(weights, weights))
    np.testing.assert_allclose(gaussian_filter(image, sigma), expected, atol=2e-6)
    spectrum = PaddedSpectrum(np.moveaxis(image, -1, 0), len(weights) // 2)
    by_spectrum = np.moveaxis(spectrum.correlate_separable(weights), 0, -1)
    np.testing.assert_allclose(by_spectrum, expected, atol=2e-6)


def test_separable_filters_do_not_flip_the_spectrum():
    image = colors(9 * 8).reshape(9, 8, 3)
    weights = np.array([0.7, 0.2, 0.1])
    spectrum = PaddedSpectrum(np.moveaxis(image, -1, 0), 3)
    np.testing.assert_allclose(
        spectrum.correlate_separable(weights),
        spectrum.correlate(np.outer(weights, weights)),
        atol=1e-6,
    )


def test_gaussian_filter_of_a_plane_is_that_of_a_channel():
    image = colors(12 * 9).reshape(12, 9, 3)
    np.testing.assert_array_equal(
        gaussian_filter(image, 2)[..., 1], gaussian_filter(np.ascontiguousarray(image[..., 1]), 2)
    )


# Colour


def test_lab_anchors(goldens):
    anchors = goldens.unit()["doc_anchors"]
    for lab, rgb in anchors["lab2rgb"]:
        np.testing.assert_allclose(rgb_from_lab(pixel(*lab))[0, 0], rgb, atol=5e-4)
    np.testing.assert_allclose(
        lab_from_rgb(pixel(1, 1, 1))[0, 0], anchors["rgb2lab_white"], atol=5e-4
    )


def test_lab_round_trip_inside_and_outside_the_gamut():
    inside = colors()
    np.testing.assert_allclose(rgb_from_lab(lab_from_rgb(inside)), inside, atol=2e-5)
    outside = lab_from_rgb(inside) * np.array([1, 6, 6], dtype=np.float32)
    assert rgb_from_lab(outside).min() < -0.2
    np.testing.assert_allclose(lab_from_rgb(rgb_from_lab(outside)), outside, atol=2e-2)


def test_ycbcr_is_bt_601_studio_swing():
    primaries = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]]], dtype=np.float32)
    expected = [[16, 128, 128], [235, 128, 128], [81.481, 90.203, 240], [40.966, 240, 109.786]]
    np.testing.assert_allclose(ycbcr_from_rgb(primaries)[0] * 255, expected, atol=1e-3)
    np.testing.assert_allclose(rgb_from_ycbcr(ycbcr_from_rgb(colors())), colors(), atol=1e-6)


@pytest.mark.parametrize("factor", [0.4, 0.1, 0, -0.4])
def test_hsv_saturation_is_that_of_the_definition(factor):
    image = colors(50)
    result = color.color_saturation_hsv(UnitImage(image), factor)
    for before, after in zip(image[0].tolist(), result[0].tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        # hsv_to_rgb is linear in the saturation, also below 0.
        full = np.array(colorsys.hsv_to_rgb(hue, 1, value))
        expected = value - factor * saturation * (value - full)
        np.testing.assert_allclose(after, expected, atol=1e-6)


def test_negative_hsv_saturation_exceeds_1_unclipped():
    assert color.color_saturation_hsv(UnitImage(pixel(1, 0.5, 0)), -0.4)[
        0, 0
    ].tolist() == pytest.approx([1, 1.2, 1.4])


def test_color_shift_changes_green_alone():
    image = colors(40 * 30).reshape(40, 30, 3)
    result = color.color_shift(UnitImage(image), 6, given([0.6, 0.8]))
    np.testing.assert_array_equal(result[..., [0, 2]], image[..., [0, 2]])
    weight = color.edge_weight(UnitImage(image))
    assert weight.min() == 0
    assert weight.max() == 1
    row, column = np.unravel_index(weight[4:, 5:].argmax(), weight[4:, 5:].shape)
    assert result[row + 4, column + 5, 1] == image[row, column, 1]


def test_dithering_by_hand():
    """One column of two pixels and its right neighbour, shares of an error of 100 (and -100)."""
    palette = np.array([[0, 0, 0], [255, 255, 255]], dtype=np.uint8)
    for start, white in ((100, False), (155, True)):
        pixels = np.full((3, 2, 3), start, dtype=np.uint8)
        error = start - 255 * white
        down = np.copysign(np.floor(abs(error) * 7 / 16 + 0.5), error)
        (made,) = dither(pixels, [palette])
        assert made[0, 0, 0] == 255 * white
        second = start + down
        assert made[1, 0, 0] == 255 * (((int(second) >> 3) * 8 + 4) > 127)


def test_dithering_keeps_palette_and_mean():
    pixels = np.broadcast_to(
        np.linspace(20, 230, 64).astype(np.uint8)[None, :, None], (48, 64, 3)
    ).copy()
    palette = np.array([[0, 0, 0], [85, 85, 85], [170, 170, 170], [255, 255, 255]], dtype=np.uint8)
    (made,) = dither(pixels, [palette])
    assert set(np.unique(made)) <= {0, 85, 170, 255}
    assert abs(made.mean() - pixels.mean()) < 2


@pytest.mark.parametrize("size", [(37, 20), (20, 37), (1, 30), (30, 1), (2, 2), (1, 1)])
def test_dithering_one_pixel_after_the_other(size):
    """The diagonal order against the plain loop of Floyd and Steinberg, two palettes at once."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    palettes = [rng.integers(0, 256, (count, 3), dtype=np.uint8) for count in (8, 3)]
    for made, palette in zip(dither(pixels, palettes), palettes, strict=True):
        np.testing.assert_array_equal(made, dithered_by_loop(pixels, palette))


def dithered_by_loop(pixels, palette):
    height, width = pixels.shape[:2]
    values = pixels.astype(int)
    for column in range(width):
        for row in range(height):
            value = values[row, column].clip(0, 255)
            centre = (value >> 3) * 8 + 4
            chosen = palette[((palette.astype(int) - centre) ** 2).sum(axis=1).argmin()]
            values[row, column] = chosen
            error = value - chosen.astype(int)
            for down, right, share in ((1, 0, 7), (0, 1, 5), (-1, 1, 3), (1, 1, 1)):
                if 0 <= row + down < height and column + right < width:
                    part = np.sign(error) * ((2 * np.abs(error) * share + 16) // 32)
                    values[row + down, column + right] += part
    return values


def test_palettes_made_together_are_those_made_alone():
    pixels = (colors(32 * 32).reshape(32, 32, 3) * 255).astype(np.uint8)
    together = variance_palettes(pixels, [64, 8, 300])
    for count, palette in zip((64, 8, 300), together, strict=True):
        np.testing.assert_array_equal(palette, variance_palettes(pixels, [count])[0])


def test_palette_of_few_colors_is_exact_and_bounded():
    four = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=np.uint8)
    pixels = four[np.arange(64).reshape(8, 8) % 4]
    assert {tuple(c) for c in variance_palettes(pixels, [8])[0].tolist()} == {
        tuple(c) for c in four.tolist()
    }
    noisy = (colors(32 * 32).reshape(32, 32, 3) * 255).astype(np.uint8)
    assert len(variance_palettes(noisy, [16])[0]) == 16


# Brightness and contrast


def test_tone_curves(goldens):
    curves = goldens.unit()["curves"]
    ramp = np.linspace(0, 1, 11, dtype=np.float32)
    tested = 0
    for middle, expected in curves.items():
        if not middle.startswith("["):
            np.testing.assert_allclose(
                brightness.parabola(ramp, float(middle)), expected, atol=1e-6
            )
            tested += 1
    assert tested == 10
    for amount in DISTORTIONS[25].levels:
        key = f"[{0.25 - amount / 4:.6g} {0.75 + amount / 4:.6g}]"
        np.testing.assert_allclose(sharpness.contrast_curve(ramp, amount), curves[key], atol=1e-6)


def test_contrast_of_amount_0_is_not_the_identity():
    ramp = np.linspace(0, 1, 11, dtype=np.float32)
    assert np.abs(sharpness.contrast_curve(ramp, 0) - ramp).max() > 0.05


@pytest.mark.parametrize("amount", [0.3, 0, -0.6])
def test_contrast_curve_is_the_not_a_knot_spline(amount):
    values = np.linspace(0, 1, 500, dtype=np.float32)
    heights = [0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1]
    spline = CubicSpline([0, 0.3, 0.5, 0.7, 1], heights, bc_type="not-a-knot")
    np.testing.assert_allclose(
        sharpness.contrast_curve(values, amount), spline(values).clip(0, 1), atol=1e-7
    )


# Noise


def test_impulses_are_drawn_for_each_channel():
    image = np.full((1, 4, 3), 0.5, dtype=np.float32)
    field = np.full((1, 4, 3), 0.9)
    field[0, 0, 0], field[0, 1, 1], field[0, 2, 2] = 0.004, 0.006, 0.0101
    result = noise.impulse_noise(UnitImage(image), 0.01, given(field))
    assert result[0, 0].tolist() == [0, 0.5, 0.5]
    assert result[0, 1].tolist() == [0.5, 1, 0.5]
    assert result[0, 2].tolist() == [0.5, 0.5, 0.5]


def test_speckle_is_uniform_with_the_given_variance():
    image = np.full((200, 200, 3), 0.5, dtype=np.float32)
    draw = Draw("multiplicative_noise", "unif", np.random.default_rng(0))
    factor = noise.multiplicative_noise(UnitImage(image), 0.05, draw) / 0.5 - 1
    assert factor.var() == pytest.approx(0.05, rel=0.02)
    assert np.abs(factor).max() <= np.sqrt(12 * 0.05) / 2 + 1e-6


# Spatial


def test_pixelate_indices(goldens):
    for key, expected in goldens.unit()["pixelate_index_0based"].items():
        size, strength = key.split("@")
        assert spatial.pixelate_indices(int(size), float(strength)).tolist() == expected, key


def test_cubic_convolution_is_exact_on_parabolas_up_to_the_border():
    """Keys' kernel with its border rule reproduces second-order polynomials everywhere."""
    row, column = np.mgrid[0:6, 0:7].astype(np.float64)

    def surface(y, x):
        return 0.02 * y * y - 0.1 * y + 0.03 * x * x + 0.01 * x * y

    planes = surface(row, column).astype(np.float32)[None]
    rng = np.random.default_rng(0)
    rows, columns = rng.uniform(0, 5, row.shape), rng.uniform(0, 6, row.shape)
    rows[0, 0], columns[0, 0] = 5, 6
    result = sample_displaced(planes, row - rows, column - columns, 0, 0)
    np.testing.assert_allclose(result[0], surface(rows, columns), atol=1e-5)


def test_cubic_convolution_of_small_shifts_is_that_of_any_shift():
    """Shifts of at most a pixel take a way of their own: the general one must agree."""
    rng = np.random.default_rng(0)
    planes = rng.random((3, 40, 31), dtype=np.float32)
    shifts = rng.uniform(-1, 1, (2, 40, 31))
    shifts[:, 0, :3], shifts[:, 5, 5] = [[-1, 0, 1], [1, 0, -1]], 0
    near = sample_displaced(planes, *shifts, 1, 1)
    anywhere = sample_displaced(planes, *shifts, 2, 2)
    np.testing.assert_allclose(near[:, 1:-1, 1:-1], anywhere[:, 1:-1, 1:-1], atol=2e-6)
    np.testing.assert_allclose(near[:, 5, 5], planes[:, 5, 5], atol=1e-7)


def test_cubic_convolution_is_nan_outside():
    planes = np.ones((3, 5, 6), dtype=np.float32)
    row_shift, column_shift = np.zeros((5, 6)), np.zeros((5, 6))
    row_shift[0, :3] = [0, 0.01, -0.01]
    column_shift[3, [0, 5]] = [0.01, -0.01]
    row_shift[4, 4] = -0.01
    outside = np.isnan(sample_displaced(planes, row_shift, column_shift, 0, 0)[0])
    assert np.argwhere(outside).tolist() == [[0, 1], [3, 0], [3, 5], [4, 4]]


def test_jitter_pads_rows_by_the_column_shift():
    """A row shift alone leaves the rows nearly unpadded, so pixels at the edge are lost."""
    image = UnitImage(np.full((8, 8, 3), 0.5, dtype=np.float32))
    shifts = np.zeros((5, 8, 8, 2))
    shifts[0, 0, :, 0] = 3  # rows, upward, past the padding of ceil(0) rows
    result = spatial.jitter(image, 1, given(shifts))
    assert np.isnan(result[0]).all()
    shifts = np.zeros((5, 8, 8, 2))
    shifts[0, 0, :, 0] = shifts[0, 4, 4, 1] = 3
    assert not np.isnan(spatial.jitter(image, 1, given(shifts))).any()


def test_patches_are_copied_from_the_modified_image(goldens):
    case = goldens.case("motorcycle/20_5")
    uniforms = np.array(case["draw"]["rand_sequence"]).reshape(-1, 4)
    height, width = goldens.reference_of(case).shape[:2]
    corners = spatial.patch_corners(uniforms, height, width)
    assert corners.tolist() == case["draw"]["patches_0based_src_y_src_x_dst_y_dst_x"]
    image = goldens.reference_of(case).astype(np.float32) / 255
    at_once = image.copy()
    for row, column, to_row, to_column in corners.tolist():
        at_once[to_row : to_row + 16, to_column : to_column + 16] = image[
            row : row + 16, column : column + 16
        ]
    result = spatial.non_eccentricity_patch(UnitImage(image), 100, given(uniforms.ravel()))
    assert (result != at_once).any()


def test_a_block_at_corner_0_loses_a_row_and_a_column():
    uniforms = np.array([[0.2, 0.4, 0.6, 0.0, 0.0]])
    rectangles = spatial.block_rectangles(uniforms, 64, 80)
    assert rectangles.tolist() == [[0, 0, 32, 32, 0.2, 0.4, 0.6]]
    result = spatial.color_block(UnitImage(np.zeros((64, 80, 3), np.float32)), 1, given(rectangles))
    colored = result.any(axis=-1)
    assert colored.sum() == 31 * 31
    assert colored[:31, :31].all()
    np.testing.assert_allclose(result[0, 0], [0.2, 0.4, 0.6])


def test_block_corners_follow_the_order_of_the_draws():
    uniforms = np.array([[0.1, 0.2, 0.3, 1.0, 0.5]])
    assert spatial.block_rectangles(uniforms, 64, 80)[0, :2].tolist() == [48, 16]


def test_quantization_maps_to_the_upper_threshold():
    values = np.array([0.0, 50, 50.5, 100, 101, 200, 201, 255], dtype=np.float32) / 255
    image = np.repeat(values[None, :, None], 3, axis=2)
    result = spatial.quantization(UnitImage(image), 3, given([50, 100, 200]))
    assert (result[0, :, 0] * 255).round().tolist() == [0, 0, 100, 100, 200, 200, 255, 255]


# Threshold search


def searched(x_tolerance, max_evaluations, objective=None):
    """Result and number of evaluations of a search for the minimum (3, -1) of a bowl."""
    calls = []

    def bowl(point):
        calls.append(point.copy())
        return float((point[0] - 3) ** 2 + 2 * (point[1] + 1) ** 2)

    best = minimise_nelder_mead(
        objective or bowl, np.array([1.0, 2.0]), x_tolerance, 1e-4, max_evaluations
    )
    return best, calls


def test_nelder_mead_stops_by_tolerance_and_by_count():
    fine, many = searched(1e-3, 1000)
    np.testing.assert_allclose(fine, [3, -1], atol=1e-2)
    coarse, fewer = searched(1, 1000)
    assert len(fewer) <= len(many) < 1000
    np.testing.assert_allclose(coarse, [3, -1], atol=0.5)
    _, counted = searched(1e-3, 12)
    assert 12 <= len(counted) <= 14


def test_nelder_mead_starts_from_a_simplex_of_5_percent():
    _, calls = searched(1, 100)
    np.testing.assert_allclose(calls[:3], [[1, 2], [1.05, 2], [1, 2.1]])


def test_nelder_mead_outside_its_domain_returns_the_start():
    best, _ = searched(1, 100, objective=lambda _: np.inf)
    assert best.tolist() == [1, 2]
