"""The Hugging Face Hub: `hf://owner/name[@revision]`, through huggingface_hub.

That library reads `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT` and `HF_HOME`, which all hold here.
"""

import re
from pathlib import Path
from typing import NamedTuple

import huggingface_hub

from glpi_jax import __version__
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.hub_errors import hub_errors
from glpi_jax.hub.folder import CARD_FILE, CONFIG_FILE, LIBRARY, WEIGHTS_FILE

SCHEME = "hf://"
_FILES = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
_ADDRESS = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^\s@]+))?", re.ASCII)


class Address(NamedTuple):
    """A repository of the Hub, "owner/name", and a branch, tag or commit of it, or None."""

    repository: str
    revision: str | None


def parse_address(text: str) -> Address:
    """Take `hf://owner/name[@revision]` apart. Raises a GlpiError for another form."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise GlpiError(f"{text}: not of the form hf://owner/name or hf://owner/name@revision")
    return Address(found["repository"], found["revision"])


def download(address: str) -> Path:
    """Download a model's files that are not in the cache; return their folder.

    Raises:
        GlpiError: another form, or the Hub does not give them.
    """
    repository, revision = parse_address(address)
    with hub_errors(address):
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_FILES,
            library_name=LIBRARY,
            library_version=__version__,
        )
    return Path(folder)


def check_upload(address: str) -> None:
    """Raise a GlpiError unless an address can be uploaded to, as far as this machine knows."""
    if parse_address(address).revision is not None:
        raise GlpiError(f"{address}: push goes to the main branch; leave out the revision")
    if huggingface_hub.get_token() is None:
        raise GlpiError(
            f"{address}: no token to write with: set HF_TOKEN, or log in with `hf auth login`"
        )


def upload(folder: Path, address: str, *, private: bool) -> str:
    """Upload a hub folder in one commit, after `check_upload`; return the commit's page.

    The repository is made if it is missing.

    Raises:
        GlpiError: the Hub refuses, or cannot be reached.
    """
    repository = parse_address(address).repository
    api = huggingface_hub.HfApi(library_name=LIBRARY, library_version=__version__)
    with hub_errors(address):
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=_FILES,
            commit_message=f"Upload with glpi_jax {__version__}",
        )
    return str(commit.commit_url)
