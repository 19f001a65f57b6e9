"""Models on the Hugging Face Hub: reading and publishing against a server on this machine."""

import json
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
from hub_server import TOKEN
from huggingface_hub import constants
from PIL import Image

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.hub import read_folder, remote, save_folder
from glpi_jax.hub.remote import Address, parse_address
from glpi_jax.scoring import load


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "model"
    save_folder(trained.workdir, folder)
    return folder


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only_error(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "glpi: error: " in line]
    return line


# Reading


def test_addresses():
    assert parse_address("hf://me/my.model-1") == Address("me/my.model-1", None)
    assert parse_address("hf://me/model@refs/pr/1") == Address("me/model", "refs/pr/1")
    for wrong in ("hf://", "hf://me", "hf://me/", "hf://me/a/b", "hf://me/model@", "hf://me/a b"):
        with pytest.raises(GlpiError, match="not of the form hf://owner/name"):
            parse_address(wrong)


def test_a_model_is_fetched_and_then_found_in_the_cache(hub, published, tmp_path, capsys):
    hub.repositories["me/model"] = content_of(published) | {"large.bin": b"not asked for"}
    folder = remote.download("hf://me/model@main")
    assert content_of(folder) == content_of(published)
    hub.refuse = 503
    pixels = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert main(["score", "--json", "hf://me/model", str(tmp_path / "a.png")]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    (expected,) = load(published).score([tmp_path / "a.png"])
    assert (result["score"], result["crop_std"]) == (expected.score, expected.crop_std)


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("hf://me/nothing", None, "no such repository, or it is private (HTTP 404)"),
        ("hf://me/model@v9", None, "the repository has no such revision"),
        ("hf://me/model", 401, "not authorised"),
        ("hf://me/model", 403, "forbidden"),
        ("hf://me/model", None, "config.json: cannot be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, tmp_path, capsys, address, status, words):
    hub.repositories["me/model"] = {"README.md": b"no model"}
    hub.refuse = status
    assert main(["score", address, str(tmp_path)]) == 2
    assert words in only_error(capsys)


def test_the_environment_says_where_the_hub_is(hub, published, tmp_path, shared_compilations):
    """In a process of its own, as huggingface_hub reads HF_ENDPOINT when it is imported."""
    hub.repositories["me/model"] = content_of(published)
    subprocess.run(
        [sys.executable, "-m", "glpi_jax", "push", "hf://me/model", tmp_path / "model"],
        env=shared_compilations | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")},
        check=True,
    )
    assert content_of(tmp_path / "model") == content_of(published)


def test_without_the_hub_there_is_the_cache_alone(hub, monkeypatch, capsys):
    def score():
        assert main(["score", "hf://me/model", "a.png"]) == 2
        return only_error(capsys)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the Hub is needed, but HF_HUB_OFFLINE is set" in score()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port "discard"
    assert "the Hub cannot be reached" in score()


# Publishing


def test_a_pushed_model_is_the_saved_one(hub, trained, published, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert main(["push", str(trained.workdir), "hf://me/model"]) == 0
    assert f"glpi: pushed: {hub.address}/me/model/commit/" in capsys.readouterr().err
    pushed, saved = hub.repositories["me/model"], content_of(published)
    assert pushed.keys() == saved.keys()
    for name in ("config.json", "model.safetensors"):
        assert pushed[name] == saved[name]
    assert pushed["README.md"] == saved["README.md"].replace(b"OWNER/NAME", b"me/model")


def test_a_push_that_cannot_be_is_one_line(hub, published, monkeypatch, capsys):
    def push(address="hf://me/model", *options):
        assert main(["push", str(published), address, *options]) == 2
        return only_error(capsys)

    assert "no token to write with: set HF_TOKEN" in push()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "not authorised" in push()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for status, words in ((403, "forbidden"), (404, "no such repository"), (418, "HTTP 418")):
        hub.refuse = status
        assert words in push()
    assert "leave out the revision" in push("hf://me/model@v1")
    assert "--force is for a folder" in push("hf://me/model", "--force")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # an open one stays online
    assert "HF_HUB_OFFLINE is set" in push()
    assert hub.repositories == {}


def test_a_push_to_a_folder_writes_the_form(trained, published, tmp_path, capsys):
    folder = str(tmp_path / "model")
    assert main(["push", str(trained.workdir), folder]) == 0
    assert content_of(tmp_path / "model") == content_of(published)
    assert main(["push", str(trained.workdir), folder]) == 2
    assert "--force replaces it" in only_error(capsys)
    options = ["--force", "--license", "mit", "--title", "Mine", "--score-range", "0", "5"]
    assert main(["push", str(trained.workdir), folder, *options]) == 0
    assert read_folder(tmp_path / "model").score_range == (0, 5)
    text = (tmp_path / "model/README.md").read_text()
    assert 'license: "mit"' in text
    assert "# Mine" in text
    assert main(["push", str(trained.workdir), folder, "--private"]) == 2
    assert "--private is for hf://" in only_error(capsys)
    assert main(["push", str(trained.workdir), folder, "--force", "--score-range", "5", "0"]) == 2
    assert "score range 5 to 0" in only_error(capsys)
