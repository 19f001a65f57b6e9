"""`glpi rank`."""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.cli.scoring_options import (
    add_crop_options,
    add_model_option,
    check_png,
    given_name,
    given_path,
    refuse_models,
    scorer_of,
    table_row,
)
from glpi_jax.core.errors import GlpiError

if TYPE_CHECKING:
    from glpi_jax.scoring import ImageScore, Problem


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
    from glpi_jax.scoring.contact_sheet import contact_sheet
    from glpi_jax.scoring.inputs import STDIN
    from glpi_jax.scoring.picture_files import png_of

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
    count = sum(1 for _ in _inputs(args))
    with progress_bar(count, unit="image", description="rank", leave=False) as bar:
        for result in scorer.score_iter(_inputs(args)):
            if result.error:
                say(f"error: {result.error}")
                errors += 1
            else:
                scored.append(result)
            bar.advance()
    # Equal scores in the order of the arguments, whatever the direction.
    sign = 1 if scorer.lower_better else -1
    ranked = sorted(scored, key=lambda result: sign * (result.score or 0.0))
    for place, result in enumerate(ranked, start=1):
        print(f"{place:5d}  {table_row(result)}")
    if out is not None and ranked:
        groups = _ends(ranked, args.top, known=scorer.higher_is_better is not None)
        columns = min(5, max(len(results) for _, results in groups))
        sheet = contact_sheet(groups, columns=columns, cell=args.cell)
        write_bytes(out, png_of(sheet))
    return EXIT_BAD_INPUT if errors else EXIT_OK


def _inputs(args: argparse.Namespace) -> Iterator["str | Problem"]:
    """What is ranked, without the sheet that the same command has made before."""
    from glpi_jax.scoring.inputs import list_inputs

    sheet = None if args.out is None else os.path.realpath(args.out)
    for source in list_inputs(args.images):
        if sheet is None or not isinstance(source, str) or os.path.realpath(source) != sheet:
            yield source


def _ends(
    ranked: Sequence["ImageScore"], top: int, *, known: bool
) -> list[tuple[str, Sequence["ImageScore"]]]:
    """The first and the last of a ranking, none of them twice."""
    first, last = ("Best", "Worst") if known else ("Highest scores", "Lowest scores")
    if len(ranked) <= 2 * top:
        return [(f"All {len(ranked)}, {first.lower()} first", ranked)]
    return [(first, ranked[:top]), (f"{last} of {len(ranked)}", ranked[-top:])]
