"""Images from http and https URLs, with limits of size and time."""

import http.client
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from glpi_jax import __version__
from glpi_jax.data.images import ImageError

MAX_BYTES = 100 * 2**20
SILENCE_SECONDS = 20.0  # without a byte
TOTAL_SECONDS = 120.0

_SCHEMES = ("http://", "https://")


def is_url(name: str) -> bool:
    """Whether a name is fetched rather than opened."""
    return name.lower().startswith(_SCHEMES)


def is_foreign_url(name: str) -> bool:
    """Whether a name is a URL that is not fetched, as of ftp:// or file://."""
    # Two letters at least: one is a drive of Windows.
    return not is_url(name) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def fetch_image(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    silence_seconds: float = SILENCE_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
    stop: threading.Event | None = None,
) -> bytes:
    """The content that a URL leads to, redirections to http and https included.

    Raises:
        ImageError: no connection, no such file, more than `max_bytes`, `silence_seconds` without a
            connection or more of the content, `total_seconds` in all, or `stop` is set.
    """
    deadline = time.monotonic() + total_seconds
    headers = {"User-Agent": f"glpi_jax/{__version__}", "Accept": "image/*"}
    try:
        # Letters outside ASCII, and spaces, as a browser's address line takes them.
        request = urllib.request.Request(
            urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=headers
        )
        with _opener().open(request, timeout=silence_seconds) as response:
            parts, size = [], 0
            while part := response.read1(2**16):
                size += len(part)
                parts.append(part)
                if size > max_bytes:
                    raise ImageError(f"{url}: more than {max_bytes / 2**20:g} MiB")
                if stop is not None and stop.is_set():
                    raise ImageError(f"{url}: given up before its end")
                if time.monotonic() > deadline:
                    raise ImageError(f"{url}: took longer than {total_seconds:g} s")
            expected = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        words = " ".join(str(error.reason).split())
        raise ImageError(f"{url}: the server answers {error.code} {words}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason: object = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise ImageError(f"{url}: nothing came for {silence_seconds:g} s") from None
        cause = " ".join(str(reason).split()) or type(reason).__name__
        raise ImageError(f"{url}: cannot be fetched ({cause})") from error
    if expected is not None and expected.isdecimal() and size < int(expected):
        raise ImageError(f"{url}: the connection broke after {size:,} of {int(expected):,} bytes")
    return b"".join(parts)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https alone: a redirection must not lead to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener
