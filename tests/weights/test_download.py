"""Published weights, from a stand-in for the Hub on this machine."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT
from huggingface_hub import constants

from glpi_jax.core.errors import GlpiError
from glpi_jax.weights.download import PublishedFile, download

CONTENT = bytes(range(256)) * 9000
FILE = PublishedFile("timm/vit", COMMIT, hashlib.sha256(CONTENT).hexdigest())
KEY = "config.model.pretrained.vit"
ADDRESS = f"https://huggingface.co/timm/vit/resolve/{COMMIT}/model.safetensors"
BY_HAND = f"; or download it elsewhere and give its path as {KEY}"


@pytest.fixture(autouse=True)
def _published(hub):
    hub.repositories["timm/vit"] = {"model.safetensors": CONTENT}


def error_of(file=FILE):
    with pytest.raises(GlpiError) as caught:
        download(file, KEY)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{ADDRESS}: ") or file is not FILE
    assert line.endswith(BY_HAND)
    return line


def cached():
    """Files of the cache that hold content."""
    files = (path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_size > 1000]


def test_a_cached_file_is_not_asked_for_again(hub, monkeypatch):
    path = download(FILE, KEY)
    assert path.read_bytes() == CONTENT
    assert [command for command, _ in hub.requests] == ["HEAD", "GET"]
    assert {name for _, name in hub.requests} == {f"/timm/vit/resolve/{COMMIT}/model.safetensors"}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(FILE, KEY) == path
    assert len(hub.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "", "not authorised (HTTP 401): check the repository's name, and set HF_TOKEN if"),
        (403, "GatedRepo", "the repository is gated: accept its terms on its page, and set HF_T"),
        (403, "", "forbidden (HTTP 403): HF_TOKEN must be"),
        (404, "RepoNotFound", "no such repository, or it is private (HTTP 404): check its name"),
        (404, "RevisionNotFound", "the repository has no such revision"),
        (418, "", "the Hub cannot serve it now (HTTP 418): try again in some minutes"),
    ],
)
def test_a_refusal_is_one_line_with_a_remedy(hub, status, code, reason):
    hub.refuse, hub.error_code = status, code
    assert f"{ADDRESS}: {reason}" in error_of()
    assert cached() == []


def test_what_is_missing_on_the_hub_is_named(hub):
    hub.repositories["timm/vit"] = {"pytorch_model.bin": CONTENT}
    assert f"{ADDRESS}: the repository has no such file;" in error_of()
    other = FILE._replace(revision="b" * 40)
    assert f"{other.address}: the repository has no such revision;" in error_of(other)


def test_offline_asks_nobody(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the Hub is needed, but HF_HUB_OFFLINE is set: unset it where there is" in error_of()
    assert hub.requests == []


@pytest.fixture
def waits(monkeypatch):
    """Pauses that the library would have made, in seconds."""
    seconds = []
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", seconds.append)
    return seconds


def test_no_network_is_one_line_with_a_remedy(monkeypatch, waits):
    nowhere = "http://127.0.0.1:9"  # the port "discard"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{nowhere}/{{{template}")
    line = error_of()
    assert f"{ADDRESS}: the Hub cannot be reached at {nowhere} (ConnectError: " in line
    assert ": check the network, and HF_ENDPOINT if it is set;" in line


def test_a_broken_download_leaves_nothing(hub, waits):
    hub.cut = 1_000_000
    assert f"the Hub cannot be reached at {hub.address} (" in error_of()
    assert len(waits) > 1  # tried again
    assert cached() == []
    hub.cut = None
    assert download(FILE, KEY).read_bytes() == CONTENT


def test_another_sha256_is_refused_and_removed(hub):
    hub.repositories["timm/vit"] = {"model.safetensors": CONTENT[:-1] + b"?"}
    found = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    line = error_of()
    assert f"{ADDRESS}: the downloaded file has the SHA-256 {found}, where {FILE.sha256} is" in line
    assert cached() == []


def test_a_damaged_file_of_the_cache_is_downloaded_again():
    path = download(FILE, KEY)
    path.resolve().write_bytes(CONTENT[:5000])
    assert "it is removed: try again" in error_of()
    assert download(FILE, KEY).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_named():
    cache = Path(constants.HF_HUB_CACHE)
    cache.write_text("in the way")
    reason = f"the cache {cache} cannot be written (Not a directory): set HF_HOME to another folder"
    assert reason in error_of()


def test_of_two_processes_one_downloads(hub, tmp_path, shared_compilations):
    """In processes of their own, which read HF_ENDPOINT and HF_HOME as they start."""
    hub.parties = 2  # the content waits until both have asked for the file
    code = (
        "from glpi_jax.weights.download import PublishedFile, download\n"
        f"print(download(PublishedFile{tuple(FILE)}, '{KEY}'))"
    )
    environment = shared_compilations | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
    }
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    first, second = (process.communicate(timeout=300)[0] for process in started)
    assert first == second
    path = Path(first.decode().strip())
    assert path.is_relative_to(tmp_path / "home/hub")
    assert path.read_bytes() == CONTENT
    assert sorted(command for command, _ in hub.requests) == ["GET", "HEAD", "HEAD"]
