"""`glpi saqt …`: the labelled training set made from plain photographs."""

import argparse
import io
import os
from pathlib import Path

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, Commands, add_command, say
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_bytes


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    what = add_command(commands, "saqt", "Semantic-aligned quality transfer.")
    saqt = what.add_subparsers(required=True, metavar="WHAT")
    for add_one in (_add_labels, _add_preview, _add_retrieve, _add_render, _add_verify):
        add_one(saqt)


def _add_labels(saqt: Commands) -> None:
    labels = add_command(
        saqt, "labels", "Transfer KADID-10k's scores to distorted photographs; official tables."
    )
    add = labels.add_argument
    add("matches", type=Path, help="similarity table of photographs and references")
    add("dmos", type=Path, help="KADID-10k's dmos.csv")
    add("out", type=Path, help="folder for the label tables; replaces those that are in it")
    add("--scale", choices=("0-9", "raw"), default="0-9", help="of the labels (default: 0-9)")
    add(
        "--references",
        type=int,
        default=1,
        help="references averaged, weighted by similarity (default: 1, as in the paper)",
    )
    add("--columns", choices=("old", "new"), default="new", help="of the tables (default: new)")
    labels.set_defaults(run=_labels, clears_away=True)


def _labels(args: argparse.Namespace) -> int:
    from glpi_jax.saqt import labels as official

    matches = official.read_matches(args.matches)
    scores = official.read_reference_scores(args.dmos)
    labels = official.transfer(matches, scores, scale=args.scale, references=args.references)
    files = official.write_label_tables(matches, labels, args.out, columns=args.columns)
    say(f"{args.out}: {labels.size:,} labels of {len(matches):,} photographs, {len(files)} tables")
    return EXIT_OK


def _add_preview(saqt: Commands) -> None:
    preview = add_command(
        saqt, "preview", "All 25 distortions at 5 levels of a photograph as one picture."
    )
    add = preview.add_argument
    add("photograph", type=Path, help="an image file")
    add("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    add("--seed", type=int, default=0, help="of the random distortions")
    add("--cell", type=int, default=240, help="side of a small picture in pixels")
    preview.set_defaults(run=_preview)


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


def _add_retrieve(saqt: Commands) -> None:
    retrieve = add_command(
        saqt,
        "retrieve",
        "Find the references that look most like each photograph; the official similarity table.",
    )
    add = retrieve.add_argument
    add("photographs", type=Path, help="folder, or text file with a path on each line")
    add("references", type=Path, help="folder of references, such as KADID-10k's images")
    add(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="torchvision's ResNet-101 (official) or ResNet-50, .pth or .safetensors",
    )
    add("--out", type=Path, required=True, metavar="FILE.csv", help="the similarity table")
    add("--top", type=int, default=1, metavar="K", help="references a photograph (default: 1)")
    add("--columns", choices=("old", "new"), default="new", help="of the table (default: new)")
    add(
        "--batch-size",
        type=int,
        default=8,
        metavar="B",
        help="images of 512×384 pixels a device at a time (default: 8)",
    )
    add(
        "--max-pixels",
        type=int,
        metavar="N",
        help="reduce larger photographs to N pixels, where memory is short (default: never)",
    )
    add("--threads", type=int, default=4, help="photographs decoded at a time (default: 4)")
    add(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="where vectors are kept, to go on after a stop (default: the table's name, .features)",
    )
    add("--skip-bad", action="store_true", help="leave out photographs that cannot be read")
    retrieve.set_defaults(run=_retrieve, resumes=True)


def _retrieve(args: argparse.Namespace) -> int:
    from glpi_jax.distributed.mesh import make_mesh
    from glpi_jax.saqt.retrieval import list_photographs, list_references, retrieve, write_matches
    from glpi_jax.weights.backbones import load_resnet

    if args.columns == "old" and args.top != 1:
        raise GlpiError("--columns old holds one reference a photograph: take --top 1")
    if args.out.is_dir() or not args.out.parent.is_dir():
        raise GlpiError(f"--out {args.out}: must be a file in a folder that exists")
    photographs = list_photographs(args.photographs)
    references = list_references(args.references)
    resnet = load_resnet(args.weights)
    mesh = make_mesh(-1)
    folder = args.features or args.out.with_suffix(".features")
    say(
        f"{len(photographs):,} photographs, {len(references)} references, {resnet.name} on"
        f" {mesh.size} device{'s' if mesh.size > 1 else ''}; vectors are kept in {folder}"
    )
    matches = retrieve(
        photographs,
        references,
        resnet.module,
        resnet.variables,
        mesh,
        weights={"name": resnet.name, "sha256": resnet.sha256},
        folder=folder,
        top=args.top,
        batch_size=args.batch_size,
        max_pixels=args.max_pixels,
        skip_bad=args.skip_bad,
        threads=args.threads,
        tell=say,
    )
    write_matches(args.out, matches, columns=args.columns)
    left_out = len(photographs) - len(matches)
    ending = f"; {left_out:,} left out" if left_out else ""
    say(f"{args.out}: the {args.top} best references of {len(matches):,} photographs{ending}")
    return EXIT_OK


def _add_render(saqt: Commands) -> None:
    render = add_command(
        saqt, "render", "Distort photographs by 25 types at 5 levels; resumes where it stopped."
    )
    add = render.add_argument
    add("photographs", type=Path, help="folder of image files")
    add("out", type=Path, help="folder for the distorted images")
    add("--types", type=int, nargs="+", metavar="T", help="types (default: KADID-10k's 1 to 25)")
    add("--levels", type=int, nargs="+", metavar="L", help="levels (default: 1 to 5)")
    add("--seed", type=int, default=0, help="of the random distortions (default: 0)")
    add("--dncnn", type=Path, metavar="FILE", help="DnCNN for type 15 (default: total variation)")
    add(
        "--format",
        choices=("png", "webp", "bmp"),
        default="png",
        help="of the images, without loss (default: png; the official names end in .bmp)",
    )
    add(
        "--arrayrecord",
        action="store_true",
        help="pack the images of 1,000 photographs at a time into one ArrayRecord file",
    )
    add(
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
    add(
        "--processes",
        type=int,
        default=_cores(),
        help="that render side by side (default: one a core)",
    )
    add("--shard", default="1/1", metavar="I/N", help="this machine's part of the work, of N")
    add("--skip-bad", action="store_true", help="leave out photographs that cannot be used")
    render.set_defaults(run=_render, resumes=True)


def _render(args: argparse.Namespace) -> int:
    if args.dncnn is not None:
        # Before JAX starts: the rendering processes share an accelerator's memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    from glpi_jax.distortions import KADID_TYPES, LEVELS
    from glpi_jax.saqt.render import render_photographs
    from glpi_jax.saqt.render_photograph import RenderSettings
    from glpi_jax.saqt.selection import select_all, select_labelled, select_matched

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
        processes=args.processes,
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


def _add_verify(saqt: Commands) -> None:
    verify = add_command(saqt, "verify", "Check a rendered folder against its manifest.")
    add = verify.add_argument
    add("folder", type=Path, help="what glpi saqt render made")
    add("--fast", action="store_true", help="names and sizes only; no image is opened")
    add(
        "--threads",
        type=int,
        default=_cores(),
        help="that read side by side (default: one a core)",
    )
    verify.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from glpi_jax.saqt.verify_rendered import verify_rendered

    checked = verify_rendered(args.folder, fast=args.fast, threads=args.threads, progress=True)
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


def _cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
