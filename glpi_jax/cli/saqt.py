"""`glpi saqt …`: the labelled training set made from plain photographs."""

import argparse
import io
from pathlib import Path

from glpi_jax.cli import saqt_render, saqt_retrieve
from glpi_jax.cli.common import EXIT_OK, Commands, add_command, say
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_bytes


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    what = add_command(commands, "saqt", "Semantic-aligned quality transfer.")
    saqt = what.add_subparsers(required=True, metavar="WHAT")

    labels = add_command(
        saqt, "labels", "Transfer KADID-10k's scores to distorted photographs; official tables."
    )
    labels.add_argument("matches", type=Path, help="similarity table of photographs and references")
    labels.add_argument("dmos", type=Path, help="KADID-10k's dmos.csv")
    labels.add_argument(
        "out", type=Path, help="folder for the label tables; replaces those that are in it"
    )
    labels.add_argument(
        "--scale", choices=("0-9", "raw"), default="0-9", help="of the labels (default: 0-9)"
    )
    labels.add_argument(
        "--references",
        type=int,
        default=1,
        help="references averaged, weighted by similarity (default: 1, as in the paper)",
    )
    labels.add_argument(
        "--columns", choices=("old", "new"), default="new", help="of the tables (default: new)"
    )
    labels.set_defaults(run=_labels, clears_away=True)

    preview = add_command(
        saqt, "preview", "All 25 distortions at 5 levels of a photograph as one picture."
    )
    preview.add_argument("photograph", type=Path, help="an image file")
    preview.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    preview.add_argument("--seed", type=int, default=0, help="of the random distortions")
    preview.add_argument("--cell", type=int, default=240, help="side of a small picture in pixels")
    preview.set_defaults(run=_preview)

    saqt_retrieve.add(saqt)
    saqt_render.add(saqt)


def _labels(args: argparse.Namespace) -> int:
    from glpi_jax.saqt.labels import (
        read_matches,
        read_reference_scores,
        transfer,
        write_label_tables,
    )

    matches = read_matches(args.matches)
    scores = read_reference_scores(args.dmos)
    labels = transfer(matches, scores, scale=args.scale, references=args.references)
    files = write_label_tables(matches, labels, args.out, columns=args.columns)
    say(f"{args.out}: {labels.size:,} labels of {len(matches):,} photographs, {len(files)} tables")
    return EXIT_OK


def _preview(args: argparse.Namespace) -> int:
    from glpi_jax.data.images import read_image
    from glpi_jax.saqt.preview import distortion_sheet

    if args.out.suffix.lower() != ".png":
        raise GlpiError(f"--out {args.out}: must end in .png")
    if args.cell < 32:
        raise GlpiError(f"--cell {args.cell}: must be at least 32 pixels")
    photograph = read_image(args.photograph, apply_orientation=True)
    sheet = distortion_sheet(photograph, name=args.photograph.name, seed=args.seed, cell=args.cell)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_bytes(args.out, content.getvalue())
    print(args.out)
    return EXIT_OK
