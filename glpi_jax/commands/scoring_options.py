"""Options that the commands share that score photographs."""

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.commands.common import say
from glpi_jax.errors import GlpiError

if TYPE_CHECKING:
    from glpi_jax.scoring import Scorer

DEMONSTRATION = "demonstration weights, trained on a handful of photographs"


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """`--model`."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="what scores: a workdir, a hub folder, a checkpoint or hf://owner/name (default:"
        " weights that come with the package)",
    )


def add_crop_options(parser: argparse.ArgumentParser) -> None:
    """`--crops`, `--placement`, `--seed` and `--paper-crops`."""
    group = parser.add_argument_group("crops whose scores are averaged")
    group.add_argument(
        "--crops", type=int, metavar="N", help="crops an image (default: as the model says)"
    )
    group.add_argument(
        "--placement",
        choices=("grid", "random"),
        help="grid: evenly spread; random: drawn from file name and seed (default: grid)",
    )
    group.add_argument("--seed", type=int, help="of random crops (default: 0)")
    group.add_argument(
        "--paper-crops",
        action="store_true",
        help="as in the paper's evaluation: 25 random crops",
    )


def scorer_of(args: argparse.Namespace, model: str | None, *, quiet: bool = False) -> "Scorer":
    """Load the model with the crops that the options of `add_crop_options` say, if it has them.

    Says what the scores mean if that is the demonstration's, or unless `quiet`.

    Raises:
        GlpiError: options that contradict each other, or what `load` raises.
    """
    from glpi_jax.scoring import PAPER_CROPS, load

    silence_pillow()
    crops, placement, seed = (getattr(args, name, None) for name in ("crops", "placement", "seed"))
    if getattr(args, "paper_crops", False):
        if (crops, placement, seed) != (None, None, None):
            raise GlpiError("--paper-crops: cannot be combined with --crops, --placement, --seed")
        crops, placement, seed = PAPER_CROPS.count, PAPER_CROPS.placement, PAPER_CROPS.seed
    if seed is not None and placement != "random":
        raise GlpiError("--seed: is for --placement random")
    scorer = load(model, crops=crops, placement=placement or "grid", seed=seed or 0)
    if model is None:
        say(f"{DEMONSTRATION}: {scorer.meaning}")
    elif not quiet:
        say(scorer.meaning)
    return scorer


def silence_pillow() -> None:
    """No remarks of Pillow on stderr: on large images, and on files that are damaged a little."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def check_png(path: Path) -> None:
    """Whether a picture can be written there, before the long work that makes it.

    Raises:
        GlpiError: it does not end in .png, or its folder is missing.
    """
    if path.suffix.lower() != ".png":
        raise GlpiError(f"--out {path}: must end in .png")
    if not path.parent.is_dir():
        raise GlpiError(f"--out {path}: there is no folder {path.parent}")
