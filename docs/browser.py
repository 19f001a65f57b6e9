"""Pages in headless Chromium: for the pictures of the documents, and for tests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Error, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class NoBrowserError(Exception):
    """There is no Chromium or Chrome, or it does not start; the message says what to do."""


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """Start the Chromium or Chrome that is installed; it ends with the block.

    Raises:
        NoBrowserError: none is on the PATH, or it does not start.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise NoBrowserError(
            "this needs Chromium or Chrome on the PATH (Debian: apt-get install chromium)"
        )
    with sync_playwright() as playwright:
        try:
            # Without its sandbox: root, as in containers, may not use that, and the pages are ours.
            browser = playwright.chromium.launch(
                executable_path=program, chromium_sandbox=False, args=["--force-color-profile=srgb"]
            )
        except Error as error:
            raise NoBrowserError(f"{program} does not start: {error.message}") from error
        with browser:
            yield browser
