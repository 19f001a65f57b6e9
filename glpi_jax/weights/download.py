"""Published weights from the Hugging Face Hub, through huggingface_hub.

That library keeps them in its cache, which timm shares, lets one process at a time download a file,
and reads `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_TOKEN`.
"""

from pathlib import Path
from typing import NamedTuple

import huggingface_hub

from glpi_jax import __version__
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.hub_errors import hub_errors
from glpi_jax.weights.torch_files import sha256_of

_FILE = "model.safetensors"


class PublishedFile(NamedTuple):
    """The file `model.safetensors` of a repository on the Hugging Face Hub.

    Attributes:
        repository: "owner/name".
        revision: commit, 40 hexadecimal digits.
        sha256: of the file, 64 hexadecimal digits.
    """

    repository: str
    revision: str
    sha256: str

    @property
    def address(self) -> str:
        """URL of the file, for a record or a browser."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{_FILE}"


def download(file: PublishedFile, key: str) -> Path:
    """Return the path of a published file in the cache, after downloading it if it is not there.

    Args:
        file: the file.
        key: config key that takes a path instead.

    Raises:
        GlpiError: no network, a refusal of the Hub, another SHA-256, or a cache that cannot be
            written.
    """
    by_hand = f"or download it elsewhere and give its path as {key}"
    with hub_errors(file.address, by_hand):
        path = Path(
            huggingface_hub.hf_hub_download(
                file.repository,
                _FILE,
                revision=file.revision,
                library_name="glpi_jax",
                library_version=__version__,
            )
        )
    found = sha256_of(path)
    if found != file.sha256:
        path.resolve().unlink(missing_ok=True)  # what the cache's link leads to
        path.unlink(missing_ok=True)
        raise GlpiError(
            f"{file.address}: the downloaded file has the SHA-256 {found}, where {file.sha256} is"
            f" published; it is removed: try again, without HF_ENDPOINT if it is set; {by_hand}"
        )
    return path
