"""The best and the worst of many photographs as one picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from glpi_jax.scoring.picture_files import shrunk
from glpi_jax.scoring.reading import read_pixels
from glpi_jax.scoring.results import ImageScore

_MARGIN, _LINE, _HEADING = 10, 17, 26
_INK, _MUTED, _PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)


def contact_sheet(
    groups: Sequence[tuple[str, Sequence[ImageScore]]], *, columns: int, cell: int
) -> Image.Image:
    """Draw groups of photographs with their scores and file names.

    Args:
        groups: the heading of each group, and its photographs, which are read again.
        columns: photographs side by side, drawn upright.
        cell: longer side of a photograph in the sheet, in pixels.

    Raises:
        ImageError: a photograph cannot be read any more.
    """
    row = cell + 2 * _LINE + _MARGIN
    heights = [_HEADING + -(-len(results) // columns) * row for _, results in groups]
    sheet = Image.new(
        "RGB", (columns * (cell + _MARGIN) + _MARGIN, sum(heights) + 2 * _MARGIN), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    font, heading_font = ImageFont.load_default(size=13), ImageFont.load_default(size=17)
    top = _MARGIN
    for (heading, results), height in zip(groups, heights, strict=True):
        draw.text((_MARGIN, top), heading, _INK, heading_font)
        for index, result in enumerate(results):
            left = _MARGIN + index % columns * (cell + _MARGIN)
            above = top + _HEADING + index // columns * row
            small = shrunk(read_pixels(result.image, apply_orientation=True), cell)
            sheet.paste(small, (left + (cell - small.width) // 2, above + cell - small.height))
            score = f"{result.score:.3f}"
            if result.standard_error is not None:
                score += f" ± {result.standard_error:.3f}"
            draw.text((left, above + cell + 2), score, _INK, font)
            name = _fitting(result.image.rpartition("/")[2], cell, font)
            draw.text((left, above + cell + 2 + _LINE), name, _MUTED, font)
        top += height
    return sheet


def _fitting(name: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The name in one line that can be drawn, its end if it is too long."""
    name = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    if font.getlength(name) <= width:
        return name
    while name and font.getlength(f"…{name}") > width:
        name = name[1:]
    return f"…{name}"
