"""A stand-in for the Hugging Face Hub on this machine."""

import base64
import hashlib
import json
import threading
from urllib.parse import urlsplit

from stand_in import QuietHandler, StandIn

TOKEN = "hf_of_the_tests"
COMMIT = "a" * 40  # the only one of each repository


class Hub(StandIn):
    """As much of the Hub's interface as huggingface_hub uses for models.

    Attributes:
        repositories: by "owner/name", the content of each file by name.
        refuse: HTTP status of every answer, if not None.
        error_code: the Hub's name for that refusal, or "".
        cut: number of bytes after which the content of a file breaks off, if not None.
        parties: number of HEAD requests that the content of a file waits for.
        requests: method and path of each request for a file.
    """

    def __init__(self):
        super().__init__(_Request)
        self.repositories = {}
        self.refuse, self.error_code, self.cut, self.parties = None, "", None, 0
        self.requests = []
        self.heads = threading.Semaphore(0)


class _Request(QuietHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET" and "/resolve/" in self.path and self.server.cut is not None:
            body = body[: self.server.cut]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(body)

    def files_of(self, owner, name):
        return self.server.repositories.get(f"{owner}/{name}")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if "/resolve/" in self.path:
            self.server.requests.append((self.command, self.path))
        match urlsplit(self.path).path.strip("/").split("/"):
            case _ if self.server.refuse is not None:
                self.answer(self.server.refuse, X_Error_Code=self.server.error_code)
            case ["api", "models", owner, name, *_] if self.files_of(owner, name) is None:
                self.answer(404, X_Error_Code="RepoNotFound")
            case ["api", "models", _, _, ("revision" | "tree"), revision] if revision not in (
                "main",
                COMMIT,
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
                facts = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings}
                self.answer(200, facts)
            case [owner, name, "resolve", *_] if self.files_of(owner, name) is None:
                self.answer(404, X_Error_Code="RepoNotFound")
            case [_, _, "resolve", revision, _] if revision not in ("main", COMMIT):
                self.answer(404, X_Error_Code="RevisionNotFound")
            case [owner, name, "resolve", _, path] if path not in self.files_of(owner, name):
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            case [owner, name, "resolve", _, path]:
                content = self.files_of(owner, name)[path]
                if self.command == "HEAD":
                    self.server.heads.release()
                for _ in range(self.server.parties if self.command == "GET" else 0):
                    self.server.heads.acquire(timeout=60)
                etag = f'"{digest(content)}"'
                self.answer(200, content, ETag=etag, X_Repo_Commit=COMMIT)
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
                url = f"{self.server.address}/{owner}/{name}/commit/{COMMIT}"
                self.answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": url})
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
