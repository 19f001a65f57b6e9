"""A workdir from an official checkpoint."""

import math
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from glpi_jax.core import config as config_files
from glpi_jax.core.config_ranges import check_ranges
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import staging_folder, write_json
from glpi_jax.data.crops import Crops
from glpi_jax.data.on_the_fly import distorting_of
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import Split, write_split
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.evaluation.protocols import make_plan, make_split, open_databases
from glpi_jax.interop.adam import Adam, TorchRecipe, from_entry, recipe_of, set_adam
from glpi_jax.models.glpi import GLPI, SIZES
from glpi_jax.training.bookkeeping import steps_per_epoch
from glpi_jax.training.checkpoint import BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.state import TrainState, create_state
from glpi_jax.weights.carried import Carried, write_carried
from glpi_jax.weights.convert import carried_names, flax_entries, read_weights, to_variables
from glpi_jax.weights.torch_files import (
    CheckpointError,
    OfficialCheckpoint,
    read_state,
    sha256_of,
)
from glpi_jax.workflow.model import model_of
from glpi_jax.workflow.workdir import FORMAT, RUN_FILE, SPLIT_FILE, read_run

CRITERION = "SROCC that the official file came with"


class _Data(NamedTuple):
    """The source database of a config, its split, and the length of the training on it."""

    source: Database
    split: Split
    epoch_steps: int
    last_step: int
    denoiser: Any  # as `run.json` has it


def from_torch(
    path: Path,
    workdir: Path,
    config: ConfigDict,
    *,
    size_from_file: bool,
    weights_only: bool,
    lower_is_better: bool,
) -> list[str]:
    """Make a workdir from an official checkpoint.

    It scores, and can be exported again. With `config.data.root` it can also be trained on: it has
    a split, and a state to resume from, with Adam's moments and step where the file has them and
    of step 0 otherwise. Torch's random numbers are not in the file: the order of images, their
    crops and the dropout are those of the config's seed.

    Args:
        path: the official file.
        workdir: a folder that is missing or empty; whole afterwards, or untouched.
        config: of the run.
        size_from_file: set `config.model.name` to the file's.
        weights_only: leave out optimizer, epoch and SROCC: a new run that starts from the weights.
        lower_is_better: the weights predict a DMOS whose lower values are better.

    Returns:
        What the user should know, line by line.

    Raises:
        GlpiError: a workdir that holds something, a file that is not whole, or one that does not
            fit the config.
    """
    if workdir.exists() and not (workdir.is_dir() and not any(workdir.iterdir())):
        raise GlpiError(f"{workdir}: exists already; name a new folder")
    if config.init_from:
        raise GlpiError(f"config.init_from: leave it out, the run starts from {path}")
    check_ranges(config)
    Crops.of_config(config)
    label = str(path)
    content = read_state(path)
    sha256 = sha256_of(path)
    file_model, arrays = read_weights(content, label)
    model = _model(file_model, config, size_from_file, label)
    recipe = recipe_of(config, model)
    checkpoint = OfficialCheckpoint(arrays) if weights_only else _progress(content, arrays, label)
    adam = _adam(checkpoint, recipe, label)
    data = _open(config) if config.data.root else None
    notes = _notes(checkpoint, adam, recipe, data)
    if data is not None:
        _check_data(data, adam, lower_is_better, label)

    with staging_folder(workdir) as folder:
        step = adam.step if adam else 0
        held = {name: arrays[name] for name in carried_names(model)}
        write_carried(folder, Carried(held, step))
        state = _state(config, model, recipe, arrays, adam)
        _write_best(folder, state, checkpoint)
        if data is not None or adam is not None:
            with closing(ResumeCheckpoints(folder)) as resume:
                resume.save(state, {"next_index": step})  # `BatchIterator`'s: a batch a step
        if data is not None:
            write_split(folder / SPLIT_FILE, data.source, data.split)
        run = {
            "format": FORMAT,
            "config": config_files.to_plain(config),
            "database": _database_facts(data, path, lower_is_better),
            "init_from": {"path": label, "sha256": sha256, "selection": None},
            "pretrained": None,
            "denoiser": None if data is None else data.denoiser,
        }
        write_json(folder / RUN_FILE, run)
        read_run(folder)
        os.replace(folder, workdir)
    return notes


def _model(file_model: GLPI, config: ConfigDict, size_from_file: bool, label: str) -> GLPI:
    """The config's model; it must be of the file's size."""
    names = [name for name, size in SIZES.items() if size == file_model.size]
    if not names:
        raise CheckpointError(
            f"{label}: takes crops of {file_model.size.crop} pixels, as no model size does; "
            "`glpi_jax.load_torch` reads it"
        )
    if size_from_file:
        config.model.name = names[0]
    if config.model.name != names[0]:
        raise CheckpointError(
            f"{label}: holds a {names[0]}, but config.model.name = '{config.model.name}'"
        )
    return model_of(config)


def _progress(
    content: Mapping[str, Any], arrays: Mapping[str, np.ndarray], label: str
) -> OfficialCheckpoint:
    """The whole checkpoint: what a file without `state_dict` or `model` holds is weights alone."""
    if not any(isinstance(content.get(key), Mapping) for key in ("state_dict", "model")):
        return OfficialCheckpoint(arrays)
    try:
        epoch, best = int(content.get("epoch", 0)), float(content.get("best_srocc", -math.inf))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{label}: epoch or best_srocc is not a number ({error})") from error
    if epoch < 0:
        raise CheckpointError(f"{label}: epoch is {epoch}")
    # The official code begins with -inf.
    known = best if math.isfinite(best) else None
    return OfficialCheckpoint(arrays, epoch, known, content.get("optimizer"))


