"""Published weights from the network, once, into a cache.

The cache is the folder `GLPI_CACHE`, else `$XDG_CACHE_HOME/glpi_jax`, else `~/.cache/glpi_jax`.
Files of the Hugging Face Hub go through huggingface_hub where that is installed: into its own
cache, which timm shares, or below `GLPI_CACHE` where that is set. `HF_ENDPOINT` holds, and with
`HF_HUB_OFFLINE` nothing is asked for over the network, of any server.
"""

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from glpi_jax import __version__
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.progress import progress_bar

HUB = "https://huggingface.co"
TRIES = 5  # without a byte more
TIMEOUT_SECONDS = 30.0  # for a server that says nothing
_LONGEST_WAIT_SECONDS = 60.0
_CHUNK = 10**6  # bytes
# Of a server that may do better a moment later.
_PASSING = (408, 429, 500, 502, 503, 504)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PublishedFile(NamedTuple):
    """A file that others publish.

    Attributes:
        name: in the cache.
        address: where it is from, as a record states it.
        sha256: digits that its SHA-256 begins with, as far as they are published; "" for those that
            the Hub states.
        repository: "owner/name" on the Hugging Face Hub, or "" for another server.
    """

    name: str
    address: str
    sha256: str = ""
    repository: str = ""


def published_on_hub(repository: str, name: str) -> PublishedFile:
    """The file `model.safetensors` of a repository, which the cache calls `name`."""
    return PublishedFile(
        name, f"{HUB}/{repository}/resolve/main/model.safetensors", repository=repository
    )


