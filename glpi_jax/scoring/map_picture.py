"""A quality map as a picture: the photograph, and beside it the map laid over it."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from glpi_jax.report.plot_style import settings_of
from glpi_jax.scoring.picture_files import SOFTWARE, shrunk
from glpi_jax.scoring.quality_map import QualityMap

_SIDE_PIXELS = 900  # longer side of each photograph in the picture
_DOTS_PER_INCH = 120
_COLOR_MAP = "viridis"  # perceptually uniform, and readable without colour vision
_OPACITY = 0.65
_SETTINGS: dict[Any, Any] = {
    "font.size": 10, "image.interpolation": "nearest", "text.parse_math": False,
}  # fmt: skip


def map_picture(quality: QualityMap, *, scale: str, title: str) -> bytes:
    """Draw a photograph and the map of its scores.

    The colours span the scores of this photograph alone, so that they say where it is better, not
    how good it is: that is written at the colour bar.

    Returns a PNG file; `scale` says what the scores are, along the colour bar.
    """
    photograph = shrunk(quality.image, _SIDE_PIXELS)
    width, height = photograph.size
    # Of a photograph as large as a stamp the words would be larger than the pictures.
    enlarged = max(1.0, _SIDE_PIXELS / 2 / max(width, height))
    inches = np.array(photograph.size) * enlarged / _DOTS_PER_INCH
    with settings_of(_SETTINGS):
        figure = Figure(figsize=(2 * inches[0] + 1.6, inches[1] + 0.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(np.asarray(photograph))
        right.imshow(np.asarray(photograph.convert("L")), cmap="gray", vmin=0, vmax=255)
        scores = quality.resized(height, width)
        colors = right.imshow(scores, cmap=_COLOR_MAP, alpha=_OPACITY)
        for axes in (left, right):
            axes.set_axis_off()
        figure.colorbar(colors, ax=right, label=scale, fraction=0.05, pad=0.02)
        # The end of a long name tells most; what cannot be drawn becomes a question mark.
        drawable = title.encode("utf-8", "replace").decode("utf-8")
        figure.suptitle(drawable if len(drawable) <= 80 else f"…{drawable[-79:]}")
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": SOFTWARE})
    return content.getvalue()
