"""The web page and the HTTP API, on a real server on this machine."""

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from glpi_jax.cli.main import main
from glpi_jax.scoring import Scorer
from glpi_jax.scoring.quality_map import Layout
from glpi_jax.serve import app as application
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


def begin_upload(port, path="/api/score", declared=5000):
    """A connection on which three of the declared bytes were sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    connection.sendall(f"{head}Content-Length: {declared}\r\n\r\nabc".encode())
    return connection


def begin_upload_that_is_read(port):
    """A connection as that of `begin_upload`, whose body the server asks for."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = "POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    connection.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n".encode())
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    connection.sendall(b"abc")
    return connection


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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
        (encoded(9, 99), "image/png", 422, "99×9 pixels are too few to judge"),
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
    error = json.loads(content)["error"]
    assert words in error
    assert not error.startswith("image")  # the file has no such name


def test_a_video_is_refused(port):
    status, content = post(port, "/api/score", b"\0\0\0\x20ftypisom")
    assert status == 415
    assert json.loads(content)["error"].startswith("a video; send an image: BMP, GIF, JPEG")


def test_a_bomb_is_refused_by_its_header(port):
    header = b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;"
    status, content = post(port, "/api/score", header)
    assert status == 413
    assert json.loads(content)["error"] == (
        "the image has too many pixels; the most is 0.04 megapixels"
    )


def test_no_path_leads_to_files(port):
    for path in ("/etc/passwd", "/../../etc/passwd", "/page.html", "/api/score/x.png"):
        assert ask(port, "GET", path)[0] == 404
    status, headers, _ = ask(port, "GET", "/api/score")
    assert (status, headers["Allow"]) == (405, "POST")
    status, content = post(port, "/api/score", b"/etc/passwd", "application/octet-stream")
    assert status == 415
    assert b"root" not in content


def test_another_host_name_is_refused(port):
    """As of a page elsewhere whose name was pointed at this machine."""
    for host in ("evil.example", f"evil.example:{port}", "[::1"):
        status, content = post(port, "/api/score", encoded(), Host=host)
        assert status == 400
        assert json.loads(content)["error"] == (
            f"Host '{host}' is no name of this server; ask for 127.0.0.1 or ::1 or localhost, or"
            " start it with --host to allow others"
        )
    for host in (f"localhost:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert ask(port, "GET", "/", Host=host)[0] == 200


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


def test_an_upload_counts_before_it_is_read(port):
    """So that no number of uploads at a time fills the memory."""
    begun = [begin_upload(port) for _ in range(MAX_WAITING)]
    try:
        wait_until(lambda: post(port, "/api/score", encoded())[0] == 503)
    finally:
        for connection in begun:
            connection.close()
    wait_until(lambda: post(port, "/api/score", encoded())[0] == 200)


def test_an_upload_that_stalls_is_given_up(port, monkeypatch):
    monkeypatch.setattr(application, "STALL_SECONDS", 0.2)
    with begin_upload(port) as connection:
        answer = b""
        while part := connection.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"nothing of the upload came for 0.2 seconds; send it again" in answer


def send_and_leave(port, path, body, when):
    """Send a whole request, and close the connection once `when()` holds."""
    with begin_upload(port, path, declared=3 + len(body)) as connection:
        connection.sendall(body)
        wait_until(when)


def test_work_that_nobody_waits_for_is_not_begun(port, monkeypatch):
    begun, go = [], threading.Event()
    original = Scorer.score

    def score(self, images):
        begun.append(images)
        go.wait(30)
        return original(self, images)

    monkeypatch.setattr(Scorer, "score", score)
    monkeypatch.setattr(application, "_check_header", lambda data, max_pixels: None)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, port, "/api/score", encoded())
        wait_until(lambda: begun)
        for _ in range(2 * MAX_WAITING):  # who leaves makes place
            send_and_leave(port, "/api/score", encoded(), lambda: time.sleep(0.02) or True)
        go.set()
        assert first.result()[0] == 200
    assert post(port, "/api/score", encoded())[0] == 200
    assert begun == [encoded(), encoded()]


