#!/usr/bin/env python3
"""Run every command of the documents, or say why not.

    .venv/bin/python .ci/documented_commands.py             # all, in runs/ci/documents
    .venv/bin/python .ci/documented_commands.py --list      # how each is run
    .venv/bin/python .ci/documented_commands.py --match saqt  # those with this word, in the folder
                                                              # that a whole run has left

`HOW` in command_table.py has an entry for every command. A command without one, and an entry
without a command, is an error; tests/docs/test_documents.py says so too.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from command_table import DEMONSTRATION, HOW, SCORING, TRAINING, DryRun, How, NotRun, Run

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ROOT / "runs/ci/documents"


def pages() -> list[Path]:
    """The documents whose commands are collected."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "launch/README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]


@dataclass(frozen=True)
class Command:
    """A command of a document.

    Attributes:
        text: what a reader would type, without comments, continued lines in one.
        page: the document, relative to the checkout.
        settings: the lines before it on that page that set shell variables.
    """

    text: str
    page: str
    settings: tuple[str, ...] = ()


_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:glpi|make|python) [^`…]+)`")
_SETTING = re.compile(r"\w+=(\(.*\)|\S*)")
_NAME = re.compile(r"glpi( [a-z-]+){1,2}")  # of a command, and not one to be typed


def collect() -> list[Command]:
    """Every command in a block of Bash, and in code within text that has arguments.

    In text `glpi data prepare` names a command; `glpi data demo` in a block is one.
    """
    found = []
    for path in pages():
        content, page = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        settings: tuple[str, ...] = ()
        for match in _BLOCK.finditer(content):
            if match[1] != "bash":
                continue
            for line in match[2].replace("\\\n", " ").splitlines():
                text = " ".join(re.sub(r"(^|\s+)#.*", "", line).split())
                if _SETTING.fullmatch(text):
                    settings += (text,)
                elif text:
                    found.append(Command(text, page, settings))
        for inline in _INLINE.findall(_BLOCK.sub("", content)):
            text = " ".join(inline.split())
            if not _NAME.fullmatch(text):
                found.append(Command(text, page))
    return found


def entry_of(text: str) -> str | None:
    """The key of `HOW` that covers a command."""
    if text in HOW:
        return text
    prefixes = (key for key in HOW if key.endswith("…") and text.startswith(key[:-1].strip()))
    return next(prefixes, None)


def uncovered(commands: Sequence[Command]) -> list[str]:
    """What is wrong: commands without an entry, and entries without a command."""
    used = {entry_of(command.text) for command in commands}
    lacking = {c.text: c.page for c in commands if entry_of(c.text) is None}
    return [f"{page}: no entry in HOW for: {text}" for text, page in lacking.items()] + [
        f"no document has the command of this entry: {key}" for key in HOW if key not in used
    ]


def line_of(command: Command, how: Run | DryRun) -> str:
    """The shell line that is run for a command."""
    settings = "".join(f"{setting}; " for setting in command.settings)
    if isinstance(how, Run):
        return settings + (how.instead or command.text)
    # Options of sbatch come before the script, and so does sbatch.
    script = command.text[command.text.index("launch/") :]
    before, dashes, after = script.partition(" -- ")
    return f"{settings}{before} --dry-run{dashes}{after}"


def prepare(scratch: Path) -> None:
    """Make the folder that the commands find: links to the checkout, two photographs, a clip.

    What needs the demo's data is made by `prepare_from_demo`.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name in (".venv", "Makefile", "pyproject.toml", "requirements.txt", "configs", "launch"):
        (scratch / name).symlink_to(ROOT / name)
    photographs = next((ROOT / ".venv/lib").glob("python3*/site-packages/sklearn/datasets/images"))
    shutil.copy(photographs / "china.jpg", scratch / "photo.jpg")
    shutil.copy(photographs / "flower.jpg", scratch / "other.jpg")
    (scratch / "holiday").mkdir()
    for name in ("photo.jpg", "other.jpg"):
        shutil.copy(scratch / name, scratch / "holiday" / name)
    (scratch / "clips").mkdir()
    _write_clip(scratch / "clip.mp4", scratch / "photo.jpg")
    shutil.copy(scratch / "clip.mp4", scratch / "clips/pan.mp4")


def prepare_from_demo(scratch: Path) -> None:
    """Make miniatures of databases, and the tables of SAQT, from the short demo's tiles."""
    demo = scratch / "runs/demo-data-short"
    tiles = sorted((demo / "references").glob("*_4.png"))[:6]  # the smallest of each scene
    kadid, koniq, csiq = ["dist_img,ref_img,dmos,var"], ["image_name,MOS,MOS_zscore"], []
    own = ["image,score,reference"]
    for folder in ("FOLDER/images", "KONIQ/512x384", "CSIQ/dst_imgs_all", "OWN", "PHOTOGRAPHS"):
        (scratch / folder).mkdir(parents=True)
    for number, tile in enumerate(tiles, start=1):
        for level in range(1, 6):
            made = demo / f"images/{tile.stem}_01_{level}.png"
            score = 5 - 0.7 * level + 0.01 * number
            name = f"I{number:02d}_01_{level:02d}.png"
            shutil.copy(made, scratch / "FOLDER/images" / name)
            kadid.append(f"{name},I{number:02d}.png,{score:.2f},0.5")
            shutil.copy(made, scratch / "OWN" / name)
            own.append(f"{name},{score:.2f},{tile.stem}")
            shutil.copy(made, scratch / "KONIQ/512x384" / name)
            koniq.append(f"{name},{score:.2f},{20 * score:.1f}")
            name = f"tile{number}.BLUR.{level}.png"
            shutil.copy(made, scratch / "CSIQ/dst_imgs_all" / name)
            csiq.append(f"{name} {(5 - score) / 5:.3f}")
    _write(scratch / "OWN/labels.csv", own)
    _write(scratch / "FOLDER/dmos.csv", kadid)
    _write(scratch / "KONIQ/koniq10k_scores_and_distributions.csv", koniq)
    _write(scratch / "CSIQ/csiq_label.txt", csiq)

    matches, dmos = ["kadis,kadid-10k,sim_value"], ["dist_img,ref_img,dmos,var"]
    for number, tile in enumerate(tiles[:3], start=1):
        shutil.copy(tile, scratch / "PHOTOGRAPHS")
        matches.append(f"{tile.name},I{number:02d}.png,0.{90 - number}")
        dmos += [
            f"I{number:02d}_{kind:02d}_{level:02d}.png,I{number:02d}.png,{5 - 0.7 * level:.2f},0.5"
            for kind in range(1, 26)
            for level in range(1, 6)
        ]
    _write(scratch / "similarity.csv", matches)
    (scratch / "KADID10K").mkdir()
    _write(scratch / "KADID10K/dmos.csv", dmos)


def _write_clip(path: Path, photograph: Path) -> None:
    """Three seconds of a window that moves over a photograph."""
    import av
    import numpy as np

    with av.open(photograph) as still:
        image = next(still.decode(video=0)).to_ndarray(format="rgb24")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for left in range(30):
            window = np.ascontiguousarray(image[:240, left : left + 320], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        container.mux(stream.encode())


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(line: str, scratch: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a shell line; its status as a shell tells it, and all that it printed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    killed = done.returncode < 0  # by the signal of this number
    return 128 - done.returncode if killed else done.returncode, done.stdout


def run_all(commands: Sequence[Command], scratch: Path, match: str) -> int:
    """Run what `HOW` says, in its order; 0, or the status of the first that fails."""
    # Another run of make would install from the scratch folder if anything were out of date.
    subprocess.run(
        ["make", "--quiet", ".venv/.test-installed", ".venv/.demo-installed"], cwd=ROOT, check=True
    )
    if not match:
        prepare(scratch)
    environment = os.environ | {
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "compilations"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Compiling takes most of such short runs.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0",
        "MPLBACKEND": "Agg",
    }
    begin = time.monotonic()
    failed = threading.Event()

    def run_part(part: Mapping[str, How]) -> int:
        for key, how in part.items():
            todo = {c.text: c for c in commands if entry_of(c.text) == key and match in c.text}
            for command in todo.values():
                if failed.is_set():
                    return 0
                status = _run_one(command, how, scratch, environment)
                if status:
                    failed.set()
                    return status
        return 0

    status = run_part(DEMONSTRATION)
    if not status and not match:
        prepare_from_demo(scratch)
    if not status:
        with ThreadPoolExecutor(2) as pool:
            status = max(pool.map(run_part, (SCORING, TRAINING)))
    if not status:
        used = os.times()
        print(
            f"all done in {time.monotonic() - begin:.0f} s, with"
            f" {used.children_user + used.children_system:.0f} s of CPU"
        )
    return status


def _run_one(command: Command, how: How, scratch: Path, environment: Mapping[str, str]) -> int:
    """Run a command and say so; its status, or 1 if it left not what it should."""
    if isinstance(how, NotRun):
        print(f"    not run  {command.text}\n             ({how.why})", flush=True)
        return 0
    line = line_of(command, how)
    started = time.monotonic()
    status, output = run(line, scratch, environment)
    said = f"{time.monotonic() - started:9.1f} s  {command.text}"
    if isinstance(how, Run) and how.short:
        said += f"\n             ({how.short})"
    problem = _problem(how, status, scratch)
    if problem:
        said += f"\n\n{output}\n{command.page}: {command.text}\nrun as: {line}\n{problem}"
    print(said, flush=True)
    return (status or 1) if problem else 0


def _problem(how: Run | DryRun, status: int, scratch: Path) -> str:
    expected = how if isinstance(how, Run) else Run()
    if status != expected.status:
        return f"exit status {status}, not {expected.status}"
    for name in expected.leaves:
        path = scratch / name
        if not path.is_file() or not path.stat().st_size:
            return f"left no file {name}, or an empty one"
    return ""


def main() -> int:
    """Check the table, then run it."""
    parser = argparse.ArgumentParser(description="Run every command of the documents.")
    parser.add_argument("--list", action="store_true", help="print how each is run; run nothing")
    parser.add_argument("--match", default="", metavar="WORD", help="only commands with this in it")
    args = parser.parse_args()
    commands = collect()
    problems = uncovered(commands)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 2
    if args.list:
        for key, how in HOW.items():
            print(f"{key}\n    {how}")
        return 0
    return run_all(commands, SCRATCH, args.match)


if __name__ == "__main__":
    sys.exit(main())
