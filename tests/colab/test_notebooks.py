"""The notebooks: made from their texts, pinned to the release, and running in their short form."""

import html
import importlib.util
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

import glpi_jax
from glpi_jax.data.demo_database import photograph_path
from glpi_jax.distortions import MEAN_DMOS
from glpi_jax.scoring import Scorer

ROOT = Path(__file__).parents[2]
COLAB = ROOT / "colab"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
NOTEBOOKS = sorted(COLAB.glob("*.ipynb"))
SECONDS = 300  # a notebook that hangs
SHIPPED = Path(glpi_jax.__file__).parent / "hub/shipped"  # in this process tests have others
# Scores are rounded, to two and four digits, and programs of the notebooks are not optimised.
SHIPPED_TOLERANCE, RANDOM_TOLERANCE = 2e-2, 2e-4

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_five() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert [path.stem for path in NOTEBOOKS] == [path.stem for path in sorted(COLAB.glob("0*.py"))]


@each_notebook
def test_nothing_was_run_in_it(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each_notebook
def test_the_badge_opens_this_very_file(path: Path) -> None:
    title = read(path).cells[0].source
    assert title.startswith("# ")
    assert re.search(r"In \S.* minutes?\b", title) or re.search(r"In \S.* seconds\b", title), title
    where = REPOSITORY.removeprefix("https://")
    target = f"https://colab.research.google.com/{where.replace('github.com', 'github', 1)}"
    badge = f"]({target}/blob/v{PROJECT['version']}/colab/{path.name})"
    assert title.count("colab-badge.svg") == title.count(badge) == 1
    assert badge in (ROOT / "README.md").read_text()


@each_notebook
def test_one_cell_installs_this_release(path: Path) -> None:
    installing = [code for code in code_of(path) if re.search(r"\bpip\b", code)]
    assert len(installing) == 1
    assert re.search(r"find_spec\(.glpi_jax.\) is None", installing[0])
    assert re.findall(r"git\+(\S+?)@v([\w.]+)", installing[0]) == [(REPOSITORY, PROJECT["version"])]
    extras = re.search(r"glpi_jax\[([\w,]+)\]", installing[0])
    assert extras is not None
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])


@each_notebook
def test_forms(path: Path) -> None:
    """One cell of parameters, which the tests change; and no step that asks for a Google Drive."""
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0].source.count('short = False  # @param {type:"boolean"}') == 1
    assert all("# @param" in line for line in tagged[0].source.splitlines())
    assert "drive.mount" not in "\n".join(code_of(path))


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebooks", COLAB / "make_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_notebook
def test_made_from_its_text(path: Path, maker: ModuleType) -> None:
    expected = maker.content_of(path.with_suffix(".py"))
    assert path.read_text(encoding="utf-8") == expected, "run `make notebooks-sync`"


