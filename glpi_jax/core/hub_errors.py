"""Errors of the Hugging Face Hub, each as one line with its remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from glpi_jax.core.errors import GlpiError

# Meaning and remedy of a refusal, by HTTP status.
_REFUSALS = {
    401: ("not authorised", "check the repository's name, and set HF_TOKEN if it is private"),
    403: ("forbidden", "HF_TOKEN must be a token with access, to upload one that may write"),
    404: ("no such repository, or it is private", "check its name, or set HF_TOKEN"),
}


@contextmanager
def hub_errors(source: str, remedy: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into a GlpiError.

    Args:
        source: address or file, the beginning of the message.
        remedy: another way to get it, the end of the message.

    Raises:
        GlpiError: any error of huggingface_hub, its HTTP library or the file system.
    """
    try:
        yield
    except Exception as error:
        end = f"; {remedy}" if remedy else ""
        raise GlpiError(f"{source}: {_reason(error)}{end}") from error


def _reason(error: Exception) -> str:
    """What went wrong and what to do, in a line; the Hub itself answers at length."""
    from huggingface_hub import constants, errors

    cause: BaseException = error
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        cause = error.__cause__  # why a file that is not in the cache does not come either
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "the Hub is needed, but HF_HUB_OFFLINE is set: unset it where there is a network"
    if isinstance(cause, errors.GatedRepoError):
        return "the repository is gated: accept its terms on its page, and set HF_TOKEN"
    if isinstance(cause, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(cause, errors.RemoteEntryNotFoundError):
        return "the repository has no such file"
    if isinstance(cause, errors.HfHubHTTPError):
        status = cause.response.status_code
        meaning, remedy = _REFUSALS.get(
            status, ("the Hub cannot serve it now", "try again in some minutes")
        )
        return f"{meaning} (HTTP {status}): {remedy}"
    if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ConnectionError):
        return (
            f"the cache {constants.HF_HUB_CACHE} cannot be written ({cause.strerror}): set HF_HOME"
            " to another folder"
        )
    words = "".join(str(cause).strip().splitlines()[:1])
    return (
        f"the Hub cannot be reached at {constants.ENDPOINT} ({type(cause).__name__}: {words}):"
        " check the network, and HF_ENDPOINT if it is set"
    )
