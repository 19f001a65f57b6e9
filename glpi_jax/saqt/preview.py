"""A contact sheet: one photograph under every type and level, with KADID-10k's mean scores."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from glpi_jax.distortions import DISTORTIONS, LEVELS, MEAN_DMOS, Distorter, seed_for

_MARGIN, _NAMES_WIDTH, _TEXT_HEIGHT = 8, 190, 18
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def distortion_sheet(photograph: np.ndarray, *, name: str, seed: int, cell: int) -> Image.Image:
    """Draw a photograph's 125 distortions: a row a type, a column a level, scores below.

    The photograph is distorted as it is and only then reduced, so that a sheet of small cells shows
    less of fine distortions than the images have.

    Args:
        photograph: (height, width, 3) uint8, at least 32 pixels on a side.
        name: what the random distortions are seeded by, with the seed.
        seed: of the random distortions.
        cell: longer side of a picture in the sheet, in pixels.

    Raises:
        GlpiError: the photograph is too small for a type, or a package for type 15 is missing.
    """
    height, width = photograph.shape[:2]
    factor = min(1.0, cell / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    column, row = size[0] + _MARGIN, size[1] + _TEXT_HEIGHT + _MARGIN
    sheet = Image.new(
        "RGB",
        (_NAMES_WIDTH + len(LEVELS) * column + _MARGIN, len(DISTORTIONS) * row + 2 * _TEXT_HEIGHT),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for level in LEVELS:
        draw.text((_NAMES_WIDTH + (level - 1) * column, _MARGIN), f"level {level}", _INK, font)
    distorter = Distorter(photograph)
    for index, (number, distortion) in enumerate(DISTORTIONS.items()):
        top = 2 * _TEXT_HEIGHT + index * row
        draw.text((_MARGIN, top), f"{number}  {distortion.name}", _INK, font)
        draw.text((_MARGIN, top + _TEXT_HEIGHT), distortion.group, (110, 110, 110), font)
        images = distorter.distort_levels(
            number, [seed_for(name, number, level, seed) for level in LEVELS]
        )
        scores = MEAN_DMOS.get(number)
        for level, image in zip(LEVELS, images, strict=True):
            left = _NAMES_WIDTH + (level - 1) * column
            small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
            sheet.paste(small, (left, top))
            if scores is not None:
                draw.text((left, top + size[1] + 1), f"{scores[level - 1]:.2f}", _INK, font)
    return sheet
