"""`glpi serve`."""

import argparse
import errno
import ipaddress
import logging
import socket
from contextlib import suppress

from glpi_jax.cli.common import Commands, add_command, say
from glpi_jax.cli.scoring_options import add_crop_options, add_model_option, not_empty, scorer_of
from glpi_jax.core.errors import GlpiError

_LOCAL_NAMES = {"127.0.0.1", "::1", "localhost"}
_GRACE_SECONDS = 3  # for answers that are being made when the server is ended


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    help_text = (
        "Score photographs on a web page and by HTTP, on this machine. Needs the extra `serve`."
    )
    command = add_command(commands, "serve", help_text, _serve)
    command.add_argument(
        "--host",
        type=not_empty,  # which would listen on all addresses
        default="127.0.0.1",
        help="address to listen on; any but 127.0.0.1, ::1 and localhost lets others in (default:"
        " 127.0.0.1)",
    )
    command.add_argument(
        "--port", type=int, default=8000, help="0 takes a free one (default: 8000)"
    )
    command.add_argument(
        "--max-megabytes", type=int, default=50, help="largest upload (default: 50)"
    )
    command.add_argument(
        "--max-megapixels",
        type=int,
        default=50,
        help="largest photograph; up to 178, as more are not decoded (default: 50)",
    )
    add_model_option(command)
    add_crop_options(command)


def _serve(args: argparse.Namespace) -> None:
    try:
        import uvicorn

        from glpi_jax.serve.app import build_app
    except ImportError as error:
        raise GlpiError(f"glpi serve needs {error.name}: pip install 'glpi_jax[serve]'") from error
    import numpy as np

    _check_numbers(args)
    # First, since loading and compiling take a while.
    with _listen(args.host, args.port) as listening:
        address, port = listening.getsockname()[:2]
        local = ipaddress.ip_address(address).is_loopback
        scorer = scorer_of(args, args.model)
        scorer.score(np.zeros((scorer.crop, scorer.crop, 3), np.uint8))  # compiles
        app = build_app(
            scorer,
            max_bytes=args.max_megabytes * 2**20,
            max_pixels=args.max_megapixels * 10**6,
            hosts=_LOCAL_NAMES | {args.host, address} if local else None,
        )
        settings = uvicorn.Config(
            app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_GRACE_SECONDS
        )
        # That requests were cancelled at the end is told to who asked.
        logging.getLogger("uvicorn.error").addFilter(
            lambda record: "timeout graceful shutdown" not in str(record.msg)
        )
        name = f"[{args.host}]" if listening.family == socket.AF_INET6 else args.host
        say(f"http://{name}:{port}/ (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):  # raised when the server has ended: its normal end
            uvicorn.Server(settings).run(sockets=[listening])


def _check_numbers(args: argparse.Namespace) -> None:
    from PIL import Image

    if not 0 <= args.port < 2**16:
        raise GlpiError(f"--port {args.port}: must be 0 to 65535")
    if args.max_megabytes < 1:
        raise GlpiError(f"--max-megabytes {args.max_megabytes}: must be at least 1")
    if args.max_megapixels < 1:
        raise GlpiError(f"--max-megapixels {args.max_megapixels}: must be at least 1")
    decodable = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6  # where Pillow raises an error
    if args.max_megapixels > decodable:
        raise GlpiError(
            f"--max-megapixels {args.max_megapixels}: must be at most {decodable}; Pillow decodes"
            " no larger image"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        cause = str(error.strerror).partition(" (while")[0]  # the rest says the address again
        remedy = "name an address of this machine with --host"
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            remedy = "name another port with --port, or 0 for a free one"
        raise GlpiError(f"{host}, port {port}: {cause}; {remedy}") from error
