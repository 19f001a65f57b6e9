"""Published files from a server of this machine, one that answers well and one that does not."""

import errno
import hashlib
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
from stand_in import QuietHandler, StandIn

from glpi_jax.core.errors import GlpiError
from glpi_jax.weights import download
from glpi_jax.weights.download import PublishedFile, cache_folder, fetch, published_on_hub

CONTENT = bytes(range(256)) * 9000  # 2.3 MB: three reads
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "config.model.pretrained.vit"
COMMIT = "1" * 40


class Handler(QuietHandler):
    """Serves `CONTENT` under every path, after the faults that the server still has to make."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        if server.faults and isinstance(server.faults[0], int):
            status = server.faults.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status == 429:
                self.send_header("Retry-After", "7")
            self.end_headers()
            return
        if "/resolve/" in self.path and server.states_sha256:
            self.send_response(302)
            self.send_header("Location", "/storage")
            self.send_header("X-Linked-Etag", f'"{SHA256}"')
            self.send_header("X-Linked-Size", str(len(CONTENT)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = server.faults.pop(0) if server.faults else None
        self.wfile.write(
            server.content[start:] if cut is None else server.content[start:][: len(cut)]
        )
        self.close_connection = True


@pytest.fixture
def server():
    """Its `faults`: a status to answer with, or bytes to stop behind as many of."""
    with StandIn(Handler) as running:
        running.faults, running.requests = [], []
        running.ranges, running.states_sha256, running.content = True, True, CONTENT
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLPI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(server):
    return PublishedFile("net.pth", f"{server.address}/models/net.pth", sha256=SHA256[:8])


@pytest.fixture
def waits():
    """`fetch(…, wait=waits.append)`: how long each pause would have been."""
    return []


def kept(cache):
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


def test_a_file_is_downloaded_once(server, published, cache, capsys):
    path = fetch(published, KEY)
    assert path == cache / "net.pth"
    assert path.read_bytes() == CONTENT
    assert kept(cache) == ["net.pth"]
    assert "download net.pth: 3/3 megabytes (100 %)" in capsys.readouterr().err
    assert fetch(published, KEY) == path
    assert server.requests == [("GET", "/models/net.pth", None)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server, published, cache, waits, ranges):
    server.ranges = ranges
    server.faults = [bytes(1_500_000)]
    path = fetch(published, KEY, wait=waits.append)
    assert path.read_bytes() == CONTENT
    assert [asked for *_, asked in server.requests] == [None, "bytes=1500000-"]
    assert waits == [1.0]


def test_a_later_call_goes_on(server, published, cache, waits):
    server.faults = [bytes(100_000), 404]
    with pytest.raises(GlpiError, match="the server answers 404"):
        fetch(published, KEY, wait=waits.append)
    assert kept(cache) == ["net.pth.part"]
    assert fetch(published, KEY).read_bytes() == CONTENT
    assert server.requests[-1][-1] == "bytes=100000-"
    assert kept(cache) == ["net.pth"]


def test_a_part_that_is_whole_or_too_long(server, published, cache, waits):
    cache.mkdir()
    (cache / "net.pth.part").write_bytes(CONTENT)
    assert fetch(published, KEY).read_bytes() == CONTENT
    assert len(server.requests) == 1
    (cache / "net.pth").unlink()
    (cache / "net.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(published, KEY, wait=waits.append).read_bytes() == CONTENT


def test_another_sha256_leaves_nothing(server, published, cache):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(GlpiError) as caught:
        fetch(published, KEY)
    found = hashlib.sha256(server.content).hexdigest()
    assert f"{published.address}: what came has the SHA-256 {found}" in str(caught.value)
    assert f"where {SHA256[:8]} is published" in str(caught.value)
    assert kept(cache) == []


def test_a_refusal_is_told_at_once(server, published, cache, waits):
    server.faults = [404]
    with pytest.raises(GlpiError) as caught:
        fetch(published, KEY, wait=waits.append)
    text = str(caught.value)
    assert text.startswith(f"{published.address}: the server answers 404 Not Found; download ")
    assert f"put it at {cache / 'net.pth'}, or give its path as {KEY}" in text
    assert waits == []
    assert kept(cache) == []


def test_what_passes_is_tried_again(server, published, waits):
    server.faults = [503, 503, 429]
    assert fetch(published, KEY, wait=waits.append).read_bytes() == CONTENT
    assert waits == [1.0, 2.0, 7.0]


def test_tries_come_to_an_end(server, published, cache, waits):
    server.faults = [503] * 9
    with pytest.raises(GlpiError, match="the server answers 503 Service Unavailable"):
        fetch(published, KEY, wait=waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    # A server that sends everything anew each time, and never more than before, is no progress.
    server.ranges, server.faults = False, [bytes(1000)] * 20
    with pytest.raises(GlpiError, match="broke at byte 1000 of 2304000"):
        fetch(published, KEY, wait=waits.append)
    assert len(server.faults) == 20 - download.TRIES


def test_no_network(published, cache, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/net.pth"
        with pytest.raises(GlpiError) as caught:
            fetch(published._replace(address=address), KEY, wait=waits.append)
    text = str(caught.value)
    assert text.startswith(f"{address}: cannot be reached ([Errno 111] Connection refused);")
    assert f"download {address} where there is a network and put it at {cache}/net.pth" in text
    assert waits == []


def test_offline_asks_nobody(server, published, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(GlpiError, match=r"HF_HUB_OFFLINE is set and .*net\.pth is missing: down"):
        fetch(published, KEY)
    assert server.requests == []
    cache.mkdir()
    (cache / "net.pth").write_bytes(CONTENT)  # as the message says
    assert fetch(published, KEY).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written(published, cache, monkeypatch):
    cache.write_text("in the way")
    with pytest.raises(GlpiError, match=r"cache cannot be written \(File exists\): set GLPI_CACHE"):
        fetch(published, KEY)
    cache.unlink()

    def read_only(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    for name in ("open", "mkdir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, read_only)
            with pytest.raises(
                GlpiError, match=r"cannot be written \(Read-only file system\): set"
            ):
                fetch(published, KEY)


def test_where_the_cache_is(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("GLPI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "glpi_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/glpi_jax"


def test_the_hub_without_its_library(server, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    vit = published_on_hub("timm/vit", "vit.safetensors")
    assert vit.address == "https://huggingface.co/timm/vit/resolve/main/model.safetensors"
    assert fetch(vit, KEY).read_bytes() == CONTENT
    assert [path for _, path, _ in server.requests] == [
        "/timm/vit/resolve/main/model.safetensors",
        "/storage",
    ]
    (cache / "vit.safetensors").unlink()
    server.content = b"?" + CONTENT[1:]
    with pytest.raises(GlpiError, match=f"where {SHA256} is published"):
        fetch(vit, KEY)
    server.states_sha256 = False
    with pytest.raises(GlpiError, match="the server states no SHA-256"):
        fetch(vit, KEY)
    assert kept(cache) == []


def test_the_hub_with_its_library(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    vit = published_on_hub("timm/vit", "vit.safetensors")
    path = fetch(vit, KEY)
    assert path.is_relative_to(cache / "huggingface")
    assert path.read_bytes() == CONTENT

    # Kept by that library, it is checked all the same.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(server.requests)
    assert fetch(vit, KEY) == path
    assert len(server.requests) == asked
    path.resolve().write_bytes(b"?" + CONTENT[1:])
    with pytest.raises(GlpiError, match=f"where {SHA256} is published"):
        fetch(vit, KEY)
    with pytest.raises(
        GlpiError, match="HF_HUB_OFFLINE is set and no cache has it; download https"
    ):
        fetch(vit, KEY)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    server.faults = [404] * 9
    with pytest.raises(GlpiError, match=r"the server answers 404; download https://hugging"):
        fetch(vit, KEY)
