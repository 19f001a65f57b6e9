"""Reading a trained model, wherever it is."""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.hub.folder import WEIGHTS_FILE, is_hub_folder, read_folder
from glpi_jax.hub.remote import SCHEME, download
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.models.glpi import SIZES
from glpi_jax.results.workdirs import BENCHMARK_FILE
from glpi_jax.weights.convert import load_torch
from glpi_jax.weights.torch_files import SUFFIXES
from glpi_jax.workflow.runs import load_best
from glpi_jax.workflow.workdir import RUN_FILE, read_run

# The weights that come with the package, a hub folder.
SHIPPED = Path(__file__).resolve().with_name("shipped")
SOURCES = (
    "a workdir of `glpi train`, a hub folder, a checkpoint (.pth, .pt, .safetensors) or "
    "hf://owner/name"
)
OFFICIAL_CROPS = 25
_OFFICIAL_BATCH = 100


def read_model(source: str | os.PathLike[str] | None = None) -> TrainedModel:
    """Read a trained model.

    Args:
        source: a workdir, whose selected weights are taken; a hub folder; `hf://owner/name` or
            `hf://owner/name@revision`; an official checkpoint, .pth, .pt or .safetensors, which
            says nothing about its preprocessing and the scale of its scores; None for the
            weights that come with the package.

    Raises:
        GlpiError: nothing of that kind is there, or it cannot be read.
    """
    if source is None:
        if not is_hub_folder(SHIPPED):
            raise GlpiError(
                f"this installation has no weights of its own ({SHIPPED}); name {SOURCES}"
            )
        return read_folder(SHIPPED)
    if os.fspath(source).startswith(SCHEME):
        return read_folder(download(os.fspath(source)))
    path = Path(source)
    if (path / RUN_FILE).is_file():
        return _read_workdir(path)
    if is_hub_folder(path):
        return read_folder(path)
    if path.name == WEIGHTS_FILE and is_hub_folder(path.parent):
        raise GlpiError(f"{path}: the weights of a hub folder; name the folder, {path.parent}")
    if path.is_file() and path.suffix in SUFFIXES:
        return _read_checkpoint(path)
    if (path / BENCHMARK_FILE).is_file():
        raise GlpiError(f"{path}: a benchmark has a model for each round; name {path}/round_…")
    if not path.exists():
        raise GlpiError(f"{path}: no such file or folder; a model is {SOURCES}")
    raise GlpiError(f"{path}: not a model, which is {SOURCES}")


def looks_like_a_model(source: str) -> bool:
    """Whether `read_model` would take a text for a model, be it damaged, rather than refuse it."""
    if source.startswith(SCHEME):
        return True
    path = Path(source)
    if path.is_dir():
        named = (path / name for name in (RUN_FILE, BENCHMARK_FILE))
        return is_hub_folder(path) or any(file.is_file() for file in named)
    return path.suffix in SUFFIXES


def _read_workdir(workdir: Path) -> TrainedModel:
    run = read_run(workdir)
    config, database = run["config"], run["database"]
    model, variables, _ = load_best(workdir, make_mesh(-1))
    return TrainedModel(
        name=config["model"]["name"],
        model=model,
        variables=jax.tree.map(lambda x: np.asarray(x, np.float32), variables),
        preprocessing=Preprocessing.of_section(config["data"], "config.data"),
        preprocessing_assumed=False,
        crops=config["evaluation"]["crops"],
        batch_size=config["evaluation"]["batch_size"],
        label_scale=float(config["data"]["label_scale"]),
        label_shift=float(config["data"]["label_shift"]),
        score_name=database["score_name"],
        higher_is_better=database["higher_is_better"],
        label_note=database["label_note"],
    )


def _read_checkpoint(path: Path) -> TrainedModel:
    model, variables = load_torch(path)
    # The name of the size, whatever its crop; `load_torch` gives no size without one.
    name = next(
        name
        for name, size in SIZES.items()
        if dataclasses.replace(size, crop=model.size.crop) == model.size
    )
    return TrainedModel(
        name=name,
        model=model,
        variables=variables,
        crops=OFFICIAL_CROPS,
        batch_size=_OFFICIAL_BATCH,
        score_name="score",
        higher_is_better=None,
        label_note=(
            "the checkpoint does not say which labels it was trained on, so that neither the scale "
            "nor the direction of its scores is known"
        ),
    )