def _adam(checkpoint: OfficialCheckpoint, recipe: TorchRecipe, label: str) -> Adam | None:
    """The optimizer of a file, None without one; its numbers must be the config's."""
    if checkpoint.optimizer is None:
        return None
    if not recipe.has_official_adam:
        raise GlpiError(
            f"{label}: holds the state of Adam, but config.optimizer.name ="
            f" {recipe.section.name!r}: leave that out, or give --weights-only"
        )
    adam = from_entry(
        checkpoint.optimizer,
        parameters=recipe.parameters,
        listed=recipe.listed,
        moments=recipe.moments,
        label=f"{label}: optimizer",
    )
    numbers = {key: getattr(adam, key) for key in ("beta1", "beta2", "epsilon", "weight_decay")}
    scheduled = adam.initial_learning_rate
    numbers["learning_rate"] = adam.learning_rate if scheduled is None else scheduled
    other = [
        f"--config.optimizer.{key}={value!r} (config: {recipe.section[key]!r})"
        for key, value in numbers.items()
        if not math.isclose(value, recipe.section[key], rel_tol=1e-6)
    ]
    if other:
        raise CheckpointError(
            f"{label}: the optimizer has other numbers than the config: give {', '.join(other)}, "
            "or --weights-only"
        )
    return adam


def _open(config: ConfigDict) -> _Data:
    source, targets = open_databases(config)
    split = make_split(config, source)
    images = len(make_plan(config, source, targets, split).train.rows)
    epoch_steps = steps_per_epoch(images, config.train.batch_size)
    denoiser = distorting_of(config).denoiser().identity if source.photographs else None
    return _Data(source, split, epoch_steps, config.train.epochs * epoch_steps, denoiser)


def _check_data(data: _Data, adam: Adam | None, lower_is_better: bool, label: str) -> None:
    if adam is not None and adam.step >= data.last_step:
        raise GlpiError(
            f"{label}: Adam is at step {adam.step}, but training ends at step {data.last_step} "
            f"({data.epoch_steps} an epoch): raise config.train.epochs, or give --weights-only"
        )
    if lower_is_better and data.source.higher_is_better:
        raise GlpiError(
            f"--lower-is-better, but a higher label of {data.source.name} is better under this "
            "config.protocol"
        )


def _notes(
    checkpoint: OfficialCheckpoint, adam: Adam | None, recipe: TorchRecipe, data: _Data | None
) -> list[str]:
    """What of the file does not go on as it was."""
    notes = []
    if data is None:
        notes.append("no config.data.root: it scores and exports, but cannot be trained on")
    if adam is None:
        notes.append("no optimizer: training would begin at step 0")
        return notes
    notes.append(
        f"Adam at step {adam.step}; torch's random numbers and order of images are not in the "
        "file: those of config.seed follow"
    )
    rate = float(recipe.schedule(adam.step))
    if not math.isclose(adam.learning_rate, rate, rel_tol=1e-4, abs_tol=1e-12):
        notes.append(
            f"the file's next learning rate is {adam.learning_rate:g}, the config's schedule has "
            f"{rate:g} at step {adam.step}: the schedule's follows"
        )
    if data is not None and adam.step != checkpoint.epoch * data.epoch_steps:
        notes.append(
            f"the file counts {checkpoint.epoch} epochs; with {data.epoch_steps} steps an epoch "
            f"step {adam.step} is epoch {adam.step / data.epoch_steps:.2f}: the step holds"
        )
    return notes


def _state(
    config: ConfigDict,
    model: GLPI,
    recipe: TorchRecipe,
    arrays: Mapping[str, np.ndarray],
    adam: Adam | None,
) -> TrainState:
    state = create_state(
        model,
        recipe.optimizer,
        recipe.multipliers,
        seed=config.seed,
        mesh=make_mesh(1),
        variables=to_variables(arrays, flax_entries(model)),
    )
    if adam is None:
        return state
    opt_state = set_adam(state.opt_state, adam, recipe)
    return state.replace(step=jnp.int32(adam.step), opt_state=opt_state)


def _write_best(folder: Path, state: TrainState, checkpoint: OfficialCheckpoint) -> None:
    selection = {
        "step": int(state.step),
        "epoch": checkpoint.epoch,
        "criterion": CRITERION,
        "value": checkpoint.best_srocc,
    }
    with closing(BestCheckpoint(folder, read_only=False)) as best:
        best.save(state.variables, selection)


def _database_facts(data: _Data | None, path: Path, lower_is_better: bool) -> dict[str, Any]:
    """What `run.json` says about the labels; of weights alone, what the user says."""
    if data is None:
        return {
            "name": path.name,
            "score_name": "DMOS" if lower_is_better else "MOS",
            "higher_is_better": not lower_is_better,
            "label_note": f"on the scale of the labels behind {path.name}",
        }
    keys = ("name", "score_name", "higher_is_better", "label_note")
    return {key: getattr(data.source, key) for key in keys}
