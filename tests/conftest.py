"""Set-up of every test: a CPU with two devices, strict array shapes, no windows."""

import importlib.util
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from hub_server import Hub
from PIL import Image

# Before JAX is imported. A test of more devices runs in a process of its own. Not optimised, for
# compiling takes most of the time; flags that are set already come last, and win.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    dict.fromkeys(  # each once, for an xdist worker inherits them
        (
            "--xla_force_host_platform_device_count=2",
            "--xla_backend_optimization_level=0",
            *os.environ.get("XLA_FLAGS", "").split(),
        )
    )
)
os.environ["MPLBACKEND"] = "Agg"

# A shell that runs the tests in its background has told them to ignore Ctrl-C; some test it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import compilations
import jax
from jax.experimental.compilation_cache import compilation_cache

if TYPE_CHECKING:
    from glpi_jax.models.glpi import Size

# A (n,) array that meets a (n, 1) array is an error, not an (n, n) array.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# A folder with `model/` and `distortions/`: the tests' own part, or the full set.
GOLDENS = Path(os.environ.get("GLPI_GOLDENS", Path(__file__).parent / "goldens"))

# The files that take longest, 70 to 15 seconds each. Workers begin with them, so that none ends
# long after the other (`--no-loadscope-reorder` in the Makefile keeps this order).
LONG = (
    "workflow/test_runs.py",
    "distributed/test_topologies.py",
    "workflow/test_init_from.py",
    "scoring/test_as_evaluated.py",
    "workflow/test_benchmark.py",
    "training/test_train_golden.py",
    "hub/test_shipped_weights.py",
    "test_changed_model.py",
    "training/test_resume.py",
    "workflow/test_pretrained.py",
    "interop/test_port.py",
    "models/test_glpi.py",
    "training/test_loop.py",
    "cli/test_main.py",
    "serve/test_app.py",
)

PLOTS = ("glpi_jax.report.plots.png", "glpi_jax.report.curve_plots.png")

DEMO_WEIGHTS = Path(__file__).parent / "support/demo_weights"  # glpi_demo, of `make demo`


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


