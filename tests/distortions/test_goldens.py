"""Each KADID type against the images of the original generator, and wrong variants against them."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from glpi_jax.distortions import DISTORTIONS, color, compression, distort, noise, sharpness, spatial
from glpi_jax.distortions.color_dithering import variance_palettes
from glpi_jax.distortions.thresholds import (
    between_class_variance,
    histogram_256,
    otsu_thresholds,
)
from glpi_jax.distortions.unit_image import UnitImage


def check(goldens, case) -> tuple[float, float]:
    """PSNR to the golden image and the PSNR it must reach."""
    made = distort(
        goldens.reference_of(case), case["type"], case["level"], draw=goldens.draw_of(case)
    )
    return goldens.psnr(made, goldens.golden_of(case)), case["tolerance"]["psnr_vs_golden_min_db"]


def unit_image(pixels):
    low, high = float(pixels.min()), float(pixels.max())
    return UnitImage(((pixels - low) / (high - low)).astype(np.float32))


def test_matches_the_original(goldens, golden_case):
    assert golden_case["name"].startswith(DISTORTIONS[golden_case["type"]].name)
    assert DISTORTIONS[golden_case["type"]].levels[golden_case["level"] - 1] == golden_case["param"]
    reached, needed = check(goldens, golden_case)
    assert reached >= needed


def test_thresholds_are_those_of_the_original(goldens, thresholds_case):
    image = unit_image(goldens.reference_of(thresholds_case))
    found = otsu_thresholds(histogram_256(image.rgb), thresholds_case["param"])
    assert found.tolist() == thresholds_case["thresholds_255"]
    searched = distort(
        goldens.reference_of(thresholds_case), thresholds_case["type"], thresholds_case["level"]
    )
    assert goldens.psnr(searched, goldens.golden_of(thresholds_case)) >= 60


def test_palette_is_that_of_the_original(goldens, palette_case):
    pixels = unit_image(goldens.reference_of(palette_case)).pixels
    (palette,) = variance_palettes(pixels, [palette_case["param"]])
    ours = {tuple(color) for color in palette.tolist()}
    theirs = {tuple(color) for color in palette_case["palette_u8"]}
    # A rounded half may move the mean of a box by one.
    assert len(ours ^ theirs) <= 0.1 * len(theirs)


def test_encoded_size_is_that_of_the_original(goldens, size_case):
    pixels = unit_image(goldens.reference_of(size_case)).pixels
    encode = {9: compression.encode_jpeg2000, 10: compression.encode_jpeg}[size_case["type"]]
    encoded = encode(pixels, size_case["param"])
    # A JPEG encoder may write its header in another way, some 20 bytes more or less.
    assert abs(len(encoded) - size_case["encoded_bytes"]) <= 30 + 0.03 * size_case["encoded_bytes"]


def test_codecs_on_a_photograph(goldens, codec_case):
    reference = goldens.reference_of(codec_case)
    made = distort(reference, codec_case["type"], codec_case["level"])
    expected = codec_case["stats"]["psnr_mmref_mean"]
    assert (
        abs(goldens.psnr(made, reference) - expected)
        <= (codec_case["tolerance"]["psnr_mmref_abs_db"])
    )
    encode = {9: compression.encode_jpeg2000, 10: compression.encode_jpeg}[codec_case["type"]]
    encoded = len(encode(reference, codec_case["param"]))
    bytes_rel = codec_case["tolerance"]["bytes_rel"]
    assert abs(encoded / codec_case["encoded_bytes"] - 1) <= bytes_rel


def test_random_draws_have_the_statistics_of_the_original(goldens, stat_case):
    """Means over 40 own draws against means over 40 runs of the original."""
    reference = goldens.reference_of(stat_case)
    stretched = unit_image(reference).pixels
    rng = np.random.default_rng(stat_case["type"] * 10 + stat_case["level"])
    to_reference, to_stretched, spreads = [], [], []
    for _ in range(40):
        made = distort(reference, stat_case["type"], stat_case["level"], rng=rng)
        to_reference.append(goldens.psnr(made, reference))
        to_stretched.append(goldens.psnr(made, stretched))
        spreads.append((made.astype(float) - stretched).std(axis=(0, 1)))
    stats, tolerance = stat_case["stats"], stat_case["tolerance"]
    assert abs(np.mean(to_reference) - stats["psnr_ref_mean"]) <= tolerance["psnr_ref_mean_abs_db"]
    assert (
        abs(np.mean(to_stretched) - stats["psnr_mmref_mean"]) <= tolerance["psnr_mmref_mean_abs_db"]
    )
    for channel, spread in zip("RGB", np.mean(spreads, axis=0), strict=True):
        expected = stats[f"diff_std_{channel}"]
        if expected > 0.5:
            assert abs(spread / expected - 1) <= tolerance["diff_std_rel"]


# Wrong variants: plausible mistakes that the goldens have to tell from the original.


def bilinear(planes, row_shift, column_shift, pad_rows, pad_columns):
    rows, columns = np.indices(row_shift.shape)
    positions = [rows - row_shift, columns - column_shift]
    sampled = [
        ndimage.map_coordinates(plane, positions, order=1, mode="nearest") for plane in planes
    ]
    return np.stack(sampled)


def clipping_rgb_from_lab(lab):
    """What image libraries do: negative XYZ becomes 0."""
    f_y = (lab[..., 0] + 16) / 116
    f_z = np.maximum(f_y - lab[..., 2] / 200, np.float32(4 / 29))
    return RGB_FROM_LAB(np.stack([lab[..., 0], lab[..., 1], 200 * (f_y - f_z)], axis=-1))


RGB_FROM_LAB = color.rgb_from_lab
DITHER = color.dither


def dither_along_rows(pixels, palettes):
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    return [made.transpose(1, 0, 2) for made in DITHER(turned, palettes)]


def jpeg2000_without_color_transform(pixels, ratio):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, format="JPEG2000", irreversible=True, num_resolutions=6, quality_layers=[ratio]
    )
    return buffer.getvalue()


def from_zero_based_corner(uniforms, height, width):
    rectangles = spatial.block_rectangles(uniforms, height, width)
    rectangles[:, :2] += 1
    return rectangles


def reordered_patches(uniforms, height, width):
    return PATCH_CORNERS(uniforms[:, [1, 0, 2, 3]], height, width)


PATCH_CORNERS = spatial.patch_corners
ADD_WHITE_NOISE = noise._add_white_noise


@pytest.mark.parametrize(
    ("case_id", "module", "name", "wrong"),
    [
        ("motorcycle/19_5", spatial, "sample_displaced", bilinear),
        ("motorcycle/04_5", color, "rgb_from_lab", clipping_rgb_from_lab),
        ("motorcycle/08_5", color, "rgb_from_lab", clipping_rgb_from_lab),
        ("motorcycle/06_3", color, "dither", dither_along_rows),
        ("motorcycle/09_1", compression, "encode_jpeg2000", jpeg2000_without_color_transform),
        ("motorcycle/20_1", spatial, "patch_corners", reordered_patches),
        (
            "motorcycle/12_5",
            noise,
            "_add_white_noise",
            lambda image, variance, field: ADD_WHITE_NOISE(image, variance, field[..., ::-1]),
        ),
        ("motorcycle/05_5", color, "edge_weight", lambda image: np.ones(image.shape[:2])),
        ("motorcycle/24_3", sharpness, "gaussian_filter", lambda plane, _: plane * 0.99),
    ],
    ids=[
        "jitter bilinear",
        "diffusion with clipped XYZ",
        "saturation with clipped XYZ",
        "dithering along rows",
        "JPEG 2000 without colour transform",
        "patches with swapped draws",
        "noise on reversed channels",
        "shift everywhere",
        "sharpening without blur",
    ],
)
def test_wrong_variant_is_noticed(goldens, monkeypatch, case_id, module, name, wrong):
    monkeypatch.setattr(module, name, wrong)
    reached, needed = check(goldens, goldens.case(case_id))
    assert reached < needed


@pytest.mark.parametrize("case_id", ["motorcycle/01_5", "motorcycle/02_5", "motorcycle/18_5"])
def test_missing_final_stretch_is_noticed(goldens, case_id):
    case = goldens.case(case_id)
    image = unit_image(goldens.reference_of(case))
    distortion = DISTORTIONS[case["type"]]
    unstretched = np.clip(distortion.function(image, case["param"]) * 255.0 + 0.5, 0, 255)
    reached = goldens.psnr(unstretched.astype(np.uint8), goldens.golden_of(case))
    assert reached < case["tolerance"]["psnr_vs_golden_min_db"]


def test_histogram_of_the_threshold_search_needs_float32_then_float64(goldens):
    """Which way a half rounds decides the path: plain float32 ends at other thresholds."""

    def in_float32_alone(image):
        levels = np.floor(image * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        return np.bincount(levels.ravel(), minlength=256).astype(np.float64)

    case = goldens.case("motorcycle/22_1")
    image = unit_image(goldens.reference_of(case)).rgb
    found = otsu_thresholds(histogram_256(image), case["param"]).tolist()
    assert found == case["thresholds_255"]
    assert otsu_thresholds(in_float32_alone(image), case["param"]).tolist() != found


def test_thresholds_separate_as_well_as_the_originals(goldens):
    """Otsu's criterion itself, from its definition by class means."""
    case = goldens.case("motorcycle/22_5")
    histogram = histogram_256(unit_image(goldens.reference_of(case)).rgb)
    thresholds = np.array(case["thresholds_255"], dtype=float)
    classes = np.digitize(np.arange(256), thresholds, right=True)
    share = histogram / histogram.sum()
    mean = (share * np.arange(256)).sum()
    expected = sum(
        share[classes == k].sum()
        * (np.average(np.arange(256)[classes == k], weights=share[classes == k]) - mean) ** 2
        for k in range(len(thresholds) + 1)
    )
    assert between_class_variance(histogram)(thresholds) == pytest.approx(expected, rel=1e-9)
