"""`glpi saqt render` and `glpi saqt verify`."""

import argparse
import os
from pathlib import Path

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.core.errors import GlpiError


def add(saqt: Commands) -> None:
    """Add the commands to those of `glpi saqt`."""
    render = add_command(
        saqt, "render", "Distort photographs by 25 types at 5 levels; resumes where it stopped."
    )
    render.add_argument("photographs", type=Path, help="folder of image files")
    render.add_argument("out", type=Path, help="folder for the distorted images")
    render.add_argument(
        "--types", type=int, nargs="+", metavar="T", help="types (default: KADID-10k's 1 to 25)"
    )
    render.add_argument(
        "--levels", type=int, nargs="+", metavar="L", help="levels (default: 1 to 5)"
    )
    render.add_argument(
        "--seed", type=int, default=0, help="of the random distortions (default: 0)"
    )
    render.add_argument(
        "--dncnn", type=Path, metavar="FILE", help="DnCNN for type 15 (default: total variation)"
    )
    render.add_argument(
        "--format",
        choices=("png", "webp", "bmp"),
        default="png",
        help="of the images, without loss (default: png; the official names end in .bmp)",
    )
    render.add_argument(
        "--arrayrecord",
        action="store_true",
        help="pack the images of 1,000 photographs at a time into one ArrayRecord file",
    )
    render.add_argument(
        "--apply-orientation",
        action="store_true",
        help="turn photographs as EXIF says (default: as stored, as the official code does)",
    )
    order = render.add_mutually_exclusive_group()
    order.add_argument(
        "--labels",
        type=Path,
        help="folder of label tables: their photographs, and their labels for training",
    )
    order.add_argument("--matches", type=Path, help="similarity table: its photographs, in order")
    render.add_argument(
        "--processes", type=int, help="that render side by side (default: one a core)"
    )
    render.add_argument(
        "--shard", default="1/1", metavar="I/N", help="this machine's part of the work, of N"
    )
    render.add_argument(
        "--skip-bad", action="store_true", help="leave out photographs that cannot be used"
    )
    render.set_defaults(run=_render, resumes=True)

    verify = add_command(saqt, "verify", "Check a rendered folder against its manifest.")
    verify.add_argument("folder", type=Path, help="what glpi saqt render made")
    verify.add_argument(
        "--fast", action="store_true", help="names and sizes only; no image is opened"
    )
    verify.add_argument("--threads", type=int, help="that read side by side (default: one a core)")
    verify.set_defaults(run=_verify)


def _render(args: argparse.Namespace) -> int:
    if args.dncnn is not None:
        # Before JAX starts: the rendering processes share an accelerator's memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    from glpi_jax.distortions import KADID_TYPES, LEVELS
    from glpi_jax.saqt.render import render_photographs
    from glpi_jax.saqt.render_photograph import RenderSettings
    from glpi_jax.saqt.selection import (
        count_cores,
        select_all,
        select_labelled,
        select_matched,
    )

    shard = _shard(args.shard)
    if args.labels is not None:
        selection = select_labelled(args.photographs, args.labels, skip_bad=args.skip_bad)
    elif args.matches is not None:
        selection = select_matched(args.photographs, args.matches, skip_bad=args.skip_bad)
    else:
        selection = select_all(args.photographs)
    settings = RenderSettings(
        types=tuple(args.types or KADID_TYPES),
        levels=tuple(args.levels or LEVELS),
        seed=args.seed,
        dncnn=args.dncnn,
        format_name=args.format,
        arrayrecord=args.arrayrecord,
        apply_orientation=args.apply_orientation,
    )
    made = render_photographs(
        selection,
        args.out,
        settings,
        shard=shard,
        processes=count_cores() if args.processes is None else args.processes,
        skip_bad=args.skip_bad,
        progress=True,
    )
    for reason in (*selection.left_out, *made.left_out):
        say(f"left out: {reason}")
    say(f"{args.out}: {made.images:,} images of {made.photographs:,} photographs")
    if made.waiting:
        say(f"{made.waiting:,} photographs of other parts are not finished yet")
        if args.labels is not None:
            say("the same command writes the labels when they are")
    if made.kind is not None:
        say(f"labelled: train with --config.data.database={made.kind}")
    print(args.out)
    return EXIT_OK


def _shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise GlpiError(f"--shard {text}: must be of the form 1/4, the first of four parts")
    return int(part), int(parts)


def _verify(args: argparse.Namespace) -> int:
    from glpi_jax.saqt.selection import count_cores
    from glpi_jax.saqt.verify_rendered import verify_rendered

    checked = verify_rendered(
        args.folder,
        fast=args.fast,
        threads=count_cores() if args.threads is None else args.threads,
        progress=True,
    )
    for reason in checked.left_out:
        say(f"left out: {reason}")
    for problem in checked.problems:
        print(problem)
    if checked.problems:
        say(
            f"{args.folder}: {len(checked.problems)} problems; delete damaged files and what is"
            " extra, and give the same render command again"
        )
        return EXIT_BAD_INPUT
    depth = "names and sizes" if args.fast else "names, hashes and pixels"
    say(f"{args.folder}: {checked.images:,} images as the manifest says ({depth})")
    return EXIT_OK
