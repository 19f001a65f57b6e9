"""What the tests themselves stand on."""

import os
import socket
import zlib

import compilations
import pytest
from stand_in import QuietHandler, StandIn


@pytest.fixture
def folders(tmp_path):
    """A session's folder with programs of 1,000 bytes, and the kept one."""
    session, kept = tmp_path / "session", tmp_path / "root/key"
    session.mkdir()
    for age, name in enumerate(("c", "b", "a")):
        file = session / f"{name}-cache"
        file.write_bytes(zlib.compress(os.urandom(989)))
        os.utime(file, (100 - age, 100 - age))
    return session, kept


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_kept_programs_come_back_without_cut_ones(folders, tmp_path):
    session, kept = folders
    content = (session / "b-cache").read_bytes()
    (session / "b-cache").write_bytes(content[:-5])  # its process was killed
    compilations.keep(session, kept)
    assert names(kept) == ["a-cache", "c-cache"]
    compilations.take(kept, tmp_path / "next")
    assert names(tmp_path / "next") == ["a-cache", "c-cache"]
    assert (tmp_path / "next/a-cache").read_bytes() == (session / "a-cache").read_bytes()


def test_the_oldest_programs_beyond_the_limit_go(folders, monkeypatch):
    session, kept = folders
    monkeypatch.setattr(compilations, "LARGEST_BYTES", 2500)
    compilations.keep(session, kept)
    assert names(kept) == ["b-cache", "c-cache"]


def test_another_cpu_or_other_flags_have_programs_of_their_own(monkeypatch):
    folders = {compilations.kept_folder()}
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
        folders.add(compilations.kept_folder())
    with monkeypatch.context() as patch:
        patch.setattr(compilations, "cpu_fingerprint", lambda: "another")
        folders.add(compilations.kept_folder())
    assert len(folders) == 3
    monkeypatch.setenv(compilations.VARIABLE, "")
    assert compilations.kept_folder() is None


class Broken(QuietHandler):
    def do_GET(self):
        raise self.server.error


@pytest.mark.parametrize(("error", "fails"), [(BrokenPipeError(), False), (KeyError("x"), True)])
def test_a_stand_in_fails_the_test_unless_the_client_hung_up(error, fails, monkeypatch, capfd):
    raised = []
    monkeypatch.setattr("threading.excepthook", lambda found: raised.append(found.exc_value))
    with StandIn(Broken) as server:
        server.daemon_threads = False  # closing waits for them
        server.error = error
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            server.handle_request()
    assert raised == ([error] if fails else [])
    assert capfd.readouterr() == ("", "")
