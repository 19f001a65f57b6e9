#!/usr/bin/env python3
"""Run every command of the documents, or say why not.

    .venv/bin/python .ci/documented_commands.py             # all, in runs/ci/documents
    .venv/bin/python .ci/documented_commands.py --list      # how each is run
    .venv/bin/python .ci/documented_commands.py --match saqt  # those with this word, in the folder
                                                              # that a whole run has left

`HOW` has an entry for every command. A command without one, and an entry without a command, is an
error; tests/test_documents.py says so too.
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


@dataclass(frozen=True)
class Run:
    """Run a command in the scratch folder.

    Attributes:
        instead: another command line; "" runs what the document says.
        short: how that differs, and why.
        leaves: files that must be there afterwards, and not be empty.
        status: the exit status that it must have.
    """

    instead: str = ""
    short: str = ""
    leaves: tuple[str, ...] = ()
    status: int = 0


@dataclass(frozen=True)
class DryRun:
    """Run a script of launch/ with --dry-run: it prints what it would do."""


@dataclass(frozen=True)
class NotRun:
    """Do not run a command.

    Attributes:
        why: the reason, with what checks it in its place.
    """

    why: str


How = Run | DryRun | NotRun

SHORT = "configs/demo.py:short"
FEW = (
    "--config.data.root=OWN --config.train.epochs=1 --config.evaluation.every_epochs=1"
    " --config.evaluation.crops=1 --config.evaluation.bootstrap_resamples=50"
)
MINE = (
    f"glpi train --config {SHORT} --workdir runs/mine --config.optimizer.learning_rate=5e-4 {FEW}"
)
# The official recipe on a model and data small enough for a CPU.
TINY = (
    "--config.model.name=glpi_demo --config.train.epochs=1 --config.train.batch_size=16"
    " --config.evaluation.crops=1 --config.evaluation.bootstrap_resamples=50"
)
KADID = "configs/synthetic.py:kadid10k"
_SMALL = "the small model, one epoch, a miniature of the database"
_STEP = "a step of .ci/run"
_DOWNLOAD = "downloads published weights; tests/porting has files of their form"
_MINUTES = "measures for minutes; run by hand when its figures are to be taken"
_INSTALLS = "installs from a package index; CI installs the checkout by make"
_OFFICIAL = "needs an official checkpoint of the full size; the tests of make test-torch make one"

# A key that ends in … covers every command that begins so.

# First of all: the demonstration, which leaves runs/demo.
DEMONSTRATION: dict[str, How] = {
    "make demo DEMO_FLAGS=--short": Run(
        leaves=("runs/demo/results.json", "runs/demo/report.html", "runs/demo/metrics.csv")
    ),
}

# Then these and those of TRAINING side by side, each in this order: later ones use what earlier
# ones leave.
SCORING: dict[str, How] = {
    "make demo": NotRun("20 minutes; its short form is run"),
    "make lint": NotRun(_STEP),
    "make test": NotRun(_STEP),
    'make test PYTEST_FLAGS="-k golden"': NotRun(_STEP),
    "make test-torch": NotRun(_STEP),
    "make test-slow": NotRun("whole benchmarks, for minutes; GitHub's workflow runs it"),
    "make test-stress": NotRun("kills runs at random moments, for minutes; run by hand"),
    "make docs": NotRun(_STEP),
    "make notebooks": NotRun(_STEP),
    "make notebooks-sync": NotRun("tests/colab compares the notebooks with their texts"),
    "make screenshots": NotRun("needs Chromium; its pictures are part of the checkout"),
    # Installation.
    "python -m venv .venv": NotRun("launch/make_venv.sh does it, for every make target"),
    ".venv/bin/pip install -e '.[serve,torch]'": NotRun(_INSTALLS),
    "source .venv/bin/activate": NotRun("its bin/ is on the PATH of all these commands"),
    "pip install 'glpi_jax[serve]'": NotRun(_INSTALLS),
    "pip install 'jax[cuda12]'": NotRun(_INSTALLS),
    "pip install 'jax[tpu]'": NotRun(_INSTALLS),
    'python -c "import jax; print(jax.devices())"': Run(),
    "glpi --version": Run(),
    # Scores.
    "glpi score photo.jpg holiday/": Run(),
    "glpi score runs/demo photo.jpg --json": Run(),
    "glpi score --model runs/demo holiday/ --csv scores.csv": Run(leaves=("scores.csv",)),
    "glpi score --model runs/demo holiday/ --csv scores.csv --resume": Run(leaves=("scores.csv",)),
    "glpi score 'holiday/*.jpg'": Run(),
    "glpi score clip.mp4 photo.jpg": Run(
        "glpi score clip.mp4 photo.jpg --jsonl - | tee frames.txt | grep -F 'clip.mp4#1.000'"
        " && test $(wc -l < frames.txt) = 4",
        "and counted: three frames of a clip, and the photograph",
    ),
    "glpi score 'clips/*' --every-seconds 0.5 --csv frames.csv --resume": Run(
        leaves=("frames.csv",)
    ),
    "glpi score clip.mp4 --every-seconds 0.5": Run(),
    "find holiday -name '*.jpg' -print0 | glpi score - --null --crops 9": Run(),
    "glpi score holiday/ --jsonl -": Run(
        "glpi score holiday/ --jsonl - --paper-crops", "also the paper's crops"
    ),
    "glpi rank holiday/ --out sheet.png": Run(leaves=("sheet.png",)),
    "glpi compare photo.jpg other.jpg": Run(),
    "glpi map photo.jpg --out map.png": Run(leaves=("map.png",)),
    "glpi serve": Run(
        "glpi serve --port 0 2> serve.log & server=$!;"
        " until grep -q http serve.log; do kill -0 $server || exit 1; sleep 0.2; done;"
        " curl --silent --fail \"$(grep -o 'http[^ ]*' serve.log)health\";"
        " curl --silent --fail --data-binary @photo.jpg --header 'Content-Type: image/jpeg'"
        " \"$(grep -o 'http[^ ]*' serve.log)api/score\"; kill $server; wait $server || true",
        "on a free port, asked for a score, and ended",
    ),
    # Checkpoints and models.
    "glpi port from-torch official.pth runs/official": NotRun(_OFFICIAL),
    "glpi port to-torch runs/official back.pth": Run(
        "glpi port to-torch runs/demo back.safetensors",
        "of the demo's model, into a file that needs no PyTorch",
        leaves=("back.safetensors",),
    ),
    "glpi port verify official.pth runs/official --torch-repo GlintIQA --images photo.jpg": Run(
        "glpi port verify back.safetensors runs/demo", "without the authors' code: by name"
    ),
    "glpi push runs/demo runs/demo-published": Run(leaves=("runs/demo-published/config.json",)),
    "glpi push runs/demo hf://owner/name --license mit": NotRun(
        "needs an account; tests/test_hub_remote.py has a server of its own"
    ),
    "glpi serve --model runs/demo-published": NotRun(
        "glpi serve is run, and the next command reads this model"
    ),
    "glpi export runs/demo runs/demo.stablehlo": Run(
        "glpi export runs/demo-published runs/demo.stablehlo",
        "from the published folder",
        leaves=("runs/demo.stablehlo", "runs/demo.stablehlo.json"),
    ),
    # SAQT.
    "glpi saqt retrieve PHOTOGRAPHS KADID10K/images --weights resnet101-5d3b4d8f.pth"
    " --out similarity.csv": NotRun(
        "needs torchvision's weights; tests/saqt retrieves with drawn ones, and the next commands"
        " have a table as it writes it"
    ),
    "glpi saqt labels similarity.csv dmos.csv labels": Run(),
    "glpi train --config configs/saqt_pretrain.py --workdir runs/pretrained"
    " --config.data.root=PHOTOGRAPHS --config.data.labels=labels": Run(
        "glpi train --config configs/saqt_pretrain.py --workdir runs/pretrained"
        " --config.data.root=PHOTOGRAPHS --config.data.labels=labels"
        " --config.split.train_fraction=0.7 --config.split.validation_fraction=0.4"
        f" --config.model.dtype=float32 {TINY}",
        "the small model, one epoch, three photographs",
        leaves=("runs/pretrained/results.json",),
    ),
    f"glpi train --config {KADID} --workdir runs/finetuned --config.data.root=KADID"
    " --config.init_from=runs/pretrained": Run(
        f"glpi train --config {KADID} --workdir runs/finetuned --config.data.root=FOLDER"
        f" --config.init_from=runs/pretrained {TINY}",
        _SMALL,
        leaves=("runs/finetuned/results.json",),
    ),
    "glpi saqt preview photo.jpg --out sheet.png": Run(leaves=("sheet.png",)),
    "glpi saqt render PHOTOGRAPHS runs/saqt --labels labels --format webp": Run(
        leaves=("runs/saqt/manifest.json", "runs/saqt/labels.csv")
    ),
    "glpi saqt verify runs/saqt": Run(),
    # Measurements.
    "python benchmarks/…": NotRun(_MINUTES),
    "GLPI_GOLDENS=FOLDER python benchmarks/…": NotRun(_MINUTES),
}

TRAINING: dict[str, How] = {
    # Training; given again it goes on, here with nothing to do.
    "glpi data demo": Run("glpi data demo --short", "two of the 25 distortions"),
    "glpi train --config configs/demo.py --workdir runs/mine"
    " --config.optimizer.learning_rate=5e-4": Run(
        f"! {MINE} 2>&1 | tee first.log | grep 'nothing to do' && test -s runs/mine/report.html"
        f" && {MINE} 2>&1 | grep 'nothing to do'",
        "the short demo's config, one epoch, few images; given twice",
        leaves=("runs/mine/report.html",),
    ),
    "glpi evaluate --config configs/demo.py --workdir runs/mine"
    " --config.optimizer.learning_rate=5e-4": Run(
        MINE.replace("train", "evaluate", 1),
        "as that was trained",
        leaves=("runs/mine/results.json",),
    ),
    "glpi benchmark --config configs/demo.py --workdir runs/demo-rounds --rounds 3": Run(
        f"glpi benchmark --config {SHORT} --workdir runs/demo-rounds --rounds 2 {FEW}",
        "the short demo's config, two rounds of an epoch, few images",
        leaves=("runs/demo-rounds/report.html",),
    ),
    "glpi train --config configs/base.py --workdir runs/own --config.data.database=csv"
    " --config.data.root=FOLDER": Run(
        "glpi train --config configs/base.py --workdir runs/own --config.data.database=csv"
        f" --config.data.root=OWN {TINY}",
        _SMALL,
        leaves=("runs/own/results.json",),
    ),
    "glpi train --config configs/base.py --workdir runs/own --config.data.database=csv"
    " --config.data.root=FOLDER --config.model.pretrained.vit=download"
    " --config.model.pretrained.resnet=download": NotRun(_DOWNLOAD),
    # The published databases, in miniature.
    "glpi data check kadid10k FOLDER": Run(
        short="a miniature, which is told from a whole copy", status=2
    ),
    f"glpi benchmark --config {KADID} --rounds 10 --workdir runs/kadid10k"
    " --config.data.root=FOLDER": Run(
        f"glpi benchmark --config {KADID} --rounds 1 --workdir runs/kadid10k"
        f" --config.data.root=FOLDER {TINY}",
        f"{_SMALL}, one round",
        leaves=("runs/kadid10k/report.html",),
    ),
    f"glpi benchmark --config {KADID} --rounds 10 --workdir runs/kadid10k"
    " --config.data.root=FOLDER --config.mesh.round=5": NotRun(
        "needs several devices; make test-slow has virtual ones"
    ),
    "glpi benchmark --config configs/authentic.py:koniq10k --rounds 10 --workdir runs/koniq10k"
    " --config.data.root=FOLDER": Run(
        "glpi benchmark --config configs/authentic.py:koniq10k --rounds 1 --workdir runs/koniq10k"
        f" --config.data.root=KONIQ {TINY}",
        f"{_SMALL}, one round",
        leaves=("runs/koniq10k/report.html",),
    ),
    "glpi train --config configs/cross.py:kadid10k-live,csiq --workdir runs/cross"
    " --config.data.root=FOLDER --config.targets.live.root=LIVE"
    " --config.targets.csiq.root=CSIQ": Run(
        "glpi train --config configs/cross.py:kadid10k-csiq --workdir runs/cross"
        f" --config.data.root=FOLDER --config.targets.csiq.root=CSIQ {TINY}",
        f"{_SMALL}, and one target: LIVE has labels of MATLAB's kind, which the tests make",
        leaves=("runs/cross/results.json",),
    ),
    "glpi report runs/kadid10k runs/koniq10k runs/cross --out runs/comparison": Run(
        leaves=("runs/comparison/report.html",)
    ),
    "glpi report runs/kadid10k runs/cross --out runs/comparison": NotRun(
        "the same with a third run is run"
    ),
    "glpi data prepare kadid10k FOLDER runs/kadid10k-prepared": Run(),
    f"glpi train --config {KADID} --workdir runs/kadid10k-one --config.data.database=prepared"
    " --config.data.root=runs/kadid10k-prepared": Run(
        f"glpi train --config {KADID} --workdir runs/kadid10k-one --config.data.database=prepared"
        f" --config.data.root=runs/kadid10k-prepared {TINY}",
        _SMALL,
        leaves=("runs/kadid10k-one/results.json",),
    ),
    # Launch scripts. Two processes train together in tests/launch/test_local.py.
    "launch/local.sh --processes 2 --cpu-devices 2 -- train --config configs/demo.py:short"
    " --workdir runs/two": DryRun(),
    f"launch/local.sh -- train --config {KADID} --workdir runs/kadid10k"
    " --config.data.root=FOLDER": DryRun(),
    f"launch/local.sh --processes 2 --gpus 0,1,2,3 -- train --config {KADID}"
    " --workdir runs/kadid10k --config.data.root=FOLDER": DryRun(),
    "launch/tpu_vm/tpu_vm.sh …": DryRun(),
    "launch/xpk/xpk.sh …": DryRun(),
    "sbatch …": DryRun(),
    f"glpi benchmark --rounds 10 --workdir runs/kadid10k-rounds --config {KADID}"
    " --config.data.root=FOLDER": NotRun("the median over rounds that Slurm has trained"),
}

HOW = DEMONSTRATION | SCORING | TRAINING


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
    _write(scratch / "dmos.csv", dmos)


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
