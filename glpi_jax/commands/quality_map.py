"""`glpi map`."""

import argparse
from pathlib import Path

from glpi_jax.commands.common import EXIT_OK, Commands, add_command
from glpi_jax.commands.scoring_options import (
    add_model_option,
    check_png,
    scorer_of,
    silence_pillow,
)


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "map", "Show where a photograph is good and where it is bad, as a picture."
    )
    command.add_argument("photograph", help="an image file or URL")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    command.add_argument(
        "--stride",
        type=int,
        metavar="PIXELS",
        help="from one crop to the next; a smaller one takes longer (default: half a crop)",
    )
    add_model_option(command)
    command.set_defaults(run=_map)


def _map(args: argparse.Namespace) -> int:
    from glpi_jax.files import write_bytes
    from glpi_jax.progress import progress_bar
    from glpi_jax.scoring.map_picture import map_picture
    from glpi_jax.scoring.reading import read_pixels

    check_png(args.out)
    silence_pillow()
    pixels = read_pixels(args.photograph)
    scorer = scorer_of(args, args.model)
    with progress_bar(None, unit="crop", description="map", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.advance()

        quality = scorer.quality_map(pixels, stride=args.stride, on_progress=show)
    picture = map_picture(quality, scale=scorer.scale, title=Path(args.photograph).name)
    write_bytes(args.out, picture)
    scores = quality.scores
    print(f"{args.out}: {scores.min():.3f} to {scores.max():.3f}, {quality.crop_scores.size} crops")
    return EXIT_OK
