"""An official checkpoint from a workdir."""

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.evaluation.protocols import mean_srocc, selection_names
from glpi_jax.interop.adam import TorchRecipe, get_adam, recipe_of, to_entry
from glpi_jax.models.glpi import GLPI
from glpi_jax.results.metrics_file import METRICS_FILE, read_metrics
from glpi_jax.training.bookkeeping import steps_per_epoch
from glpi_jax.training.checkpoint import BEST_FOLDER, BestCheckpoint, ResumeCheckpoints
from glpi_jax.training.checkpoint_files import finished_steps, path_of
from glpi_jax.training.checkpoint_store import RESUME_FOLDER
from glpi_jax.training.optimizer import ADAM_L2
from glpi_jax.training.state import TrainState, abstract_state
from glpi_jax.weights.carried import (
    CARRIED_FILE,
    Carried,
    carried_at,
    constant_carried,
    read_carried,
    read_fill,
)
from glpi_jax.weights.convert import to_official
from glpi_jax.weights.torch_files import (
    OfficialCheckpoint,
    check_checkpoint_output,
    write_checkpoint,
)
from glpi_jax.workflow.model import model_of
from glpi_jax.workflow.runs import load_best
from glpi_jax.workflow.workdir import RUN_FILE, SPLIT_FILE, read_run


def to_torch(
    source: Path, out: Path, *, fill: Path | None, weights_only: bool, force: bool
) -> list[str]:
    """Write an official checkpoint from a workdir, which stays as it is.

    Args:
        source: a workdir, for its selected weights; its folder `checkpoints`, for the newest state
            to resume from; or one of the steps in that. The optimizer is written with a state, and
            with selected weights if the state of their step is still kept.
        out: .pth or .pt, which need PyTorch, or .safetensors, which holds no optimizer.
        fill: a file with the ViT weights that never reach the score, for a workdir without them.
        weights_only: leave out the optimizer. Without it, exporting a state of another optimizer
            than the official Adam is an error; of selected weights a line says so.
        force: replace an existing file.

    Returns:
        What the user should know, line by line.

    Raises:
        GlpiError: nothing to export there, damaged files, or `out` cannot be written.
    """
    check_checkpoint_output(out, force=force)
    workdir, step = _locate(source)
    config = ConfigDict(read_run(workdir)["config"])
    with_optimizer = not weights_only and out.suffix != ".safetensors"
    notes = []
    state: TrainState | None = None
    selection: Mapping[str, Any] | None
    if step is None:
        model, variables, selection = load_best(workdir, make_mesh(1))
        step = int(selection["step"])
        recipe = recipe_of(config, model)
        kept = finished_steps(workdir / RESUME_FOLDER)
        if with_optimizer and not recipe.has_official_adam:
            notes.append(
                f"no optimizer: the run trained with {config.optimizer.name}, whose state no"
                " official file can hold; the weights are complete"
            )
        elif with_optimizer and step in kept:
            state = _restore(workdir, step, model, recipe)
        elif with_optimizer and kept:
            notes.append(
                f"no optimizer: the state of step {step}, where the selected weights are from, is "
                f"not kept any more; {workdir / RESUME_FOLDER} instead exports that of {kept[-1]}"
            )
        elif with_optimizer:
            notes.append(f"no optimizer: {workdir} keeps no state to resume from")
    else:
        model = model_of(config)
        recipe = recipe_of(config, model)
        if with_optimizer and not recipe.has_official_adam:
            raise GlpiError(
                f"{source}: config.optimizer.name = {config.optimizer.name!r}, but an official file"
                f" can hold the state of {ADAM_L2} alone: export with --weights-only"
            )
        state = _restore(workdir, step, model, recipe)
        variables, selection = state.variables, _selection(workdir)
    label = f"{workdir}, step {step}"
    carried, note = _carried(workdir, model, fill)
    notes += note
    entry = None
    if with_optimizer and state is not None:
        entry = to_entry(get_adam(state.opt_state, step, recipe, label), recipe.listed)
    checkpoint = OfficialCheckpoint(
        to_official(variables, carried_at(carried, step, model, label), model, label),
        _epoch(workdir, config, step, selection),
        _best_srocc(workdir, config, step, selection),
        entry,
    )
    write_checkpoint(out, checkpoint, force=force)
    return notes


