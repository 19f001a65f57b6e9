"""The web page and the HTTP API, on a real server on this machine."""

import http.client
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from glpi_jax.cli import main
from glpi_jax.scoring import Scorer
from glpi_jax.serve.app import MAX_WAITING


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def post(port, path, body, kind="image/png", **headers):
    status, _, content = ask(port, "POST", path, body, Content_Type=kind, **headers)
    return status, content


def encoded(height=90, width=120, file_format="PNG"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def test_the_page_and_health(port, scorer):
    status, headers, page = ask(port, "GET", "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"api/score" in page
    assert b"http://" not in page
    status, _, content = ask(port, "GET", "/health")
    assert (status, json.loads(content)) == (
        200, {"status": "ok", "scale": scorer.scale, "busy": False}
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "IMAGE/JPEG; x=y"])
def test_a_score(port, scorer, kind):
    status, content = post(port, "/api/score", encoded(), kind)
    assert status == 200
    answer, expected = json.loads(content), scorer.score(encoded())
    assert answer["score"] == pytest.approx(expected.score, abs=1e-5)
    assert answer["standard_error"] == pytest.approx(expected.standard_error, abs=1e-5)
    assert answer["higher_is_better"] is True
    assert answer["score_range"] == [1, 5]
    assert "image" not in answer


def test_a_map(port):
    status, content = post(port, "/api/map", encoded())
    assert status == 200
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("path", ["/api/score", "/api/map"])
@pytest.mark.parametrize(
    ("body", "kind", "code", "words"),
    [
        (b"", "image/png", 400, "the body is empty"),
        (b"hello", "image/png", 415, "no image of these kinds"),
        (encoded(file_format="PPM"), "image/png", 415, "no image of these kinds"),
        (encoded(), "text/plain", 415, "send the image itself"),
        (encoded(), "multipart/form-data; boundary=x", 415, "send the image itself"),
        (encoded()[:-3000], "image/png", 422, "corrupt or truncated"),
        (encoded(9, 99), "image/png", 422, "too few to judge"),
        (b"\0" * 200_001, "image/png", 413, "larger than 0.190735 MiB"),
        (iter([b"\0" * 50_000] * 9), "image/png", 413, "larger than 0.190735 MiB"),
        (encoded(300, 200, "JPEG"), "image/jpeg", 413, "200×300 pixels; the most is 0.04 mega"),
    ],
    ids=["empty", "text", "kind", "type", "form", "cut", "small", "large", "chunks", "pixels"],
)
def test_what_is_refused(port, path, body, kind, code, words):
    if not isinstance(body, bytes):
        body = iter([b"\0" * 50_000] * 9)
    status, content = post(port, path, body, kind)
    assert status == code
    assert words in json.loads(content)["error"]


def test_a_video_is_refused(port):
    status, content = post(port, "/api/score", b"\0\0\0\x20ftypisom")
    assert status == 415
    assert json.loads(content)["error"].startswith("a video; send an image: BMP, GIF, JPEG")


def test_a_bomb_is_refused_by_its_header(port):
    header = b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;"
    status, _ = post(port, "/api/score", header)
    assert status == 413


def test_no_path_leads_to_files(port):
    for path in ("/etc/passwd", "/../../etc/passwd", "/page.html", "/api/score/x.png"):
        assert ask(port, "GET", path)[0] == 404
    assert ask(port, "GET", "/api/score")[0] == 405
    status, content = post(port, "/api/score", b"/etc/passwd", "application/octet-stream")
    assert status == 415
    assert b"root" not in content


def test_another_host_name_is_refused(port):
    """As of a page elsewhere whose name was pointed at this machine."""
    assert post(port, "/api/score", encoded(), Host="evil.example")[0] == 400
    assert ask(port, "GET", "/", Host=f"localhost:{port}")[0] == 200


def test_one_at_a_time_and_no_endless_queue(port, monkeypatch):
    busy, most, lock = 0, 0, threading.Lock()
    go = threading.Event()
    original = Scorer.score

    def score(self, images):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        go.wait(30)
        try:
            return original(self, images)
        finally:
            with lock:
                busy -= 1

    monkeypatch.setattr(Scorer, "score", score)
    with ThreadPoolExecutor(MAX_WAITING + 4) as pool:
        asked = [pool.submit(post, port, "/api/score", encoded()) for _ in range(MAX_WAITING + 4)]
        # Those beyond the queue are answered while the first still waits.
        refused = []
        while len(refused) < 4:
            refused = [future for future in asked if future.done()]
            go.wait(0.01)
        assert [future.result()[0] for future in refused] == [503] * 4
        assert json.loads(ask(port, "GET", "/health")[2])["busy"] is True
        go.set()
    assert sorted(future.result()[0] for future in asked) == [200] * MAX_WAITING + [503] * 4
    assert most == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "--port 70000: must be 0 to 65535"),
        (["--max-megapixels", "0"], "--max-megapixels 0: must be at least 1"),
    ],
)
def test_options_out_of_range(options, words, capsys):
    assert main(["serve", *options]) == 2
    assert capsys.readouterr().err == f"glpi: error: {words}\n"


def test_a_port_in_use_is_one_line(port, capsys):
    assert main(["serve", "--port", str(port)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"glpi: error: 127.0.0.1, port {port}: Address already in use"
    )


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert error == "glpi: error: glpi serve needs uvicorn: pip install 'glpi_jax[serve]'\n"
