"""A quality map as a picture: the photograph, and beside it the map laid over it."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from glpi_jax.report.plot_style import settings_of
from glpi_jax.scoring.picture_files import SOFTWARE
from glpi_jax.scoring.quality_map import QualityMap

_SIDE_PIXELS = 900  # longer side of each photograph in the picture
_DOTS_PER_INCH = 120
_COLOR_MAP = "viridis"  # perceptually uniform, and readable without colour vision
_OPACITY = 0.65


def map_picture(quality: QualityMap, *, scale: str, title: str) -> bytes:
    """Draw a photograph and the map of its scores.

    The colours span the scores of this photograph alone, so that they say where it is better, not
    how good it is: that is written at the colour bar.

    Args:
        quality: the map.
        scale: what the scores are, written along the colour bar.
        title: written above.

    Returns:
        A PNG file.
    """
    height, width = quality.image.shape[:2]
    factor = min(1.0, _SIDE_PIXELS / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    photograph = np.asarray(Image.fromarray(quality.image).resize(size, Image.Resampling.LANCZOS))
    grey = np.asarray(Image.fromarray(photograph).convert("L"))
    scores = quality.resized(size[1], size[0])
    # Of a photograph as large as a stamp the words would be larger than the pictures.
    enlarged = max(1.0, _SIDE_PIXELS / 2 / max(size))
    inches = np.array(size) * enlarged / _DOTS_PER_INCH
    settings: dict[Any, Any] = {"font.size": 10, "text.parse_math": False}
    with settings_of(settings):
        figure = Figure(figsize=(2 * inches[0] + 1.6, inches[1] + 0.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(photograph, interpolation="nearest")
        right.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        colors = right.imshow(scores, cmap=_COLOR_MAP, alpha=_OPACITY, interpolation="nearest")
        for axes in (left, right):
            axes.set_axis_off()
        figure.colorbar(colors, ax=right, label=scale, fraction=0.05, pad=0.02)
        # The end of a long name tells most; what cannot be drawn becomes a question mark.
        drawable = title.encode("utf-8", "replace").decode("utf-8")
        figure.suptitle(drawable if len(drawable) <= 80 else f"…{drawable[-79:]}")
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": SOFTWARE})
    return content.getvalue()
