"""The Hugging Face Hub: `hf://owner/name[@revision]`, through huggingface_hub.

That library reads `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT` and `HF_HOME`, which all hold here.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from glpi_jax import __version__
from glpi_jax.core.errors import GlpiError
from glpi_jax.hub.folder import CARD_FILE, CONFIG_FILE, LIBRARY, WEIGHTS_FILE

SCHEME = "hf://"
_FILES = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
_ADDRESS = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^\s@]+))?", re.ASCII)
# What the Hub's refusals mean, by HTTP status.
_REFUSALS = {
    401: "not authorised: no such repository, or it is private and HF_TOKEN is missing or wrong",
    403: "forbidden: the token of HF_TOKEN has no access, or may not write",
    404: "no such repository, or it is private",
}


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
    """Fetch the files of a model, as far as the cache does not have them; returns their folder.

    Raises:
        GlpiError: another form, huggingface_hub is missing, or the Hub does not give them.
    """
    repository, revision = parse_address(address)
    hub = _huggingface_hub(address)
    try:
        folder = hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_FILES,
            library_name=LIBRARY,
            library_version=__version__,
        )
    except Exception as error:  # of huggingface_hub, its HTTP library or the system
        raise GlpiError(f"{address}: {_why(error)}") from error
    return Path(folder)


def check_upload(address: str) -> None:
    """Raise a GlpiError unless an address can be uploaded to, as far as this machine knows."""
    if parse_address(address).revision is not None:
        raise GlpiError(f"{address}: push goes to the main branch; leave out the revision")
    if _huggingface_hub(address).get_token() is None:
        raise GlpiError(
            f"{address}: no token to write with: set HF_TOKEN, or log in with `hf auth login`"
        )


def upload(folder: Path, address: str, *, private: bool) -> str:
    """Upload a hub folder in one commit; the repository is made if it is missing.

    Returns:
        The commit's page.

    Raises:
        GlpiError: see `check_upload`; or the Hub refuses, or cannot be reached.
    """
    check_upload(address)
    repository = parse_address(address).repository
    hub = _huggingface_hub(address)
    api = hub.HfApi(library_name=LIBRARY, library_version=__version__)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=_FILES,
            commit_message=f"Upload with glpi_jax {__version__}",
        )
    except Exception as error:
        raise GlpiError(f"{address}: {_why(error)}") from error
    return str(commit.commit_url)


def _huggingface_hub(address: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise GlpiError(f"{address}: needs huggingface_hub: pip install 'glpi_jax[hub]'") from error
    return huggingface_hub


def _why(error: Exception) -> str:
    """What went wrong, in a line; of a refusal its meaning, since the Hub answers at length."""
    from huggingface_hub import errors

    # Of a snapshot "not in the cache" comes first, and what the Hub answered is its cause.
    chain = [cause for cause in (error, error.__cause__) if cause is not None]
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in chain):
        return "the Hub is needed, but HF_HUB_OFFLINE is set"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    for cause in chain:
        if isinstance(cause, errors.HfHubHTTPError):
            status = cause.response.status_code
            return f"{_REFUSALS.get(status, 'the Hub cannot serve it now')} (HTTP {status})"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "not in the cache, and the Hub cannot be reached (or HF_HUB_OFFLINE is set)"
    lines = str(error).strip().splitlines()
    return f"the Hub cannot be used ({type(error).__name__}: {lines[0] if lines else ''})"
