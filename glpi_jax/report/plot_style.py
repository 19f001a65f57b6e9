"""How plots look: colours of a light and a dark page, names in them, and their PNG files."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.text import Text


class Theme(NamedTuple):
    """Colours of the page around a plot, and those of its data."""

    background: str
    text: str
    muted: str
    grid: str
    accent: str
    second: str
    series: tuple[str, ...]


LIGHT = Theme(
    background="#ffffff", text="#1c2430", muted="#5b6675", grid="#e3e7ec",
    accent="#0072b2", second="#d55e00",
    series=(
        "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a7f00", "#3a3f47",
    ),
)  # fmt: skip
DARK = Theme(
    background="#171c24", text="#e6eaf0", muted="#9aa6b5", grid="#2b333f",
    accent="#56b4e9", second="#ff9d4d",
    series=(
        "#56b4e9", "#e69f00", "#2fc79a", "#ff7a3d", "#e39ac4", "#8fb8ff", "#f0e442", "#c9d1db",
    ),
)  # fmt: skip
MARKERS = ("o", "s", "^", "D")
HATCHES = ("", "////", "....", "xxxx")
DASHED = (0, (4, 3))
_WIDTH_INCHES = 10.2
_TITLE_LETTERS = 38
_DOTS_PER_INCH = 160
_LOCK = threading.RLock()


@contextmanager
def settings_of(settings: dict[Any, Any]) -> Iterator[None]:
    """Give Matplotlib, and so the whole process, settings meanwhile; other drawing threads wait."""
    with _LOCK, mpl.rc_context(settings):
        yield


@contextmanager
def themed_figure(height: float, theme: Theme) -> Iterator[Figure]:
    """Give an empty figure of this height in inches; what is drawn inside follows the theme."""
    style: dict[Any, Any] = {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.background,
        "axes.grid": True,
        "axes.labelcolor": theme.muted,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "figure.facecolor": theme.background,
        "font.size": 9,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 3.5,
        "text.color": theme.text,
        "text.parse_math": False,  # a "$" in a name is one
        "xtick.color": theme.muted,
        "xtick.major.size": 0,
        "ytick.color": theme.muted,
        "ytick.major.size": 0,
    }
    with settings_of(style):
        yield Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")


def shortened(title: str) -> str:
    """The end of a title that is wider than a panel: of a path, that tells most."""
    return title if len(title) <= _TITLE_LETTERS else f"…{title[-_TITLE_LETTERS + 1 :]}"


def legend_name(name: str) -> str:
    """Matplotlib leaves labels that begin with "_" out of a legend."""
    return f" {name}" if name.startswith("_") else name


def plain(name: str) -> str:
    """A name of a distortion, as it is drawn."""
    return _drawable(name.replace("_", " "))


def _drawable(text: str) -> str:
    """Text without what is no valid UTF-8, as a file name may hold; it cannot be drawn at all."""
    return text.encode("utf-8", "replace").decode("utf-8")


def png(figure: Figure) -> bytes:
    """The finished figure as a PNG file, the same bytes for the same figure."""
    for text in figure.findobj(Text):
        text.set_text(_drawable(text.get_text()))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # It becomes a box; the text of the page has it as it is.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()
