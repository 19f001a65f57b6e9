"""The web application on a real server on this machine."""

import threading
from collections.abc import Iterator

import pytest
import uvicorn

import glpi_jax
from glpi_jax.scoring import Scorer
from glpi_jax.serve.app import build_app


@pytest.fixture(scope="module")
def scorer(shared_compilations: dict[str, str]) -> Scorer:
    return glpi_jax.load()


@pytest.fixture(scope="module")
def port(scorer: Scorer) -> Iterator[int]:
    """The port of a server that takes images of up to 200 kB and 0.04 megapixels."""
    hosts = ["127.0.0.1", "::1", "localhost"]
    app = build_app(scorer, max_bytes=200_000, max_pixels=40_000, hosts=hosts)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    started = threading.Event()
    startup = server.startup

    async def tell(sockets=None):
        await startup(sockets=sockets)
        started.set()

    server.startup = tell
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(30)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()
