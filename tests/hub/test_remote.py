"""Models on the Hugging Face Hub: reading and publishing against a server on this machine."""

import base64
import functools
import hashlib
import json
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from stand_in import QuietHandler, StandIn

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.hub import read_folder, remote, save_folder
from glpi_jax.hub.remote import Address, parse_address
from glpi_jax.scoring import load

TOKEN = "hf_of_the_tests"


class Hub(StandIn):
    """As much of the Hub's interface as huggingface_hub uses for models.

    Attributes:
        repositories: by "owner/name", the content of each file by name.
        refuse: HTTP status of every answer, if not None.
    """

    def __init__(self):
        super().__init__(_Request)
        self.repositories = {}
        self.refuse = None


class _Request(QuietHandler):
    protocol_version = "HTTP/1.1"
    COMMIT = "a" * 40

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def files_of(self, owner, name):
        return self.server.repositories.get(f"{owner}/{name}")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        match urlsplit(self.path).path.strip("/").split("/"):
            case _ if self.server.refuse is not None:
                self.answer(self.server.refuse)
            case ["api", "models", owner, name, *_] if self.files_of(owner, name) is None:
                self.answer(404, X_Error_Code="RepoNotFound")
            case ["api", "models", _, _, ("revision" | "tree"), revision] if revision not in (
                "main",
                self.COMMIT,
            ):
                self.answer(404, X_Error_Code="RevisionNotFound")
            case ["api", "models", owner, name, "tree", _]:
                files = self.files_of(owner, name)
                self.answer(
                    200,
                    [
                        {"type": "file", "path": path, "size": len(content), "oid": digest(content)}
                        for path, content in files.items()
                    ],
                )
            case ["api", "models", owner, name, *_]:
                siblings = [{"rfilename": path} for path in self.files_of(owner, name)]
                facts = {"id": f"{owner}/{name}", "sha": self.COMMIT, "siblings": siblings}
                self.answer(200, facts)
            case [owner, name, "resolve", _, path]:
                content = self.files_of(owner, name)[path]
                etag = f'"{digest(content)}"'
                self.answer(200, content, ETag=etag, X_Repo_Commit=self.COMMIT)
            case _:
                self.answer(500, {"error": f"the fake does not know GET {self.path}"})

    def do_POST(self):
        body = self.read_body()
        match urlsplit(self.path).path.strip("/").split("/"):
            case _ if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self.answer(401, {"error": "Invalid username or password."})
            case _ if self.server.refuse is not None:
                self.answer(self.server.refuse)
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                repository = f"{asked['organization']}/{asked['name']}"
                self.server.repositories.setdefault(repository, {})
                self.answer(200, {"url": f"{self.server.address}/{repository}"})
            case ["api", "validate-yaml"]:
                self.answer(200, {"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", "main"]:
                files = json.loads(body)["files"]
                modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
                self.answer(200, {"files": [m | {"shouldIgnore": False} for m in modes]})
            case ["api", "models", owner, name, "commit", "main"]:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        self.files_of(owner, name)[line["value"]["path"]] = content
                url = f"{self.server.address}/{owner}/{name}/commit/{self.COMMIT}"
                self.answer(200, {"success": True, "commitOid": self.COMMIT, "commitUrl": url})
            case _:
                self.answer(500, {"error": f"the fake does not know POST {self.path}"})

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server, and a huggingface_hub that knows no other, nor a token or cache of the user's."""
    server = Hub()
    serve = functools.partial(server.serve_forever, poll_interval=0.01)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    huggingface_hub.close_session()
    server.shutdown()
    thread.join()
    server.server_close()


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


def test_reading_needs_the_library(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["score", "hf://me/model", "a.png"]) == 2
    assert only_error(capsys) == (
        "glpi: error: hf://me/model: needs huggingface_hub: pip install 'glpi_jax[hub]'"
    )


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