class ModelGolden(NamedTuple):
    """Numbers made by the authors' implementation, and the inputs that they were made from."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    state_dict: dict[str, np.ndarray]
    images: Callable[[int, int], np.ndarray]  # (batch, salt added) -> normalised NHWC


@pytest.fixture(scope="session")
def make_case() -> ModuleType:
    """The module that draws the goldens' weights and images."""
    spec = importlib.util.spec_from_file_location("make_case", GOLDENS / "model/make_case.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_golden(make_case: ModuleType) -> Callable[[str], ModelGolden]:
    """`model_golden("forward_vit_tiny")` and its like."""

    def load(name: str) -> ModelGolden:
        folder = GOLDENS / "model"
        facts = json.loads((folder / f"{name}.json").read_text())
        salt = facts["salt"]
        if "state_dict" in facts:
            shapes = facts["state_dict"]
            with np.load(folder / f"{name}.npz") as file:
                arrays = dict(file)
        else:  # the training golden has the tiny model's names
            shapes = json.loads((folder / "forward_vit_tiny.json").read_text())["state_dict"]
            arrays = {}
        state_dict = {
            entry: make_case.fill(entry, tuple(shape), salt) for entry, shape in shapes.items()
        }

        def images(batch: int, added: int) -> np.ndarray:
            return make_case.image((batch, 3, 224, 224), salt + added).transpose(0, 2, 3, 1)

        return ModelGolden(facts, arrays, state_dict, images)

    return load


@pytest.fixture(scope="session")
def golden_shapes(make_case: ModuleType) -> dict[str, tuple[int, ...]]:
    """The 466 official names of ViT-S/16 with their shapes, in the order of the official file."""
    file = Path(str(make_case.__file__)).with_name("forward_vit_small.json")
    shapes = json.loads(file.read_text())["state_dict"]
    return {name: tuple(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def official_state(make_case: ModuleType) -> Callable[..., dict[str, np.ndarray]]:
    """`official_state(size, salt)`: an official state dict with BatchNorms that counted batches."""

    from glpi_jax.models.glpi import GLPI
    from glpi_jax.weights.convert import official_shapes

    def make(size: "Size", salt: int = 5) -> dict[str, np.ndarray]:
        return {
            name: np.asarray(3 + salt, np.int64)
            if name.endswith("num_batches_tracked")
            else make_case.fill(name, shape, salt)
            for name, shape in official_shapes(GLPI(size, 0.5)).items()
        }

    return make


@pytest.fixture(scope="session")
def demo_state(official_state: Callable[..., dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of the size `glpi_demo`; not to be changed."""
    from glpi_jax.models.glpi import SIZES

    return official_state(SIZES["glpi_demo"])


class Run(NamedTuple):
    """A run of the command line, and what its config was made from."""

    workdir: Path
    database: Path
    overrides: tuple[str, ...]  # with which configs/demo.py makes a run of seconds
    config: tuple[str, ...]  # `--config` and these overrides


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that all xdist workers see."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def shared_compilations(shared_folder: Path) -> Iterator[dict[str, str]]:
    """Compile each program once for all tests and what they start: the environment for these."""
    folder = shared_folder / "compilations"
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_enable_xla_caches": "none",  # or names depend on the folder
    }
    before = {name: getattr(jax.config, name) for name in settings}

    def use(values: dict[str, Any]) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    kept = compilations.kept_folder()
    if kept:
        compilations.take(kept, folder)
    use(settings)
    yield {
        **os.environ,
        **{name.upper(): str(value) for name, value in settings.items()},
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    use(before)
    if kept:
        compilations.keep(folder, kept)


@pytest.fixture(scope="session")
def demo_weights() -> Path:
    """Weights that take no time, for `--model` of a process of its own."""
    return DEMO_WEIGHTS


@pytest.fixture(scope="session", autouse=True)
def _small_default_weights() -> Iterator[None]:
    """What is scored without a model, in this process: `demo_weights`.

    tests/hub/test_shipped_weights.py scores with those of the package.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glpi_jax.hub.sources.SHIPPED", DEMO_WEIGHTS)
        yield


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server, and a huggingface_hub that knows no other, nor a token or cache of the user's."""
    from huggingface_hub import close_session, constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    close_session()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def no_plots() -> Iterator[None]:
    """Leave the plots out of reports, which take a second each.

    The report of `trained` has them, and tests/report looks at them.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in PLOTS:
            patch.setattr(name, lambda _: b"")
        yield


@pytest.fixture(scope="session")
def make_database() -> Callable[[Path], Path]:
    """Write a database of six references with four noisy images each into a new folder."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        lines = ["image,score,reference,distortion,level"]
        for scene in range(6):
            rng = np.random.default_rng(scene)
            blocks = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            for level in range(1, 5):
                size = (110 + 5 * (scene % 4), 130 - 5 * level)
                pixels = np.asarray(blocks.resize(size), float)
                pixels += rng.normal(0, 12 * level, pixels.shape)
                name = f"scene{scene}_{level}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
                kind = ("noise", "grain")[level % 2]
                lines.append(f"{name},{5 - level + scene / 10},scene{scene},{kind},{level}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        facts = {"name": "miniature", "label_note": "5 minus the level of noise"}
        (folder / "database.json").write_text(json.dumps(facts))
        return folder

    return make


@pytest.fixture(scope="session")
def kadid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small KADID-10k of five references; not to be changed."""
    from miniatures import build_miniature

    folder = tmp_path_factory.mktemp("kadid") / "kadid10k"
    return build_miniature("kadid10k", folder, references=5, images_per_reference=4, size=(70, 66))


@pytest.fixture(scope="session")
def plan_run(shared_folder: Path, make_database: Callable[[Path], Path]) -> Run:
    """A run that is not started: sixteen training images, two epochs of four steps."""
    folder = shared_folder / "run"
    database = folder / "database"
    with FileLock(shared_folder / "database.lock"):
        if not database.exists():
            make_database(database)
    overrides = (
        f"--config.data.root={database}",
        "--config.data.cache_bytes=200000",
        "--config.train.batch_size=4",
        "--config.train.epochs=2",
        "--config.train.log_every_steps=1",
        "--config.train.checkpoint_every_steps=3",
        "--config.evaluation.every_epochs=1",
        "--config.evaluation.select=best",
        "--config.evaluation.crops=2",
        "--config.evaluation.batch_size=4",
    )
    config = Path(__file__).parents[1] / "configs/demo.py"
    return Run(folder / "workdir", database, overrides, ("--config", str(config), *overrides))


def _state_of(workdir: Path) -> dict[Path, tuple[int, int]]:
    """(size in bytes, time of change) of each file."""
    status = {path: path.stat() for path in workdir.rglob("*") if path.is_file()}
    return {path: (each.st_size, each.st_mtime_ns) for path, each in status.items()}


@pytest.fixture(scope="session")
def trained(
    plan_run: Run, shared_folder: Path, shared_compilations: dict[str, str]
) -> Iterator[Run]:
    """A finished run, one for all workers; tests that write to its workdir take a copy."""
    from glpi_jax.cli.main import main
    from glpi_jax.report import plot_style

    with FileLock(shared_folder / "trained.lock"), pytest.MonkeyPatch.context() as patch:
        for name in PLOTS:  # also of a module that has none
            patch.setattr(name, plot_style.png)
        # After a failure the next worker trains again, and reports it as well.
        if not (plan_run.workdir / "report.html").is_file():
            assert main(["train", "--workdir", str(plan_run.workdir), *plan_run.config]) == 0
        before = _state_of(plan_run.workdir)
    yield plan_run
    assert _state_of(plan_run.workdir) == before, "a test has changed the workdir of all"
