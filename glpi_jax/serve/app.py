"""The web application: GET /, GET /health, POST /api/score, POST /api/map.

An image is the body of the request: no file name of the client reaches the file system.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from io import BytesIO
from typing import TypeVar
from urllib.parse import urlsplit

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.templates import template_environment
from glpi_jax.scoring import ImageScore, Scorer
from glpi_jax.scoring.map_picture import map_picture
from glpi_jax.scoring.records import filled_fields
from glpi_jax.scoring.video import has_video_signature

UPLOAD_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_WAITING = 8  # requests that upload or wait; those beyond are told to come again
STALL_SECONDS = 20  # an upload of which nothing comes for as long is given up
MAP_CROPS = 400  # beyond, the crops of a map overlap less, down to not at all

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
        " img-src blob:; connect-src 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Result = TypeVar("Result")


def build_app(
    scorer: Scorer, *, max_bytes: int, max_pixels: int, hosts: Collection[str] | None
) -> Starlette:
    """Make the application.

    One score and one map are made at a time, and the map rests while there is a score to make.

    Args:
        scorer: what scores.
        max_bytes: the largest upload.
        max_pixels: the largest image, as its header says, before it is decoded.
        hosts: names under which the page may be asked for; another one is refused, as it comes from
            a page of somebody else that leads here. None allows any.
    """
    Image.init()  # else Pillow does not know all of UPLOAD_FORMATS yet
    page = template_environment("glpi_jax.serve").get_template("page.html").render()
    score_turn, map_turn = asyncio.Lock(), asyncio.Lock()
    no_score = threading.Event()
    no_score.set()
    requests = 0

    async def work_on_image(
        request: Request, turn: asyncio.Lock, work: Callable[[bytes, threading.Event], Result]
    ) -> Result:
        """What `work` makes of the image; it is told of an event that says that nobody waits."""
        nonlocal requests
        if requests >= MAX_WAITING:  # before the body takes memory
            raise HTTPException(503, "too many requests at a time; try again")
        requests += 1
        try:
            data = await _image_of(request, max_bytes, max_pixels)
            return await _in_turn(turn, request, lambda left: work(data, left))
        except asyncio.CancelledError:  # by uvicorn, which would print it as a defect
            raise HTTPException(503, "the server was ended; start glpi serve again") from None
        finally:
            requests -= 1

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def health(request: Request) -> Response:
        busy = score_turn.locked() or map_turn.locked()
        return JSONResponse({"status": "ok", "scale": scorer.scale, "busy": busy})

    async def score(request: Request) -> Response:
        def make(data: bytes, left: threading.Event) -> ImageScore:
            no_score.clear()
            try:
                return scorer.score(data)
            finally:
                no_score.set()

        result = await work_on_image(request, score_turn, make)
        if result.error is not None:
            raise HTTPException(422, result.error.removeprefix(f"{result.image}: "))
        answer = {
            **filled_fields(result),
            "scale": scorer.scale,
            "higher_is_better": scorer.higher_is_better,
            "score_range": scorer.score_range,
        }
        del answer["image"]
        return JSONResponse(answer, headers=_HEADERS)

    async def quality_map(request: Request) -> Response:
        def draw(data: bytes, left: threading.Event) -> bytes:
            def between_crops(done: int, total: int) -> None:
                no_score.wait()
                if left.is_set():
                    raise _nobody_waits()

            pixels = scorer.read_pixels(data)
            stride = _stride_of_map(pixels.shape[0] * pixels.shape[1], scorer.crop)
            quality = scorer.quality_map(pixels, stride=stride, on_progress=between_crops)
            return map_picture(quality, scale=scorer.scale, title="")

        try:
            picture = await work_on_image(request, map_turn, draw)
        except GlpiError as error:
            raise HTTPException(422, str(error).removeprefix("image: ")) from error
        return Response(picture, media_type="image/png", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/health", health),
            Route("/api/score", score, methods=["POST"]),
            Route("/api/map", quality_map, methods=["POST"]),
        ],
        middleware=[] if hosts is None else [Middleware(_KnownHosts, hosts=hosts)],
        exception_handlers={HTTPException: _tell},
    )


class _KnownHosts:
    """Refuses requests to a name that is none of the server's."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]):
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] != "lifespan":
            header = Headers(scope=scope).get("host", "")
            name = None
            with suppress(ValueError):  # half of an IPv6 address
                name = urlsplit(f"//{header}").hostname
            if name not in self._hosts:
                problem = (
                    f"Host {header!r} is no name of this server; ask for "
                    f"{' or '.join(sorted(self._hosts))}, or start it with --host to allow others"
                )
                app = JSONResponse({"error": problem}, 400, headers=_HEADERS)
        await app(scope, receive, send)


async def _in_turn(
    turn: asyncio.Lock, request: Request, work: Callable[[threading.Event], Result]
) -> Result:
    """Do the work in a thread when its turn comes; its event is set when the client leaves."""
    left = threading.Event()
    leaving = asyncio.create_task(_disconnect(request))
    leaving.add_done_callback(lambda _: left.set())
    acquiring = asyncio.create_task(turn.acquire())
    try:
        await asyncio.wait({acquiring, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            raise _nobody_waits()
        return await run_in_threadpool(work, left)
    finally:
        left.set()  # the thread may still run if this was cancelled
        leaving.cancel()
        if not acquiring.cancel():  # it has the turn
            turn.release()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _nobody_waits() -> HTTPException:
    """What ends the work; nobody reads it."""
    return HTTPException(400, "the client left")


def _stride_of_map(pixels: int, crop: int) -> int:
    """Half a crop, or what gives about `MAP_CROPS`, up to a crop: more would leave gaps."""
    return min(crop, max(1, crop // 2, math.ceil(math.sqrt(pixels / MAP_CROPS))))


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {**_HEADERS, **(error.headers or {})}
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


async def _image_of(request: Request, max_bytes: int, max_pixels: int) -> bytes:
    """The body of a request, if it may be an image of a size that is allowed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A form that another page sends here has none of these types.
    if not (kind.startswith("image/") or kind == "application/octet-stream"):
        raise HTTPException(415, "send the image itself, as image/… or application/octet-stream")
    declared = request.headers.get("content-length", "")
    too_large = HTTPException(413, f"the file is larger than {max_bytes / 2**20:g} MiB")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    data = bytearray()
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(STALL_SECONDS) as limit:
            async for part in request.stream():
                limit.reschedule(now() + STALL_SECONDS)
                data += part
                if len(data) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise HTTPException(
            408,
            f"nothing of the upload came for {STALL_SECONDS} seconds; send it again",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload broke off") from None
    if not data:
        raise HTTPException(400, "the body is empty; send an image")
    image = bytes(data)
    await run_in_threadpool(_check_header, image, max_pixels)
    return image


def _check_header(data: bytes, max_pixels: int) -> None:
    """Refuse what is in none of `UPLOAD_FORMATS`, and too many pixels as the header says."""
    most = f"the most is {max_pixels / 1e6:g} megapixels"
    if has_video_signature(data):
        raise HTTPException(415, f"a video; send an image: {', '.join(UPLOAD_FORMATS)}")
    try:
        with Image.open(BytesIO(data), formats=UPLOAD_FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise HTTPException(413, f"the image has too many pixels; {most}") from None
    except Exception as error:  # Pillow's readers raise nearly anything
        raise HTTPException(415, f"no image of these kinds: {', '.join(UPLOAD_FORMATS)}") from error
    if width * height > max_pixels:
        raise HTTPException(413, f"{width}×{height} pixels; {most}")
