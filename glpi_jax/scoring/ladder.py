"""A photograph under rising distortion, scored level by level, and the picture of it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from glpi_jax.core.errors import GlpiError
from glpi_jax.distortions import LEVELS, Distorter, find_distortion, seed_for
from glpi_jax.report.plot_style import settings_of
from glpi_jax.scoring.reading import Source, read_pixels
from glpi_jax.scoring.scorer import Scorer

LADDER_LEVELS = (0, *LEVELS)  # 0 is the photograph as it came

_CUT_PIXELS = 260  # longer side of what is shown of a picture
_CELL_INCHES, _CURVE_INCHES = 1.75, 2.6
_DOTS_PER_INCH = 120
_COLOR = "#0072b2"
_SETTINGS: dict[Any, Any] = {"errorbar.capsize": 2, "font.size": 9, "text.parse_math": False}


@dataclass(frozen=True, eq=False)
class Ladder:
    """One distortion type at level 0 (untouched) to 5.

    Attributes:
        name: of the type.
        images: six (height, width, 3) uint8 arrays.
        scores: (6,) float64.
        standard_errors: (6,) float64, of the mean over the crops; NaN where there is one crop.
    """

    name: str
    images: tuple[np.ndarray, ...]
    scores: np.ndarray
    standard_errors: np.ndarray


def score_ladders(
    scorer: Scorer, image: Source, types: Sequence[int | str], *, seed: int = 0
) -> list[Ladder]:
    """Distort a photograph by KADID-10k's types at all their levels, and score each picture.

    The photograph is distorted in its own size; the model's resize follows, as in training.

    Args:
        scorer: the model.
        image: as in `Scorer.score`.
        types: numbers or names of types, such as 1 or "gaussian_blur".
        seed: of the random distortions.

    Returns:
        A ladder for each type, in order.

    Raises:
        ImageError: the image cannot be read, or is too small to be scored.
        GlpiError: an unknown type, none at all, or an image that is too small for one of them.
    """
    if not types:
        raise GlpiError("a ladder needs at least one distortion type")
    distortions = [find_distortion(kind) for kind in types]
    pixels = read_pixels(image, apply_orientation=scorer.preprocessing.apply_orientation)
    distorter = Distorter(pixels)
    pictures = [pixels]
    for distortion in distortions:
        number = distortion.number
        rngs = [seed_for("ladder", number, level, seed) for level in LEVELS]
        pictures += distorter.distort_levels(number, rngs)
    results = scorer.score(pictures)
    scores = np.array([result.score for result in results], float)
    errors = np.array([result.standard_error for result in results], float)
    ladders = []
    for index, distortion in enumerate(distortions):
        first = 1 + index * len(LEVELS)
        places = [0, *range(first, first + len(LEVELS))]
        images = tuple(pictures[i] for i in places)
        ladders.append(Ladder(distortion.name, images, scores[places], errors[places]))
    return ladders


def ladder_picture(ladders: Sequence[Ladder], *, scale: str) -> bytes:
    """Draw ladders: a row a type, its pictures with their scores, and the scores as a curve.

    Of large pictures the centre is shown, pixel for pixel: noise is not to be seen in reduced ones.

    Returns a PNG file; `scale` says what the scores are, at the curves.
    """
    spreads = [np.nan_to_num(ladder.standard_errors) for ladder in ladders]
    low = min((x.scores - s).min() for x, s in zip(ladders, spreads, strict=True))
    high = max((x.scores + s).max() for x, s in zip(ladders, spreads, strict=True))
    margin = 0.08 * max(high - low, 1e-3)
    height, width = ladders[0].images[0].shape[:2]
    row_inches = min(max(_CELL_INCHES * height / width, 0.9), 2.4) + 0.35
    size = (len(LADDER_LEVELS) * _CELL_INCHES + _CURVE_INCHES, len(ladders) * row_inches + 0.5)
    with settings_of(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(
            len(ladders),
            len(LADDER_LEVELS) + 1,
            squeeze=False,
            width_ratios=[_CELL_INCHES] * len(LADDER_LEVELS) + [_CURVE_INCHES],
        )
        for row, ladder, spread in zip(grid, ladders, spreads, strict=True):
            for level, axes in enumerate(row[:-1]):
                axes.imshow(_centre(ladder.images[level]))
                axes.set_title(f"{ladder.scores[level]:.2f}", fontsize=9, pad=3)
                axes.set(xticks=[], yticks=[])
            row[0].set_ylabel(ladder.name.replace("_", " "))
            curve = row[-1]
            curve.errorbar(LADDER_LEVELS, ladder.scores, spread, color=_COLOR, marker="o")
            curve.set(ylim=(low - margin, high + margin), xticks=LADDER_LEVELS)
            curve.grid(alpha=0.3)
            curve.yaxis.tick_right()
        for level, axes in enumerate(grid[-1, :-1]):
            axes.set_xlabel(f"level {level}" if level else "untouched")
        grid[-1, -1].set_xlabel("level")
        grid[0, -1].set_title(scale, fontsize=8, pad=3)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return content.getvalue()


def _centre(pixels: np.ndarray) -> np.ndarray:
    """The middle of a picture, of its aspect, with at most `_CUT_PIXELS` on the longer side."""
    height, width = pixels.shape[:2]
    factor = min(1.0, _CUT_PIXELS / max(height, width))
    shown = (max(1, round(height * factor)), max(1, round(width * factor)))
    top, left = (height - shown[0]) // 2, (width - shown[1]) // 2
    return pixels[top : top + shown[0], left : left + shown[1]]
