"""Options that the commands share that score photographs."""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import one_line, say
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import home_expanded

if TYPE_CHECKING:
    from glpi_jax.scoring import ImageScore, Scorer


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """`--model`."""
    parser.add_argument(
        "--model",
        type=given_name,
        metavar="MODEL",
        help="model to score with: a workdir, a hub folder, a checkpoint or hf://owner/name"
        " (default: the weights of the package)",
    )


def add_crop_options(parser: argparse.ArgumentParser) -> None:
    """`--crops`, `--placement`, `--seed` and `--paper-crops`."""
    group = parser.add_argument_group("crops whose scores are averaged")
    group.add_argument(
        "--crops", type=int, metavar="N", help="crops an image (default: as the model says)"
    )
    group.add_argument(
        "--placement",
        choices=("grid", "random"),  # PLACEMENTS, without importing NumPy for --help
        help="grid: evenly spread; random: drawn from file name and seed (default: grid)",
    )
    group.add_argument("--seed", type=int, help="of random crops (default: 0)")
    group.add_argument(
        "--paper-crops",
        action="store_true",
        help="as in the paper's evaluation: 25 random crops",
    )


def add_picture_option(
    parser: argparse.ArgumentParser, picture: str, *, required: bool = False
) -> None:
    """`--out`, which `check_picture_file` checks."""
    parser.add_argument(
        "--out",
        type=lambda text: Path(given_name(text)),
        required=required,
        metavar="FILE.png",
        help=f"{picture}; of existing files only a picture of glpi is replaced",
    )


def not_empty(text: str) -> str:
    """The type of an argument that is no empty text."""
    if not text:
        raise argparse.ArgumentTypeError("empty; is a variable not set?")
    return text


def given_name(text: str) -> str:
    """The type of an argument that names a file, folder or URL: not empty, `~` replaced."""
    return home_expanded(not_empty(text))


@contextmanager
def naming_options(*parameters: str) -> Iterator[None]:
    """Say `--crops 0` in errors where the package says `crops 0`."""
    try:
        yield
    except GlpiError as error:
        parameter, _, rest = str(error).partition(" ")
        if parameter not in parameters:
            raise
        raise GlpiError(f"--{parameter.replace('_', '-')} {rest}") from error


def scorer_of(args: argparse.Namespace, model: str | None) -> "Scorer":
    """Load the model with the crops that the options of `add_crop_options` say, if it has them.

    Says what the scores mean; GlpiError if options contradict each other.
    """
    from glpi_jax.scoring import PAPER_CROPS, Crops, load

    silence_pillow()
    crops, placement, seed = (getattr(args, name, None) for name in ("crops", "placement", "seed"))
    if getattr(args, "paper_crops", False):
        if (crops, placement, seed) != (None, None, None):
            raise GlpiError("--paper-crops: cannot be combined with --crops, --placement, --seed")
        crops, placement, seed = PAPER_CROPS.count, PAPER_CROPS.placement, PAPER_CROPS.seed
    if seed is not None and placement != "random":
        raise GlpiError("--seed: is for --placement random")
    with naming_options("crops", "seed"):  # before the model is read, which may take long
        Crops(1 if crops is None else crops, placement or "grid", seed or 0)
    scorer = load(model, crops=crops, placement=placement or "grid", seed=seed or 0)
    say(f"{'' if model else 'weights of the package (glpi_small): '}{scorer.meaning}")
    return scorer


def table_row(result: "ImageScore") -> str:
    """A scored image in a line: score, standard error of several crops, name."""
    error = "" if result.standard_error is None else f" ± {result.standard_error:.3f}"
    return f"{result.score:8.3f}{error}  {one_line(result.image)}"


def silence_pillow() -> None:
    """No remarks of Pillow on stderr: on large images, and on files that are damaged a little."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
