"""`glpi rank`."""

import argparse

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    add_model_option,
    check_png,
    given_name,
    given_path,
    scorer_of,
    table_row,
)
from glpi_jax.core.errors import GlpiError


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "rank", "Order photographs from best to worst; --out shows both ends."
    )
    command.add_argument(
        "images",
        nargs="+",
        type=given_name,
        metavar="FOLDER|IMAGE|URL",
        help="image files, folders (searched for images), quoted patterns, URLs; neither videos nor"
        " a list on stdin",
    )
    command.add_argument(
        "--out",
        type=given_path,
        metavar="FILE.png",
        help="a contact sheet; of existing files only a picture of glpi is replaced",
    )
    command.add_argument(
        "--top", type=int, default=10, metavar="N", help="of each end in the sheet (default: 10)"
    )
    command.add_argument(
        "--cell", type=int, default=240, help="side of a small picture in pixels (default: 240)"
    )
    add_model_option(command)
    add_crop_options(command)
    command.set_defaults(run=_rank)


def _rank(args: argparse.Namespace) -> int:
    from glpi_jax.core.files import write_bytes
    from glpi_jax.core.progress import progress_bar
    from glpi_jax.scoring.arguments import refuse_models
    from glpi_jax.scoring.contact_sheet import contact_sheet
    from glpi_jax.scoring.inputs import STDIN, list_inputs
    from glpi_jax.scoring.picture_files import png_of
    from glpi_jax.scoring.ranking import best_first, both_ends, without_file

    if args.top < 1:
        raise GlpiError(f"--top {args.top}: must be at least 1")
    if args.cell < 64:
        raise GlpiError(f"--cell {args.cell}: must be at least 64 pixels")
    out = None if args.out is None else check_png(args.out)
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
    ranked = best_first(scored, lower_better=bool(scorer.lower_better))
    for place, result in enumerate(ranked, start=1):
        print(f"{place:5d}  {table_row(result)}")
    if out is not None and ranked:
        groups = both_ends(ranked, args.top, known=scorer.higher_is_better is not None)
        columns = min(5, max(len(results) for _, results in groups))
        sheet = contact_sheet(groups, columns=columns, cell=args.cell)
        write_bytes(out, png_of(sheet))
    return EXIT_BAD_INPUT if errors else EXIT_OK
