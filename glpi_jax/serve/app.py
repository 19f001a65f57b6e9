"""The web application: GET /, GET /health, POST /api/score, POST /api/map.

An image is the body of the request: no file name of the client reaches the file system.
"""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from io import BytesIO
from typing import TypeVar

from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from glpi_jax.errors import GlpiError
from glpi_jax.scoring import Scorer
from glpi_jax.scoring.map_picture import map_picture
from glpi_jax.scoring.records import filled_fields
from glpi_jax.scoring.video import has_video_signature

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_WAITING = 8  # requests; those beyond are told to come again

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
        " img-src blob:; connect-src 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Result = TypeVar("Result")


def build_app(scorer: Scorer, *, max_bytes: int, max_pixels: int, hosts: list[str]) -> Starlette:
    """Make the application.

    Args:
        scorer: what scores; for one request at a time.
        max_bytes: the largest upload.
        max_pixels: the largest image, as its header says, before it is decoded.
        hosts: names under which the page may be asked for; another one is refused, as it comes from
            a page of somebody else that leads here.
    """
    Image.init()  # else Pillow does not know all of FORMATS yet
    page = files("glpi_jax.serve").joinpath("page.html").read_text(encoding="utf-8")
    turn = asyncio.Lock()
    waiting = 0

    async def one_at_a_time(work: Callable[[], Result]) -> Result:
        nonlocal waiting
        if waiting >= MAX_WAITING:
            raise HTTPException(503, "too many requests at a time; try again")
        waiting += 1
        try:
            async with turn:
                return await run_in_threadpool(work)
        finally:
            waiting -= 1

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "scale": scorer.scale, "busy": turn.locked()})

    async def score(request: Request) -> Response:
        data = await _image_of(request, max_bytes, max_pixels)
        result = await one_at_a_time(lambda: scorer.score(data))
        if result.error is not None:
            raise HTTPException(422, result.error)
        answer = filled_fields(result)
        del answer["image"]
        facts = {
            "scale": scorer.scale,
            "higher_is_better": scorer.higher_is_better,
            "score_range": scorer.score_range,
        }
        return JSONResponse({**answer, **facts}, headers=_HEADERS)

    async def quality_map(request: Request) -> Response:
        data = await _image_of(request, max_bytes, max_pixels)

        def draw() -> bytes:
            return map_picture(scorer.quality_map(data), scale=scorer.scale, title="")

        try:
            picture = await one_at_a_time(draw)
        except GlpiError as error:
            raise HTTPException(422, str(error)) from error
        return Response(picture, media_type="image/png", headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/health", health),
            Route("/api/score", score, methods=["POST"]),
            Route("/api/map", quality_map, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={HTTPException: _tell},
    )


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=_HEADERS)


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
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        raise HTTPException(400, "the upload broke off") from None
    data = b"".join(parts)
    if not data:
        raise HTTPException(400, "the body is empty; send an image")
    width, height = await run_in_threadpool(_size_of, data)
    if width * height > max_pixels:
        raise HTTPException(
            413, f"{width}×{height} pixels; the most is {max_pixels / 1e6:g} megapixels"
        )
    return data


def _size_of(data: bytes) -> tuple[int, int]:
    """Width and height as the header says, of the formats that are taken."""
    if has_video_signature(data):
        raise HTTPException(415, f"a video; send an image: {', '.join(FORMATS)}")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise HTTPException(413, "the image has too many pixels") from None
    except Exception as error:  # Pillow's readers raise nearly anything
        raise HTTPException(415, f"no image of these kinds: {', '.join(FORMATS)}") from error
