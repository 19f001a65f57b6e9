"""Images by HTTP, from a server on this machine."""

import threading
import time
from collections.abc import Iterator

import pytest
from stand_in import QuietHandler, StandIn

from glpi_jax.data.crops import Crops
from glpi_jax.data.images import ImageError
from glpi_jax.data.preprocessing import ASSUMED
from glpi_jax.scoring.fetch import fetch_image, is_url
from glpi_jax.scoring.reading import Reader

CONTENT = b"picture" * 1000


class Handler(QuietHandler):
    released = threading.Event()

    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png")
        elif self.path == "/local":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
        elif self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
        elif self.path == "/silent":
            self.released.wait(30)
            return
        elif self.path in ("/a.png", "/caf%C3%A9%20bar.png?x=1&y=2"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
            return
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100])
            return
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            while not self.released.wait(0.01):
                self.wfile.write(b"x")
            return
        else:
            self.send_error(404)
            return
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    Handler.released.clear()
    with StandIn(Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.address
        Handler.released.set()
        server.shutdown()
        thread.join()


def test_content_comes_whole_and_redirections_are_followed(server):
    assert fetch_image(f"{server}/a.png") == CONTENT
    assert fetch_image(f"{server}/moved") == CONTENT
    assert fetch_image(f"{server}/café bar.png?x=1&y=2") == CONTENT


@pytest.mark.parametrize(
    ("path", "limits", "words"),
    [
        ("missing.png", {}, "the server answers 404 Not Found"),
        ("local", {}, "the server answers 302 Found - Redirection to url 'file:///etc/passwd' is"),
        ("round", {}, "the server answers 302 The HTTP server returned a redirect error"),
        ("cut", {}, "the connection broke after 100 of 7,000 bytes"),
        ("a.png", {"max_bytes": 2**12}, "more than 0.00390625 MiB"),
        ("silent", {"silence_seconds": 0.1}, "nothing came for 0.1 s"),
        ("drip", {"total_seconds": 0.2}, "took longer than 0.2 s"),
    ],
)
def test_what_goes_wrong_is_one_line_that_names_the_url(server, path, limits, words):
    url = f"{server}/{path}"
    with pytest.raises(ImageError) as caught:
        fetch_image(url, **limits)
    assert str(caught.value).startswith(f"{url}: {words}")
    assert "\n" not in str(caught.value)


def test_whoever_needs_no_more_does_not_wait_for_a_slow_server(server, make_pixels):
    image = make_pixels(70, 70)
    sources = [image, f"{server}/drip", *[image] * 20]
    readings = Reader(Crops(1), preprocessing=ASSUMED, side=64, ahead=0).read(sources)
    assert next(readings)[0].error is None
    time.sleep(0.2)  # the drip has begun
    begun = time.monotonic()
    readings.close()
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:1/a.png", "[Errno 111] Connection refused"),
        ("http://", "no host given"),
        ("http://[x/a.png", "Invalid IPv6 URL"),
        ("http://h:port/", "nonnumeric port: 'port'"),
        ("http://a\n", "URL can't contain control characters."),
    ],
)
def test_no_server(url, cause, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ImageError) as caught:
        fetch_image(url, silence_seconds=2)
    assert str(caught.value).startswith(f"{url}: cannot be fetched ({cause}")


def test_what_is_a_url():
    assert is_url("http://x/y.png")
    assert is_url("HTTPS://x")
    assert not any(map(is_url, ("http.png", "ftp://x/y.png", "file:///x", "/http://x")))


def test_a_scorer_takes_urls(scorer, server, save, monkeypatch):
    path = save("a.png", 80, 90)
    monkeypatch.setitem(globals(), "CONTENT", path.read_bytes())
    results = scorer.score([f"{server}/a.png", str(path), f"{server}/missing.png"])
    assert results[0].image == f"{server}/a.png"
    assert results[0].score == pytest.approx(results[1].score, abs=1e-5)
    assert "404" in results[2].error
