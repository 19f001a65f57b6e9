"""Publishing a trained model: as a hub folder, here or on the Hugging Face Hub."""

import dataclasses
import os
import tempfile
from pathlib import Path

from glpi_jax.hub.card import REPOSITORY, Card, card_text, with_form
from glpi_jax.hub.folder import check_destination, write_folder
from glpi_jax.hub.remote import check_upload, parse_address, upload
from glpi_jax.hub.sources import read_model
from glpi_jax.results.workdirs import RESULTS_FILE, read_results


def save_folder(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    card: Card | None = None,
    *,
    force: bool = False,
    weights: str = "float32",
    repository: str = REPOSITORY,
) -> None:
    """Write a model as a hub folder, whole or not at all.

    Args:
        source: see `read_model`; usually a workdir.
        folder: new or empty.
        card: what the model card says besides what the source knows. If None, a hub folder keeps
            its card.
        force: replace the model of a hub folder that exists.
        weights: form of the weights, "float32", "float16" or "int8"; see `weights_file`.
        repository: "owner/name" in the examples of the card.

    Raises:
        GlpiError: the source cannot be read, or the folder cannot be written.
    """
    folder = Path(folder)
    check_destination(folder, force=force)
    trained = read_model(source)
    if card is not None and card.score_range is not None:
        trained = dataclasses.replace(trained, score_range=card.score_range)
    if card is None and trained.card:
        text = with_form(trained.card, weights)
    else:
        has_results = (Path(source) / RESULTS_FILE).is_file()
        results = read_results(Path(source)) if has_results else None
        text = card_text(trained, card or Card(), results, weights)
    text = text.replace(REPOSITORY, repository)
    write_folder(trained, folder, card=text, force=force, form=weights)


def push(
    source: str | os.PathLike[str],
    address: str,
    card: Card | None = None,
    *,
    private: bool = False,
    weights: str = "float32",
) -> str:
    """Upload a model to the Hugging Face Hub, as a hub folder.

    Args:
        source, card, weights: see `save_folder`.
        address: hf://owner/name; the repository is made if it is missing. The token is that of
            `HF_TOKEN` or of `hf auth login`.
        private: whether a repository that is made is private.

    Returns:
        The commit's page.

    Raises:
        GlpiError: the source cannot be read, see `check_upload`, or the Hub refuses or cannot be
            reached.
    """
    check_upload(address)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        repository = parse_address(address).repository
        save_folder(source, folder, card, weights=weights, repository=repository)
        return upload(folder, address, private=private)
