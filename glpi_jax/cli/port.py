"""`glpi port …`: official PyTorch checkpoints in both directions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import EXIT_BAD_INPUT, EXIT_OK, OVERRIDE_HELP, Commands, add_command, say
from glpi_jax.core.errors import GlpiError

if TYPE_CHECKING:
    from glpi_jax.interop.verify import WeightComparison

_MOST_SHOWN = 10  # entries that differ


def add(commands: Commands) -> None:
    """Add the commands to the parser."""
    what = add_command(commands, "port", "Official PyTorch checkpoints, in both directions.")
    port = what.add_subparsers(required=True, metavar="WHAT")

    help_text = "Write an official checkpoint from a workdir."
    to_torch = add_command(port, "to-torch", help_text, _to_torch, clears_away=True)
    to_torch.add_argument(
        "source",
        type=Path,
        metavar="WORKDIR",
        help="its selected weights; WORKDIR/checkpoints[/STEP] for a state with its optimizer",
    )
    to_torch.add_argument("out", type=Path, help="a .pth, .pt or .safetensors file")
    to_torch.add_argument(
        "--fill", type=Path, metavar="FILE", help="ViT weights that the workdir never had"
    )
    to_torch.add_argument("--weights-only", action="store_true", help="leave out the optimizer")
    to_torch.add_argument("--force", action="store_true", help="replace an existing file")

    help_text = "Make a workdir from an official checkpoint."
    from_torch = add_command(port, "from-torch", help_text, _from_torch, clears_away=True)
    from_torch.add_argument("file", type=Path, help="a .pth, .pt or .safetensors file")
    from_torch.add_argument("workdir", type=Path, help="folder to make")
    from_torch.add_argument(
        "--config", metavar="FILE.py[:ARG]", help=f"{OVERRIDE_HELP}; the official recipe's"
    )
    from_torch.add_argument(
        "--weights-only", action="store_true", help="a new run from these weights, at step 0"
    )
    from_torch.add_argument(
        "--lower-is-better", action="store_true", help="the labels behind it are such a DMOS"
    )

    help_text = "Compare a workdir with an official checkpoint, stage by stage."
    verify = add_command(port, "verify", help_text, _verify)
    verify.add_argument("file", type=Path, help="a .pth, .pt or .safetensors file")
    verify.add_argument("workdir", type=Path, help="folder of a run")
    verify.add_argument(
        "--torch-repo", type=Path, metavar="FOLDER", help="a clone of the authors' code, to be run"
    )
    verify.add_argument("--torch-class", metavar="MODULE:CLASS", help="of the model in that clone")
    verify.add_argument(
        "--images", nargs="+", type=Path, default=[], metavar="IMAGE|FOLDER", help="to be scored"
    )
    verify.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="largest difference in standard deviations (default: 0.001)",
    )


def _to_torch(args: argparse.Namespace) -> None:
    from glpi_jax.interop.to_torch import to_torch

    notes = to_torch(
        args.source, args.out, fill=args.fill, weights_only=args.weights_only, force=args.force
    )
    for note in notes:
        say(note)
    print(args.out)


def _from_torch(args: argparse.Namespace) -> None:
    from glpi_jax.core.config import load_config, shipped_config
    from glpi_jax.interop.from_torch import from_torch

    named = any(override.startswith("--config.model.name=") for override in args.overrides)
    notes = from_torch(
        args.file,
        args.workdir,
        load_config(args.config or shipped_config("base"), args.overrides),
        size_from_file=not (args.config or named),
        weights_only=args.weights_only,
        lower_is_better=args.lower_is_better,
    )
    for note in notes:
        say(note)
    print(args.workdir)


def _verify(args: argparse.Namespace) -> int:
    from glpi_jax.interop.verify import (
        AUTHORS_CLASS,
        compare_stages,
        compare_weights,
        crops_to_compare,
        open_pair,
    )

    if args.torch_repo is None and (args.images or args.torch_class):
        raise GlpiError("--images and --torch-class need --torch-repo, the code to compare with")
    pair = open_pair(args.file, args.workdir)
    weights = compare_weights(pair)
    _print_weights(weights)
    differences = list(weights.different)
    if args.torch_repo is None:
        say("compared the weights alone: --torch-repo FOLDER compares every stage and the scores")
    else:
        images = crops_to_compare(args.images, pair.model.size.crop)
        torch_class = args.torch_class or AUTHORS_CLASS
        stages = compare_stages(pair, args.torch_repo, torch_class, images)
        print(f"\n{'stage':12} {'largest difference':>18}   in standard deviations")
        for stage in stages:
            print(f"{stage.name:12} {stage.largest:18.2e}   {stage.relative:.2e}")
        differences += stages
    apart = [d for d in differences if not d.relative <= args.tolerance]
    if apart:
        say(f"{len(apart)} weights or stages differ by more than {args.tolerance:g}")
    return EXIT_BAD_INPUT if apart else EXIT_OK


def _print_weights(weights: "WeightComparison") -> None:
    print(f"weights: {weights.equal} entries equal to the last bit, {len(weights.different)} not")
    for entry in weights.different[:_MOST_SHOWN]:
        how = f"{entry.largest:.2e}, {entry.relative:.2e} standard deviations"
        if entry.shapes:
            how = "shape {} in the workdir, {} in the file".format(*entry.shapes)
        print(f"  {entry.name}: {how}")
    if len(weights.different) > _MOST_SHOWN:
        print(f"  … and {len(weights.different) - _MOST_SHOWN} more")
    if weights.absent:
        print(f"  {len(weights.absent)} that never reach the score are not kept in the workdir")
