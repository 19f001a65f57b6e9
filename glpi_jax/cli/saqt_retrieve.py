"""`glpi saqt retrieve`."""

import argparse
from pathlib import Path

from glpi_jax.cli.common import EXIT_OK, Commands, add_command, say
from glpi_jax.core.errors import GlpiError


def add(saqt: Commands) -> None:
    """Add the command to those of `glpi saqt`."""
    retrieve = add_command(
        saqt,
        "retrieve",
        "Find the references that look most like each photograph; the official similarity table.",
    )
    retrieve.add_argument(
        "photographs", type=Path, help="folder, or text file with a path on each line"
    )
    retrieve.add_argument(
        "references", type=Path, help="folder of references, such as KADID-10k's images"
    )
    retrieve.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="FILE",
        help="torchvision's ResNet-101 (official) or ResNet-50, .pth or .safetensors",
    )
    retrieve.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="the similarity table"
    )
    retrieve.add_argument(
        "--top", type=int, default=1, metavar="K", help="references a photograph (default: 1)"
    )
    retrieve.add_argument(
        "--columns", choices=("old", "new"), default="new", help="of the table (default: new)"
    )
    retrieve.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="B",
        help="images of 512×384 pixels a device at a time (default: 8)",
    )
    retrieve.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="reduce larger photographs to N pixels, where memory is short (default: never)",
    )
    retrieve.add_argument(
        "--threads", type=int, default=4, help="photographs decoded at a time (default: 4)"
    )
    retrieve.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="where vectors are kept, to go on after a stop (default: the table's name, .features)",
    )
    retrieve.add_argument(
        "--skip-bad", action="store_true", help="leave out photographs that cannot be read"
    )
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