def test_a_map_stops_when_its_client_leaves(port, monkeypatch):
    made, stopped, go = [], threading.Event(), threading.Event()

    def quality_map(self, image, *, stride, on_progress):
        try:
            for done in range(10_000):
                on_progress(done, 10_000)
                made.append(done)
                go.wait(0.01)
        finally:
            stopped.set()

    monkeypatch.setattr(Scorer, "quality_map", quality_map)
    monkeypatch.setattr(Scorer, "read_pixels", lambda self, data: np.zeros((90, 120, 3), np.uint8))
    monkeypatch.setattr(application, "_check_header", lambda data, max_pixels: None)
    send_and_leave(port, "/api/map", encoded(), lambda: made)
    assert stopped.wait(30)
    assert len(made) < 9_999


def test_a_map_rests_while_there_is_a_score_to_make(port, monkeypatch):
    made, scored = [], []
    original_map, original_score = Scorer.quality_map, Scorer.score
    scoring, go = threading.Event(), threading.Event()

    def quality_map(self, image, *, stride, on_progress):
        def tell(done, total):
            made.append(done)
            scoring.wait(30)
            on_progress(done, total)

        return original_map(self, image, stride=stride, on_progress=tell)

    def score(self, images):
        scoring.set()
        before = len(made)
        go.wait(0.3)  # for what must not happen
        assert len(made) - before <= 1
        scored.append(len(made))
        return original_score(self, images)

    monkeypatch.setattr(Scorer, "quality_map", quality_map)
    monkeypatch.setattr(Scorer, "score", score)
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(post, port, "/api/map", encoded(190, 200))
        wait_until(lambda: made)
        assert post(port, "/api/score", encoded())[0] == 200
        assert drawn.result()[0] == 200
    assert scored[0] < len(made)


@pytest.mark.parametrize(
    ("height", "width", "crop", "stride"),
    [(90, 120, 64, 32), (600, 800, 64, 35), (3000, 4000, 64, 64), (3000, 4000, 224, 174)],
)
def test_maps_of_large_photographs_are_coarser(height, width, crop, stride):
    assert application._stride_of_map(height * width, crop) == stride
    count = Layout(np.empty((height, width, 3), np.uint8), crop, stride).count
    assert count <= 1.1 * application.MAP_CROPS or stride == crop


# The command


@pytest.fixture
def serve(shared_compilations, demo_weights):
    """Start `glpi serve` in a process of its own: the process and its port."""
    started = []

    def start(*options):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "glpi_jax", "serve", "--port", "0"),
                *("--model", demo_weights, *options),
            ],
            env=shared_compilations,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        for line in process.stderr:
            if "http://" in line:
                return process, int(line.partition(" (Ctrl-C")[0].rstrip("/").rpartition(":")[2])
        raise AssertionError("glpi serve did not start")

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_the_normal_end_even_while_an_upload_stalls(serve, times):
    process, port = serve()
    with begin_upload_that_is_read(port) as connection:
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        _, error = process.communicate(timeout=20)
        answer = connection.recv(4096)
    assert (process.returncode, error) == (0, "")
    assert answer.startswith(b"HTTP/1.1 503 ")


def test_another_address_of_this_machine_keeps_the_host_check(serve):
    _, port = serve("--host", "127.0.0.2")
    connection = http.client.HTTPConnection("127.0.0.2", port, timeout=60)
    for host, code in ((f"127.0.0.2:{port}", 200), ("localhost", 200), ("evil.example", 400)):
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == code
    connection.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "--port 70000: must be 0 to 65535"),
        (["--max-megapixels", "0"], "--max-megapixels 0: must be at least 1"),
        (
            ["--max-megapixels", "179"],
            "--max-megapixels 179: must be at most 178; Pillow decodes no larger image",
        ),
    ],
)
def test_options_out_of_range(options, words, capsys):
    assert main(["serve", *options]) == 2
    assert capsys.readouterr().err == f"glpi: error: {words}\n"


def test_a_port_in_use_is_told_before_the_model_is_loaded(port, capsys):
    assert main(["serve", "--port", str(port), "--model", "no/such/model"]) == 2
    assert capsys.readouterr().err == (
        f"glpi: error: 127.0.0.1, port {port}: Address already in use; name another port with"
        " --port, or 0 for a free one\n"
    )


def test_an_address_of_another_machine(capsys):
    assert main(["serve", "--host", "192.0.2.1"]) == 2
    assert "name an address of this machine with --host" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    error = capsys.readouterr().err
    assert error == "glpi: error: glpi serve needs uvicorn: pip install 'glpi_jax[serve]'\n"