def cache_folder() -> Path:
    """Where downloads are kept; it may be missing."""
    own = os.environ.get("GLPI_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "glpi_jax"


def fetch(file: PublishedFile, key: str, *, wait: Callable[[float], object] = time.sleep) -> Path:
    """Give a published file's path, after downloading it if no cache has it.

    A download that was cut goes on where it stopped, also in a later call; its SHA-256 is checked
    before the file is taken. What fails for the moment is tried again.

    Args:
        file: which one.
        key: of the config, that takes a path instead.
        wait: sleeps for some seconds before another try.

    Raises:
        GlpiError: no network, a server that refuses, another SHA-256, or a cache that cannot be
            written; the message says how to do without.
    """
    target = cache_folder() / file.name
    if target.is_file():
        return target
    if file.repository:
        with suppress(ImportError):
            import huggingface_hub

            return _fetch_with_library(huggingface_hub, file, key)
    url = _url(file)
    if _is_offline():
        raise GlpiError(f"HF_HUB_OFFLINE is set and {target} is missing: {_by_hand(file, key)}")
    part = target.with_name(f"{target.name}.part")
    with _locked(target.parent):
        if not target.is_file():  # another process may have been faster
            try:
                stated = _receive(url, part, wait)
            except _DownloadError as error:
                raise GlpiError(f"{url}: {error}; {_by_hand(file, key)}") from error
            with _cache_errors(target.parent):
                _check_sha256(part, file.sha256 or stated, url, key)
                os.replace(part, target)
    return target


class _DownloadError(Exception):
    """What a server did, in words; `passing` if it may do better in a moment."""

    def __init__(self, words: str, *, passing: bool, retry_after: float = 0.0) -> None:
        super().__init__(words)
        self.passing = passing
        self.retry_after = retry_after


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what the Hub states before it sends us on to its storage."""

    def __init__(self) -> None:
        self.sha256 = ""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """As urllib calls it: with request, body, status, reason, headers and the next URL."""
        *_, headers, _ = args
        self.sha256 = _stated_sha256(headers) or self.sha256
        return super().redirect_request(*args)


def _receive(url: str, part: Path, wait: Callable[[float], object]) -> str:
    """Download to `part`, going on behind what it holds; gives the SHA-256 that the server states.

    Raises:
        _DownloadError: the server refuses, or does not deliver in `TRIES` tries.
        GlpiError: the cache cannot be written.
    """
    tries, most = 0, _size(part)
    while True:
        try:
            return _receive_once(url, part)
        except _DownloadError as error:
            if not error.passing:
                raise
            tries = 1 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            if tries == TRIES:
                raise
            wait(min(max(2.0 ** (tries - 1), error.retry_after), _LONGEST_WAIT_SECONDS))


def _receive_once(url: str, part: Path) -> str:
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": f"glpi_jax/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    redirects = _Redirects()
    try:
        with urllib.request.build_opener(redirects).open(
            request, timeout=TIMEOUT_SECONDS
        ) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                start = 0  # the server sends all of it again
            _save(response, part, start)
            return redirects.sha256 or _stated_sha256(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            whole = error.headers.get("Content-Range") == f"bytes */{start}"
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                if whole:
                    return redirects.sha256
                part.unlink()
                raise _DownloadError("the file has changed meanwhile", passing=True) from error
            after = error.headers.get("Retry-After", "")
            raise _DownloadError(
                f"the server answers {error.code} {error.reason}",
                passing=error.code in _PASSING,
                retry_after=float(after) if after.isdecimal() else 0.0,
            ) from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        # A refused connection or an unknown name is no network, which waiting does not mend.
        passing = isinstance(
            cause,
            TimeoutError
            | ConnectionResetError
            | ConnectionAbortedError
            | BrokenPipeError
            | http.client.HTTPException,
        )
        words = "the connection broke" if passing else "cannot be reached"
        raise _DownloadError(f"{words} ({cause})", passing=passing) from error


def _save(response: Any, part: Path, start: int) -> None:
    """Write an answer's body behind the first `start` bytes of a file."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    name = part.name.removesuffix(".part")
    bar = progress_bar(
        -(-(total or 0) // _CHUNK),
        unit="megabyte",
        description=f"download {name}",
        initial=start // _CHUNK,
        enabled=total is not None,
    )
    with _cache_errors(part.parent):
        file = part.open("ab" if start else "wb")
    with file, bar as progress:
        while chunk := response.read(_CHUNK):
            with _cache_errors(part.parent):
                file.write(chunk)
                file.flush()
            progress.advance()
    if total is not None and _size(part) < total:
        raise _DownloadError(f"the connection broke at byte {_size(part)} of {total}", passing=True)


def _fetch_with_library(hub: Any, file: PublishedFile, key: str) -> Path:
    """Let huggingface_hub do it: its cache, its retries, its resuming."""
    own = os.environ.get("GLPI_CACHE")
    try:
        path = Path(
            hub.hf_hub_download(
                file.repository,
                file.address.rpartition("/")[2],
                cache_dir=Path(own) / "huggingface" if own else None,
                endpoint=os.environ.get("HF_ENDPOINT") or None,
                local_files_only=_is_offline(),
                library_name="glpi_jax",
                library_version=__version__,
            )
        )
    except Exception as error:  # of huggingface_hub, its HTTP library or the system
        reason = "HF_HUB_OFFLINE is set and no cache has it" if _is_offline() else _why(error)
        raise GlpiError(f"{_url(file)}: {reason}; {_by_hand(file, key)}") from error
    # A file of the Hub's storage is kept under its SHA-256.
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name):
        _check_sha256(blob, blob.name, _url(file), key)
    return path


def _why(error: Exception) -> str:
    """What the library did not get, in a line; "not in the cache" has the true cause behind it."""
    cause = error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status:
        return f"the server answers {status}"
    lines = str(cause).strip().splitlines()
    return f"cannot be had ({type(cause).__name__}{f': {lines[0]}' if lines else ''})"


def _check_sha256(path: Path, expected: str, url: str, key: str) -> None:
    """Remove a file and raise a GlpiError unless its SHA-256 begins as it should."""
    if not expected:
        path.unlink()
        raise GlpiError(
            f"{url}: the server states no SHA-256 to check it by; pip install 'glpi_jax[hub]', or"
            f" download it and give its path as {key}"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        path.unlink()
        raise GlpiError(
            f"{url}: what came has the SHA-256 {found}, where {expected} is published; it is"
            " removed: try again, from another network if it happens again"
        )


def _stated_sha256(headers: Any) -> str:
    """What the Hub says of a file in its storage; "" without such a statement."""
    stated = (headers.get("X-Linked-Etag") or "").strip('"')
    return stated if _SHA256.fullmatch(stated) else ""


def _url(file: PublishedFile) -> str:
    endpoint = os.environ.get("HF_ENDPOINT")
    if not file.repository or not endpoint:
        return file.address
    return endpoint.rstrip("/") + file.address.removeprefix(HUB)


def _is_offline() -> bool:
    """As huggingface_hub reads it, which does so when it is imported."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _by_hand(file: PublishedFile, key: str) -> str:
    return (
        f"download {file.address} where there is a network and put it at"
        f" {cache_folder() / file.name}, or give its path as {key}"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """What the file system refuses, told with a remedy."""
    try:
        yield
    except OSError as error:
        raise GlpiError(
            f"the cache {folder} cannot be written ({error.strerror}): set GLPI_CACHE to another"
            " folder"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time downloads into a folder, which is made."""
    with _cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        # Not every system has locks; without them the checksum tells whether two came together.
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
