"""Pieces of a page: its frame, tables, plots in two versions, thumbnails, folded lists."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from PIL import Image

from glpi_jax.data.images import ImageError, read_image
from glpi_jax.report import plots

CITATION = (
    "No-Reference Image Quality Assessment with Global-Local Progressive Integration and"
    " Semantic-Aligned Quality Transfer. ACM Transactions on Multimedia Computing,"
    " Communications, and Applications, 2026. doi:10.1145/3815779, arXiv:2408.03885"
)
THUMBNAIL_PIXELS = 280
_JPEG_QUALITY = 82


def page(title: str, kind: str, facts: Mapping[str, object], sections: Iterable[str]) -> str:
    """Frame a whole page.

    Args:
        title: its heading, plain text.
        kind: what it is, above the heading.
        facts: short facts below the heading, by name; plain text.
        sections: HTML.
    """
    style = (resources.files("glpi_jax.report") / "report.css").read_text(encoding="utf-8")
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: image quality report</title>
<style>
{style}</style>
</head>
<body>
<main>
<header><p class="kind">{escape(kind)}</p>
<h1>{escape(title)}</h1>
<dl class="facts">{shown}</dl></header>
{"".join(sections)}
<footer>
<p><strong>How to cite.</strong> The model is GLPI (GlintIQA): {escape(CITATION)}.</p>
</footer>
</main>
</body>
</html>
"""


def section(heading: str, *content: str) -> str:
    """Lay out a card with a plain heading and HTML content."""
    return f"\n<section>\n<h2>{escape(heading)}</h2>\n{''.join(content)}\n</section>"


def note(lead: str, text: str) -> str:
    """Set a plain text apart, its lead in bold."""
    return f'<p class="note"><strong>{escape(lead)}</strong> {escape(text)}</p>'


def muted(text: str) -> str:
    """A plain text in small grey print."""
    return f'<p class="muted">{escape(text)}</p>'


def details(summary: str, content: str, *, opened: bool = False) -> str:
    """HTML content that the reader unfolds under a plain summary."""
    attribute = " open" if opened else ""
    return f"<details{attribute}><summary>{escape(summary)}</summary>{content}</details>"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers_from: int,
    spans: Sequence[tuple[str, int]] = (),
) -> str:
    """Lay out a table.

    Args:
        header: plain text.
        rows: cells that are HTML already.
        numbers_from: the column from which on cells are numbers, set to the right.
        spans: a line above the header: plain text, and how many columns it spans.
    """

    def attribute(column: int) -> str:
        return ' class="number"' if column >= numbers_from else ""

    above = "".join(
        f'<th class="span" scope="colgroup" colspan="{width}">{escape(text)}</th>'
        if text
        else f'<td colspan="{width}"></td>'
        for text, width in spans
    )
    head = "".join(
        f'<th scope="col"{attribute(i)}>{escape(cell)}</th>' for i, cell in enumerate(header)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{attribute(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    lines = (f"<tr>{above}</tr>" if above else "") + f"<tr>{head}</tr>"
    return f'<div class="wide"><table><thead>{lines}</thead><tbody>{body}</tbody></table></div>'


def figure(draw: Callable[[plots.Theme], bytes], alternative: str, caption: str) -> str:
    """Embed a plot in its light and its dark version, with a plain caption."""
    light, dark = (_data_uri("png", draw(theme)) for theme in (plots.LIGHT, plots.DARK))
    return (
        f'<figure><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escape(alternative)}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def thumbnail(path: Path, *, apply_orientation: bool) -> str | None:
    """Embed a small JPEG of an image; None if there is no such image, or it cannot be read.

    Args:
        path: of the image.
        apply_orientation: turn it as EXIF says, as it was for the model.
    """
    try:
        image = Image.fromarray(read_image(path, apply_orientation=apply_orientation))
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    width, height = image.size
    source = _data_uri("jpeg", buffer.getvalue())
    return f'<img src="{source}" width="{width}" height="{height}" alt="{escape(path.name)}">'


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
