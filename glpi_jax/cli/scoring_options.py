"""Options that the commands share that score photographs."""

import argparse
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from glpi_jax.cli.common import one_line, say
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import home_expanded

if TYPE_CHECKING:
    from glpi_jax.scoring import ImageScore, Scorer

SHIPPED_NAME = "weights of the package (glpi_small)"


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


def not_empty(text: str) -> str:
    """The type of an argument that is no empty text."""
    if not text:
        raise argparse.ArgumentTypeError("empty; is a variable not set?")
    return text


def given_name(text: str) -> str:
    """The type of an argument that names a file, folder or URL: not empty, `~` replaced."""
    return home_expanded(not_empty(text))


def given_path(text: str) -> Path:
    """The type of an argument that names a file to write, as `given_name`."""
    return Path(given_name(text))


def refuse_models(images: Iterable[str]) -> None:
    """Raise a GlpiError if a model was given in the place of an image."""
    from glpi_jax.hub.sources import looks_like_a_model
    from glpi_jax.scoring.fetch import is_url

    for name in images:
        with suppress(OSError):  # of a name that is too long, which is told later
            if not is_url(name) and looks_like_a_model(name):
                raise GlpiError(f"{name}: a model in the place of an image; --model {name} uses it")


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

    Says what the scores mean.

    Raises:
        GlpiError: options that contradict each other, or what `load` raises.
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
    say(f"{SHIPPED_NAME}: {scorer.meaning}" if model is None else scorer.meaning)
    return scorer


def table_row(result: "ImageScore") -> str:
    """A scored image in a line: score, standard error of several crops, name."""
    error = "" if result.standard_error is None else f" ± {result.standard_error:.3f}"
    return f"{result.score:8.3f}{error}  {one_line(result.image)}"


def silence_pillow() -> None:
    """No remarks of Pillow on stderr: on large images, and on files that are damaged a little."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def check_png(path: Path) -> Path:
    """Whether a picture may be written there, before the long work that makes it.

    Returns:
        The path, or where it leads if it is a link, which is kept.

    Raises:
        GlpiError: it does not end in .png; it exists, and is no picture of glpi; its folder is
            missing or cannot be written to.
    """
    from glpi_jax.scoring.picture_files import is_own_picture

    if path.suffix.lower() != ".png":
        raise GlpiError(f"--out {path}: must end in .png")
    if not path.parent.is_dir():
        raise GlpiError(f"--out {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise GlpiError(f"--out {path}: this is a folder; name a file in it")
    # Most likely a photograph, as in `--out *.png`.
    if os.path.lexists(path) and not is_own_picture(path):
        raise GlpiError(
            f"--out {path}: exists, and is no picture of glpi; give another name or delete it"
        )
    target = path.resolve() if path.is_symlink() else path
    if not os.access(target.parent, os.W_OK):
        raise GlpiError(f"--out {path}: the folder {target.parent} cannot be written to")
    return target