def _locate(source: Path) -> tuple[Path, int | None]:
    """The workdir and the step of a state; None for the selected weights."""
    if (source / RUN_FILE).is_file():
        return source, None
    if source.name == RESUME_FOLDER and source.is_dir():
        folder, steps = source, finished_steps(source)[-1:]
    elif source.parent.name == RESUME_FOLDER and source.name.isdecimal():
        folder = source.parent
        steps = [step for step in finished_steps(folder) if step == int(source.name)]
    else:
        raise GlpiError(
            f"{source}: neither a workdir (no {RUN_FILE}) nor {RESUME_FOLDER}/ of one or a step in"
            " it"
        )
    if not steps:
        raise GlpiError(f"{source}: no finished checkpoint")
    return folder.parent, steps[0]


def _restore(workdir: Path, step: int, model: GLPI, recipe: TorchRecipe) -> TrainState:
    """Read one state.

    Opening the folder itself would clean up after an interrupted save, which might be one that a
    run is just writing: a folder with a link to the one state is opened instead.
    """
    target = abstract_state(model, recipe.optimizer, recipe.multipliers, mesh=make_mesh(1))
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder)
        (view / RESUME_FOLDER).mkdir()
        original = path_of(workdir / RESUME_FOLDER, step).resolve()
        (view / RESUME_FOLDER / str(step)).symlink_to(original, target_is_directory=True)
        with closing(ResumeCheckpoints(view)) as checkpoints:
            try:
                return checkpoints.restore(target)[0]
            except GlpiError as error:
                raise GlpiError(str(error).replace(folder, str(workdir))) from error


def _selection(workdir: Path) -> Mapping[str, Any] | None:
    """How the best weights so far were selected; None before the first validation."""
    if not finished_steps(workdir / BEST_FOLDER):
        return None
    with closing(BestCheckpoint(workdir, read_only=True)) as best:
        return best.selection()


def _epoch(
    workdir: Path, config: ConfigDict, step: int, selection: Mapping[str, Any] | None
) -> int:
    """Finished epochs at a step."""
    if selection is not None and selection["step"] == step:
        return int(selection["epoch"])
    path = workdir / SPLIT_FILE
    try:
        images = len(json.loads(path.read_text(encoding="utf-8"))["train"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GlpiError(f"{path}: cannot be read, and tells the length of an epoch") from error
    return step // steps_per_epoch(images, config.train.batch_size)


def _best_srocc(
    workdir: Path, config: ConfigDict, step: int, selection: Mapping[str, Any] | None
) -> float | None:
    """The highest SROCC of the selection parts up to a step; None before the first."""
    path = workdir / METRICS_FILE
    rows = read_metrics(path) if path.is_file() else []
    srocc = {(row.step, row.name): row.value for row in rows if row.step <= step}
    names = [f"{part}/srocc" for part in selection_names(config)]
    values = [mean_srocc([srocc.get((at, name)) for name in names]) for at, _ in srocc]
    # Of weights that came with their SROCC there is no row.
    if selection is not None and selection["step"] <= step:
        values.append(selection["value"])
    return max((value for value in values if value is not None), default=None)


def _carried(workdir: Path, model: GLPI, fill: Path | None) -> tuple[Carried, list[str]]:
    """What never reaches the score: from the workdir, from a file, or constants."""
    carried = read_carried(workdir)
    if carried is not None and fill is not None:
        raise GlpiError(f"--fill {fill}: nothing to fill, {workdir / CARRIED_FILE} has the weights")
    if carried is not None:
        return carried, []
    if fill is not None:
        return read_fill(fill, model), []
    note = (
        "the ViT's blocks behind the last tap, final norm and classifier were never loaded: "
        "written as zeros, norms as ones; they never reach the score (--fill FILE takes them from "
        "the file of a ViT)"
    )
    return constant_carried(model), [note]
