"""`glpi push`."""

import argparse
from pathlib import Path

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, say


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    push = add_command(
        commands, "push", "Publish a trained model on the Hugging Face Hub, or as a folder."
    )
    push.add_argument(
        "source",
        metavar="SOURCE",
        help="a workdir, a hub folder, a checkpoint (.pth, .pt, .safetensors) or hf://owner/name",
    )
    push.add_argument(
        "destination",
        metavar="hf://owner/name|FOLDER",
        help="a repository, made if it is missing (the token is that of HF_TOKEN), or a folder",
    )
    push.add_argument("--title", help="heading of the model card")
    push.add_argument("--license", metavar="ID", help="of the weights, as the Hub names it: mit")
    push.add_argument(
        "--score-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="ends of the scale of the labels that the model was trained on",
    )
    push.add_argument(
        "--weights",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="form of the weights: int8 takes a quarter of the bytes of float32 (default: float32)",
    )
    push.add_argument("--private", action="store_true", help="if the repository is made")
    push.add_argument("--force", action="store_true", help="replace the model of a folder")
    push.set_defaults(run=_push, clears_away=True)


def _push(args: argparse.Namespace) -> int:
    from glpi_jax.core.errors import GlpiError
    from glpi_jax.hub import Card, push, save_folder
    from glpi_jax.hub.remote import SCHEME

    card = None
    if args.title or args.license or args.score_range:
        score_range = tuple(args.score_range) if args.score_range else None
        card = Card(title=args.title, license=args.license, score_range=score_range)
    if not args.destination.startswith(SCHEME):
        if args.private:
            raise GlpiError(f"{args.destination}: --private is for hf://owner/name")
        destination = Path(args.destination)
        save_folder(args.source, destination, card, force=args.force, weights=args.weights)
        say(f"written: {args.destination}")
        return EXIT_OK
    if args.force:
        raise GlpiError(f"{args.destination}: --force is for a folder; the Hub keeps old versions")
    page = push(args.source, args.destination, card, private=args.private, weights=args.weights)
    say(f"pushed: {page}")
    return EXIT_OK
