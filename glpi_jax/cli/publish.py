"""`glpi push` and `export`: a trained model for others."""

import argparse
from pathlib import Path

from glpi_jax.cli.common import Commands, add_command, say
from glpi_jax.core.errors import GlpiError


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    help_text = "Publish a trained model on the Hugging Face Hub, or as a folder."
    push = add_command(commands, "push", help_text, _push, clears_away=True)
    help_text = "Write a trained model as one file that scores crops with JAX alone."
    export = add_command(commands, "export", help_text, _export)
    for command in (push, export):
        command.add_argument(
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
    export.add_argument("out", type=Path, metavar="FILE.stablehlo", help="FILE.stablehlo.json too")
    export.add_argument("--force", action="store_true", help="replace an existing file")


def _push(args: argparse.Namespace) -> None:
    from glpi_jax.hub import Card, push, save_folder
    from glpi_jax.hub.remote import SCHEME

    destination = args.destination
    card = None
    if args.title or args.license or args.score_range:
        score_range = tuple(args.score_range) if args.score_range else None
        card = Card(title=args.title, license=args.license, score_range=score_range)
    if destination.startswith(SCHEME):
        if args.force:
            raise GlpiError(f"{destination}: --force is for a folder; the Hub keeps old versions")
        page = push(args.source, destination, card, private=args.private, weights=args.weights)
        say(f"pushed: {page}")
    else:
        if args.private:
            raise GlpiError(f"{destination}: --private is for hf://owner/name")
        save_folder(args.source, Path(destination), card, force=args.force, weights=args.weights)
        say(f"written: {destination}")


def _export(args: argparse.Namespace) -> None:
    from glpi_jax.export import export_model

    description = export_model(args.source, args.out, force=args.force)
    shape, size = description["input"]["shape"], description["bytes"] / 1e6
    say(f"{size:.1f} MB, takes uint8 crops ({', '.join(map(str, shape))})")
    print(args.out)
