"""A page in headless Chromium that keeps what it complains of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_MS = 30_000


@contextmanager
def quiet_page(width: int = 900, *, but: str = "") -> Iterator[Any]:
    """A page that must say nothing on its console but messages with this in them, nor fail.

    Playwright is imported here: what `make test` installs has none.
    """
    from browser import headless_browser

    with headless_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        said = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
        yield page
        unexpected = [line for line in said if not (but and but in line)]
        assert unexpected == []
