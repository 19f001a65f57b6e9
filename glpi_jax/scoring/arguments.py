"""Which arguments of a command are a model, and which are images."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from glob import has_magic
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import IMAGE_SUFFIXES, walk_images
from glpi_jax.hub.remote import SCHEME
from glpi_jax.hub.sources import SOURCES, looks_like_a_model
from glpi_jax.scoring.fetch import is_foreign_url, is_url
from glpi_jax.scoring.inputs import STDIN
from glpi_jax.scoring.video import VIDEO_SUFFIXES


def refuse_models(images: Iterable[str]) -> None:
    """Raise a GlpiError if a model was given in the place of an image."""
    for name in images:
        with suppress(OSError):  # of a name that is too long, which is reported later
            if not is_url(name) and looks_like_a_model(name):
                raise GlpiError(f"{name}: a model in the place of an image; --model {name} uses it")


def model_and_images(
    arguments: Sequence[str], tell: Callable[[str], None]
) -> tuple[str | None, Sequence[str]]:
    """Split arguments, of which the first may be a model, into that and the images.

    Args:
        arguments: models, paths, patterns, URLs or `-`; at least one.
        tell: called with a remark on a folder that may be a misnamed model.

    Returns:
        The model, None if there is none, and the other arguments.

    Raises:
        GlpiError: the first is neither an image nor a model, or a later one is a model.
    """
    first, *more = arguments
    refuse_models(more)
    if first == STDIN or is_url(first) or (is_foreign_url(first) and not first.startswith(SCHEME)):
        return None, arguments
    if looks_like_a_model(first):
        return first, more
    path = Path(first)
    if path.is_dir():
        try:
            next(walk_images(path, lambda error: None))
        except GlpiError:  # without an image, told with the others; it may be a model misnamed
            tell(f"{first} is no model, which is {SOURCES}; it is taken for a folder of images")
    elif not (
        path.exists() or has_magic(first) or path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    ):
        raise GlpiError(f"{first}: no such image, folder or model; a model is {SOURCES}")
    return None, arguments
