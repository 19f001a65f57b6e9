"""`glpi serve`."""

import argparse
import socket

from glpi_jax.commands.common import EXIT_OK, Commands, add_command, say
from glpi_jax.commands.scoring_options import add_crop_options, add_model_option, scorer_of
from glpi_jax.errors import GlpiError

_LOCAL = ("127.0.0.1", "localhost")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "serve",
        "Score photographs on a web page and by HTTP, on this machine. Needs the extra `serve`.",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but the default lets others in (default: 127.0.0.1)",
    )
    command.add_argument(
        "--port", type=int, default=8000, help="0 takes a free one (default: 8000)"
    )
    command.add_argument(
        "--max-megabytes", type=int, default=50, help="largest upload (default: 50)"
    )
    command.add_argument(
        "--max-megapixels", type=int, default=50, help="largest photograph (default: 50)"
    )
    add_model_option(command)
    add_crop_options(command)
    command.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    try:
        import uvicorn

        from glpi_jax.serve.app import build_app
    except ImportError as error:
        raise GlpiError(f"glpi serve needs {error.name}: pip install 'glpi_jax[serve]'") from error
    import numpy as np

    if not 0 <= args.port < 2**16:
        raise GlpiError(f"--port {args.port}: must be 0 to 65535")
    for option in ("max_megabytes", "max_megapixels"):
        if getattr(args, option) < 1:
            name = option.replace("_", "-")
            raise GlpiError(f"--{name} {getattr(args, option)}: must be at least 1")
    scorer = scorer_of(args, args.model)
    scorer.score(np.zeros((scorer.crop, scorer.crop, 3), np.uint8))  # compiles
    app = build_app(
        scorer,
        max_bytes=args.max_megabytes * 2**20,
        max_pixels=args.max_megapixels * 10**6,
        hosts=list(_LOCAL) if args.host in _LOCAL else ["*"],
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    try:
        listening = socket.create_server((args.host, args.port), family=family)
    except OSError as error:
        cause = str(error.strerror).partition(" (while")[0]  # the rest says the address again
        raise GlpiError(f"{args.host}, port {args.port}: {cause}") from error
    with listening:
        name = f"[{args.host}]" if family == socket.AF_INET6 else args.host
        say(f"http://{name}:{listening.getsockname()[1]}/ (Ctrl-C ends it)")
        server.run(sockets=[listening])
    return EXIT_OK
