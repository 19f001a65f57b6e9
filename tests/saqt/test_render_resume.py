"""Rendering that was killed, or met a full disk or another run: it ends with the same bytes."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rendering import content, render

from glpi_jax.core import files
from glpi_jax.core.errors import GlpiError
from glpi_jax.saqt.rendered import Record, append_record, read_records


def command(root: Path, out: Path) -> list[str]:
    options = ["--types", "1", "11", "--levels", "1", "4", "--seed", "7", "--processes", "2"]
    return [sys.executable, "-m", "glpi_jax", "saqt", "render", str(root), str(out), *options]


def wait_until(reached: Callable[[], bool]) -> None:
    for _ in range(6000):  # a minute
        if reached():
            return
        time.sleep(0.01)
    raise AssertionError("not reached in a minute")


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_killed_again_and_again_by_two_processes_it_ends_with_the_same_bytes(
    root: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def images() -> int:
        return len(list(out.glob("001/*.png")))

    def kill(how: Callable[[int], object], after: int) -> tuple[int, str]:
        before = images()
        with subprocess.Popen(
            command(root, out), stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            wait_until(lambda: process.poll() is not None or images() >= before + after)
            with suppress(ProcessLookupError):  # it was quicker, and is at its end
                how(process.pid)
            error = process.communicate()[1]
        wait_until(lambda: is_gone(process.pid))  # no worker outlives its parent
        return process.returncode, error

    rng = np.random.default_rng()
    after = int(rng.integers(0, 4))
    code, _ = kill(lambda pid: os.killpg(pid, signal.SIGKILL), after)
    assert code == -signal.SIGKILL
    code, error = kill(lambda pid: os.killpg(pid, signal.SIGINT), 1)
    if code != 0:  # it may have been quicker
        assert code == 130
        assert "Traceback" not in error
        assert error.splitlines()[-1].endswith("the same command resumes where it stopped")
    kill(lambda pid: os.kill(pid, signal.SIGKILL), 1)
    render(root, out, processes=2)
    assert content(out) == content(undisturbed), f"killed after {after} images"


class Killed(BaseException):
    """Ends a run as a kill would: nothing cleans up after it."""


@pytest.mark.parametrize("arrayrecord", [False, True])
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_every_rename_it_loses_nothing(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    three_folders: None,
    arrayrecord: bool,
    before: bool,
) -> None:
    """A kill just before or after each file gets its name, one more each time."""
    changes = {"types": (1,), "levels": (1,), "arrayrecord": arrayrecord}
    whole = tmp_path / "whole"
    render(root, whole, **changes)
    original = os.replace
    for kills in range(100):
        out = tmp_path / str(kills)
        left = kills

        def rename(source: Any, target: Any) -> None:
            nonlocal left
            if before and left == 0:
                left = -1
                raise Killed
            original(source, target)
            if left == 0:
                left = -1
                raise Killed
            left -= 1

        monkeypatch.setattr(os, "replace", rename)
        try:
            render(root, out, **changes)
        except Killed:
            killed = True
        else:
            killed = False
        monkeypatch.setattr(os, "replace", original)
        render(root, out, **changes)
        assert content(out) == content(whole)
        if not killed:
            break
    # The manifest, five images, the records of three folders, and the folders' own files.
    assert kills == 1 + 5 + 3 + (3 if arrayrecord else 0)


def test_only_what_is_missing_is_rendered(
    root: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a line that was cut short, and with files that are gone or too short."""
    out = tmp_path / "out"
    render(root, out)
    lines = (out / "manifest/001.jsonl").read_text()
    (out / "manifest/001.jsonl").write_text(lines[:-20])  # of fir
    (out / "001/ash_01_04.png").unlink()
    (out / "001/cedar_11_01.png").write_bytes(b"")
    (out / "001/.elm_01_01.png.123.tmp").write_bytes(b"half")
    rendered = []
    original = files.write_bytes

    def write_bytes(path: Path, image: bytes) -> None:
        rendered.append(path.name.partition("_")[0])
        original(path, image)

    monkeypatch.setattr("glpi_jax.saqt.render_photograph.write_bytes", write_bytes)
    assert render(root, out).images == 20
    assert sorted(set(rendered)) == ["ash", "cedar", "fir"]
    assert content(out) == content(undisturbed)
    rendered.clear()
    (out / "001/.#notes").symlink_to("nowhere")
    render(root, out)
    assert rendered == []


def test_what_is_packed_is_not_rendered_again_unless_it_is_damaged(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    render(root, out, arrayrecord=True)
    before = content(out)
    with monkeypatch.context() as patch:
        patch.setattr("glpi_jax.saqt.render_photograph.write_bytes", None)
        assert render(root, out, arrayrecord=True).images == 20
    assert content(out) == before
    (out / "001.array_record").write_bytes(before["001.array_record"][:-1])
    render(root, out, arrayrecord=True)
    assert content(out) == before


def test_full_disk_leaves_nothing_half_written(
    root: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The kernel refuses files beyond a limit, in the rendering processes too."""
    out = tmp_path / "out"
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *command(root, out)[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert "cannot be written (File too large); make room, and the same command resumes" in line
    sizes = {path.name: path.stat().st_size for path in undisturbed.glob("001/*")}
    for name, image in content(out / "001").items():
        assert len(image) == sizes[name]  # no part of a file, and no temporary one
    assert len(content(out / "001")) < len(sizes)
    render(root, out)
    assert content(out) == content(undisturbed)


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "001.jsonl"
    first = Record("001/a", "a.png", 1, "f", 6, 5, {"01_01": (3, "g")})
    append_record(path, first)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(GlpiError, match=r"001\.jsonl: cannot be written"):
            append_record(path, replace(first, prefix="001/b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    append_record(path, replace(first, prefix="001/b"))
    assert [*read_records(path).records] == ["001/a", "001/b"]


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[None]:
    """It has folder 001 of `tmp_path / "out"`."""
    (tmp_path / "out").mkdir()
    code = (
        "import sys; from pathlib import Path; from glpi_jax.saqt.rendered import Locks\n"
        "Locks(Path(sys.argv[1])).folder('001'); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.communicate()


def test_two_runs_do_not_write_one_folder(root: Path, tmp_path: Path, other_process: None) -> None:
    with pytest.raises(GlpiError, match="another process is rendering folder 001"):
        render(root, tmp_path / "out")
    assert not (tmp_path / "out/001").exists()