Outputs = Callable[..., nbformat.NotebookNode]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Execute a notebook's short form in a folder, by default a new one; gives it with its outputs.

    GLPI_NOTEBOOKS_OUT names a folder that gets these, to be looked at.
    """
    compilations = tmp_path_factory.mktemp("compilations")

    def execute(name: str, folder: Path | None = None) -> nbformat.NotebookNode:
        from nbclient import NotebookClient

        notebook = read(COLAB / f"{name}.ipynb")
        (form,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        assert form.source.count("short = False") == 1
        form.source = form.source.replace("short = False", "short = True")
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(compilations),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
            **os.environ,
            "PYTHONPATH": str(ROOT),
            # Instead of the two devices of the tests: compile quickly what runs for a moment.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            # So are random numbers: initialisation is mostly that.
            "JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg",
        }
        environment.pop("MPLBACKEND")  # a renderer without a window
        folder = folder or tmp_path_factory.mktemp(name)
        client = NotebookClient(
            notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}
        )
        try:
            client.execute(env=environment)
        finally:
            kept = os.environ.get("GLPI_NOTEBOOKS_OUT")
            if kept:
                nbformat.write(notebook, Path(kept) / f"{name}.ipynb")
        for cell in notebook.cells:
            for text in stderr_of(cell):
                assert "Warning" not in text, f"in this cell:\n{cell.source}\n\n{text}"
        return notebook

    return execute


def stderr_of(cell: nbformat.NotebookNode) -> list[str]:
    outputs = cell.get("outputs", [])
    return [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]


def texts_of(notebook: nbformat.NotebookNode, kind: str = "text/markdown") -> str:
    """All that was printed, and the Markdown that was shown."""
    texts = []
    for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
        if output.output_type == "stream":
            texts.append(output.text)
        else:
            texts.append(output.get("data", {}).get(kind, ""))
    return "\n".join(texts)


def pictures_of(notebook: nbformat.NotebookNode) -> int:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def numbers(row: str) -> list[float]:
    return [float(cell) for cell in row.split("|") if re.fullmatch(r" *-?\d+\.\d+ *", cell)]


def scores_in(text: str) -> list[float]:
    """All scores and standard errors that were printed, in order."""
    return [float(number) for pair in re.findall(r"score (\S+) ± (\S+)\n", text) for number in pair]


def scores_of(scorer: Scorer, *photographs: str) -> list[float]:
    results = scorer.score([photograph_path(name) for name in photographs])
    return [number for one in results for number in (one.score, one.standard_error)]


def drawn_in(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The devices in each picture of how an array lies on a mesh."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    pages = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    return [re.findall(r"CPU [\d,]+", page) for page in pages]


@pytest.mark.notebooks
def test_score_your_photo(run: Outputs) -> None:
    done = run("01_score_your_photo")
    text = texts_of(done)
    scorer = glpi_jax.load(SHIPPED)
    assert scores_in(text) == pytest.approx(scores_of(scorer, "coffee"), abs=SHIPPED_TOLERANCE)
    assert "scale: MOS, 0 to 100, higher is better; mean of 4 crops of 224 × 224\n" in text
    assert "before the crops: shorter side reduced to at most 384 pixels" in text
    assert pictures_of(done) == 4  # the photograph, others, the map, the ladder
    for name in ("gaussian_blur", "white_noise"):
        rungs = re.search(rf"\| {name} (.*)", text)
        assert rungs, text
        untouched, *levels = numbers(rungs[1])
        assert len(levels) == 5
        assert levels[-1] < untouched - 8  # of 100


@pytest.mark.notebooks
def test_train_and_benchmark(run: Outputs) -> None:
    done = run("02_train_and_benchmark")
    text = texts_of(done)
    assert re.search(r"JAX \S+ sees \d+ × ", text)
    assert "types: gaussian_blur\n" in text
    worst, best = min(MEAN_DMOS[1]), max(MEAN_DMOS[1])
    assert f"120 pictures of 6 scenes\nlabels: DMOS, {worst:.2f} to {best:.2f}\n" in text
    assert "\nepochs: 2\n" in text
    assert pictures_of(done) == 2  # the curves, the ladder
    report = re.search(r'srcdoc="([^"]*)"', texts_of(done, "text/html"))
    assert report
    page = html.unescape(report[1])
    header = re.search(r"\| part .*", text)
    assert header
    assert "round 1" in header[0]
    assert "round 2" in header[0]
    srocc = re.search(r"\| test +\| SROCC (.*)", text)
    assert srocc
    rounds = numbers(srocc[1])
    assert len(rounds) == 2
    median = re.search(r"(-?\d\.\d+) ± ", srocc[1])
    assert median
    assert float(median[1]) == pytest.approx(sum(rounds) / 2, abs=1e-4)
    assert f"<dt>Test SROCC</dt><dd>{rounds[0]:.4f}</dd>" in page


@pytest.mark.notebooks
def test_port_checkpoints(run: Outputs, tmp_path: Path) -> None:
    text = texts_of(run("03_port_checkpoints", tmp_path))
    assert "RANDOM weights stand in for it." in text
    photographs = ("coffee", "cat", "rocket")
    expected = scores_of(glpi_jax.load(tmp_path / "official.pth", crops=4), *photographs)
    assert scores_in(text) == pytest.approx(expected, abs=RANDOM_TOLERANCE)
    assert "crops of 64 × 64, 48 wide tokens\n" in text
    names = re.findall(r"\| `(\S+)` \| (\S.*?) \| `(\S+)` \| (\w+) \|", text)
    first = ("clfe.backbone.bn1.running_mean", "(16,)", "clfe/backbone/bn1/mean", "same")
    assert names[0] == first
    assert "no optimizer: training would begin at step 0\n" in text
    counted = re.search(r"(\d+) of (\d+) entries are bit-equal", text)
    assert counted, text
    assert counted[1] == counted[2] != "0"
    assert f"official.pth: {counted[1]} entries, 0.42 million numbers\n" in text
    assert "largest difference of a score: 0\n" in text
    assert f"{counted[1]} weights equal, 0 different\n" in text


@pytest.mark.notebooks
def test_build_saqt(run: Outputs) -> None:
    done = run("04_build_saqt")
    text = texts_of(done)
    assert "mean scores. No real labels." in text
    assert "RANDOM weights. No real matches." in text
    assert pictures_of(done) == 1
    matches = re.findall(r"\| (\w+\.png) \| (I\d\d\.png) (.*)", text)
    assert [photograph for photograph, _, _ in matches] == ["cat.png", "coffee.png"]
    for _, _, cosines in matches:
        best, second = numbers(cosines)
        assert 1 >= best >= second > 0
    labels = re.search(r"levels\) \(2, 25, 5\), from 0\.00 to 9\.00; mean by level: \[(.*)\]", text)
    assert labels
    means = [float(mean) for mean in labels[1].split()]
    assert len(means) == 5
    assert means == sorted(means, reverse=True)
    assert f"\n001/cat_01_01.bmp,9.0,cat.png,{matches[0][1]},1,1\n" in text
    assert "rendered 20 images of 2 photographs\nverified 20 images: 0 problems" in text
    assert re.findall(r"\S+\.webp: (.*)", text) == ["changed since it was rendered"]


@pytest.mark.notebooks
def test_many_devices(run: Outputs) -> None:
    done = run("05_many_devices")
    text = texts_of(done)
    assert "8 devices: cpu" in text
    assert re.findall(r"^(\S.*\S) +\{(.*)\}$", text, re.MULTILINE) == [
        ("one device", "'round': 1, 'data': 1, 'fsdp': 1"),
        ("data 4 × fsdp 2", "'round': 1, 'data': 4, 'fsdp': 2"),
    ]
    labels, images, whole, halves = drawn_in(done)
    assert labels == images == [f"CPU {number}" for number in range(8)]
    assert whole == ["CPU 0"]
    assert halves == ["CPU 0,2,4,6", "CPU 1,3,5,7"]
    assert "equal losses on every mesh" in text
    shares = [int(share) for share in re.findall(r"(\d+)% \|", text)]
    assert shares[0] == 100
    assert 45 < shares[1] < 60  # half of the matrices; biases and scales whole
    steps = re.findall(r"\| \d \|.*", text)
    assert len(steps) == 3
    for step in steps:
        one, *others = numbers(step)
        assert others == pytest.approx([one], rel=1e-4)
