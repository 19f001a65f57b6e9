"""`glpi map`."""

import argparse
import os
from pathlib import Path

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, one_line
from glpi_jax.cli.scoring_options import (
    add_model_option,
    check_png,
    given_name,
    given_path,
    naming_options,
    scorer_of,
    silence_pillow,
)
from glpi_jax.core.errors import GlpiError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "map", "Show where a photograph is good and where it is bad, as a picture."
    )
    command.add_argument("photograph", type=given_name, help="an image file or URL")
    command.add_argument(
        "--out",
        type=given_path,
        required=True,
        metavar="FILE.png",
        help="the picture; of existing files only a picture of glpi is replaced",
    )
    command.add_argument(
        "--stride",
        type=int,
        metavar="PIXELS",
        help="from one crop to the next; a smaller one takes longer (default: half a crop)",
    )
    add_model_option(command)
    command.set_defaults(run=_map)


def _map(args: argparse.Namespace) -> int:
    from glpi_jax.core.files import write_bytes
    from glpi_jax.core.progress import progress_bar
    from glpi_jax.scoring.arguments import refuse_models
    from glpi_jax.scoring.fetch import is_url
    from glpi_jax.scoring.map_picture import map_picture
    from glpi_jax.scoring.reading import read_pixels

    out = check_png(args.out)
    if args.out.exists() and os.path.realpath(args.photograph) == os.path.realpath(args.out):
        raise GlpiError(f"--out {args.out}: this is the photograph itself; give another name")
    refuse_models([args.photograph])
    silence_pillow()
    if not is_url(args.photograph):  # an unreadable file fails before the model is loaded
        read_pixels(args.photograph, apply_orientation=False)
    scorer = scorer_of(args, args.model)
    with progress_bar(None, unit="crop", description="map", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.set_total(total)
            bar.advance()

        with naming_options("stride"):
            quality = scorer.quality_map(args.photograph, stride=args.stride, on_progress=show)
    picture = map_picture(quality, scale=scorer.scale, title=Path(args.photograph).name)
    write_bytes(out, picture)
    scores = quality.scores
    span = f"{scores.min():.3f} to {scores.max():.3f}"
    print(f"{one_line(str(args.out))}: {span}, {quality.crop_scores.size} crops")
    return EXIT_OK
