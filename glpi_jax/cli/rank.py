"""`glpi rank`, `compare` and `map`: which photographs are better, and which parts of one."""

import argparse
import os
from pathlib import Path

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, one_line, say
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    add_model_option,
    add_picture_option,
    given_name,
    naming_options,
    scorer_of,
    silence_pillow,
    table_row,
)
from glpi_jax.core.errors import GlpiError


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    help_text = "Order photographs from best to worst; --out shows both ends."
    rank = add_command(commands, "rank", help_text, _rank)
    rank.add_argument(
        "images",
        nargs="+",
        type=given_name,
        metavar="FOLDER|IMAGE|URL",
        help="image files, folders (searched for images), quoted patterns, URLs; neither videos nor"
        " a list on stdin",
    )
    add_picture_option(rank, "a contact sheet")
    rank.add_argument(
        "--top", type=int, default=10, metavar="N", help="of each end in the sheet (default: 10)"
    )
    rank.add_argument(
        "--cell", type=int, default=240, help="side of a small picture in pixels (default: 240)"
    )

    help_text = (
        "Which of two photographs is better, and whether the difference is larger than what other"
        " crops of the same photographs would make."
    )
    compare = add_command(commands, "compare", help_text, _compare)
    compare.add_argument("first", type=given_name, metavar="A", help="an image file or URL")
    compare.add_argument("second", type=given_name, metavar="B", help="an image file or URL")
    help_text = "Show where a photograph is good and where it is bad, as a picture."
    show = add_command(commands, "map", help_text, _map)
    show.add_argument("photograph", type=given_name, help="an image file or URL")
    add_picture_option(show, "the picture", required=True)
    show.add_argument(
        "--stride",
        type=int,
        metavar="PIXELS",
        help="from one crop to the next; a smaller one takes longer (default: half a crop)",
    )

    for command in (rank, compare, show):
        add_model_option(command)
    for command in (rank, compare):
        add_crop_options(command)


def _rank(args: argparse.Namespace) -> int:
    from glpi_jax.core.files import write_bytes
    from glpi_jax.core.progress import progress_bar
    from glpi_jax.scoring.contact_sheet import contact_sheet
    from glpi_jax.scoring.inputs import STDIN, list_inputs, refuse_models
    from glpi_jax.scoring.picture_files import check_picture_file, png_of
    from glpi_jax.scoring.ranking import best_first, both_ends, without_file

    if args.top < 1:
        raise GlpiError(f"--top {args.top}: must be at least 1")
    if args.cell < 64:
        raise GlpiError(f"--cell {args.cell}: must be at least 64 pixels")
    out = None if args.out is None else check_picture_file(args.out)
    if STDIN in args.images:
        raise GlpiError("-: only `glpi score` reads a list from stdin; name the images")
    refuse_models(args.images)
    scorer = scorer_of(args, args.model)
    scored, errors = [], 0
    count = sum(1 for _ in without_file(list_inputs(args.images), args.out))
    with progress_bar(count, unit="image", description="rank", leave=False) as bar:
        for result in scorer.score_iter(without_file(list_inputs(args.images), args.out)):
            if result.error:
                say(f"error: {result.error}")
                errors += 1
            else:
                scored.append(result)
            bar.advance()
    ranked = best_first(scored, scorer.higher_is_better)
    for place, result in enumerate(ranked, start=1):
        print(f"{place:5d}  {table_row(result)}")
    if out is not None and ranked:
        groups = both_ends(ranked, args.top, known=scorer.higher_is_better is not None)
        columns = min(5, max(len(results) for _, results in groups))
        sheet = contact_sheet(groups, columns=columns, cell=args.cell)
        write_bytes(out, png_of(sheet))
    return EXIT_BAD_INPUT if errors else EXIT_OK


def _compare(args: argparse.Namespace) -> None:
    from glpi_jax.scoring.inputs import refuse_models
    from glpi_jax.scoring.ranking import verdict

    if args.crops == 1:
        raise GlpiError("--crops 1: one crop has no spread; take 2 or more")
    refuse_models([args.first, args.second])
    scorer = scorer_of(args, args.model)
    results = scorer.score([args.first, args.second])
    for result in results:
        if result.error is not None:
            raise GlpiError(result.error)
    for result in results:
        print(table_row(result))
    print(one_line(verdict(results[0], results[1], scorer.higher_is_better)))


def _map(args: argparse.Namespace) -> None:
    from glpi_jax.core.files import write_bytes
    from glpi_jax.core.progress import progress_bar
    from glpi_jax.scoring.fetch import is_url
    from glpi_jax.scoring.inputs import refuse_models
    from glpi_jax.scoring.map_picture import map_picture
    from glpi_jax.scoring.picture_files import check_picture_file
    from glpi_jax.scoring.reading import read_pixels

    out = check_picture_file(args.out)
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
