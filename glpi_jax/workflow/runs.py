"""A run is a workdir made by a config: train it, evaluate it, load it.

A workdir holds `run.json` (config and database facts), `split.json`, `checkpoints/`, `best/`,
`metrics.csv`, `tensorboard/`, `results.json` and `report.html`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.core import config as config_files
from glpi_jax.core.config_ranges import check_ranges
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_json
from glpi_jax.data.crops import Crops
from glpi_jax.data.splits import read_split, split_references, split_sha256
from glpi_jax.distributed.mesh import (
    check_batch_size,
    check_rounds,
    mesh_of,
    parameter_shardings,
)
from glpi_jax.distributed.ranks import (
    is_first,
    wait_for_all,
)
from glpi_jax.evaluation.metrics import quality_metrics
from glpi_jax.evaluation.predict import (
    Prediction,
    compile_scorer,
)
from glpi_jax.evaluation.protocols import (
    make_plan,
    make_split,
    mean_srocc,
    metrics_note,
    open_databases,
)
from glpi_jax.models.glpi import GLPI, Remat
from glpi_jax.report import REPORT_FILE, write_report
from glpi_jax.results.workdirs import RESULTS_FILE
from glpi_jax.training.bookkeeping import RunSetup, Validation
from glpi_jax.training.checkpoint import BestCheckpoint
from glpi_jax.training.loop import fit, fit_rounds, make_batches, make_recipe
from glpi_jax.training.state import abstract_state, abstract_variables
from glpi_jax.workflow import notices
from glpi_jax.workflow.model import model_of
from glpi_jax.workflow.provenance import git_revision, versions
from glpi_jax.workflow.scored_parts import (
    compared_scores,
    crops_of_part,
    part_results,
    predict_part,
)
from glpi_jax.workflow.starting_weights import (
    StartingWeights,
    load_starting_weights,
    names_starting_weights,
)
from glpi_jax.workflow.workdir import (
    FORMAT,
    RUN_FILE,
    SPEED_KEYS,
    SPLIT_FILE,
    begin_workdir,
    check_origin,
    check_same,
    read_run,
)

Scored = dict[str, list[Prediction]]  # by the selected weights, in this process; part by part


def train_run(config: ConfigDict, workdir: Path, *, profile: Path | None = None) -> bool:
    """Train a config in a workdir, or resume where an earlier call stopped, then evaluate.

    Args:
        config: the whole tree.
        workdir: made if it is missing; if it exists, it must be of this very config, but for
            `SPEED_KEYS`.
        profile: receives a trace of a few training steps, if given.

    Returns:
        False if the run was complete before and nothing was done.

    Raises:
        GlpiError: another config's workdir, missing data, or anything that `fit` raises.
    """
    if config.mesh.round != 1:
        raise GlpiError(
            f"config.mesh.round = {config.mesh.round}: one run has no rounds side by side; that is"
            " for `glpi benchmark`"
        )
    model, mesh = _model_and_mesh(config)
    with ExitStack() as locks:
        one, scored = _open_run(config, workdir, model, mesh, locks)
        trained = fit(one, model=model, mesh=mesh, profile=profile)
        if not trained and _is_reported(config, workdir):
            return False
        evaluate_run(config, workdir, scored)
        return True


def train_rounds(configs: Sequence[ConfigDict], workdirs: Sequence[Path]) -> None:
    """Train several runs side by side, on groups of devices, then evaluate each.

    Each ends as `train_run` would have it, and resumes from what that has left. The configs differ
    in seed and split alone.

    Raises:
        GlpiError: as `train_run`, and numbers that do not fit `config.mesh`.
    """
    model, mesh = _model_and_mesh(configs[0])
    check_rounds(len(configs), mesh)
    with ExitStack() as locks:
        opened = [
            _open_run(config, workdir, model, mesh, locks)
            for config, workdir in zip(configs, workdirs, strict=True)
        ]
        fit_rounds([one for one, _ in opened], model=model, mesh=mesh)
        for one, scored in opened:
            if not _is_reported(one.config, one.workdir):
                evaluate_run(one.config, one.workdir, scored)


def _is_reported(config: ConfigDict, workdir: Path) -> bool:
    """Whether there is a report of the selected weights, evaluated as the config says."""
    if not all((workdir / name).is_file() for name in (RESULTS_FILE, REPORT_FILE)):
        return False
    try:
        results = json.loads((workdir / RESULTS_FILE).read_text(encoding="utf-8"))
        reported = config_files.with_later_keys(results["config"])
        selection = results["selection"]
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged, and so made again
        return False
    stretches = (config.data.label_scale, config.data.label_shift) != (1, 0)
    if stretches and "metrics_note" not in results:  # predictions in other units
        return False
    given = config_files.to_plain(config)
    if config_files.differences(reported, given, but_for=SPEED_KEYS):
        return False
    with closing(BestCheckpoint(workdir, read_only=True)) as best:
        return bool(selection == best.selection())


def _model_and_mesh(config: ConfigDict) -> tuple[GLPI, Mesh]:
    """What a config trains, and where; complains now about numbers that cannot be."""
    check_ranges(config)
    Crops.of_config(config)
    mesh = mesh_of(config)
    check_batch_size(config.evaluation.batch_size, mesh, "config.evaluation.batch_size")
    check_batch_size(
        config.train.batch_size,
        mesh,
        "config.train.batch_size",
        parts=config.train.accumulation,
        of_round=True,
    )
    model = model_of(config, remat=Remat(**config.train.remat.to_dict()))
    if config.mesh.fsdp != 1:
        params = traverse_util.flatten_dict(abstract_variables(model, mesh=mesh)["params"], sep="/")
        shapes = {path: x.shape for path, x in params.items()}
        parameter_shardings(shapes, config.mesh.fsdp_rules, mesh)
    return model, mesh


def _open_run(
    config: ConfigDict, workdir: Path, model: GLPI, mesh: Mesh, locks: ExitStack
) -> tuple[RunSetup, Scored]:
    """Read a run's data and make its workdir, or compare it with what is there.

    `locks` keeps other trainings out of the workdir. The training fills in what it has scored.
    """
    source, targets = open_databases(config)
    for database in (source, *targets.values()):
        notices.tell_left_out(database)
    begins = not (workdir / RUN_FILE).is_file()
    if begins:
        split = make_split(config, source)
        notices.tell_identical(source, split)
    else:
        saved = read_run(workdir)["config"]
        check_same(saved, config, workdir, tuple(saved.keys() | config.keys()))
        split = read_split(workdir / SPLIT_FILE, source)
    plan = make_plan(config, source, targets, split)
    for part in (plan.train, *plan.reported):
        crops_of_part(config, part, model)  # complains now, not after the first epoch
    recipe = make_recipe(config, model, mesh)
    make_batches(config, model, plan.train.database, plan.train.rows, place=(0, 1))
    loaded: list[StartingWeights] = []
    starts_from_weights = names_starting_weights(config)
    if begins:
        notices.tell_frozen(config, recipe.multipliers)
        if starts_from_weights:
            loaded.append(load_starting_weights(config, model, mesh))
        notices.tell_seen(config, plan)
    begin_workdir(config, source, split, workdir, loaded[0] if loaded else None, locks)
    if begins:
        parts = (model, recipe.optimizer, recipe.multipliers)
        shapes = abstract_state(*parts, mesh=mesh, fsdp_rules=config.mesh.fsdp_rules)
        notices.tell_parameters(shapes.params, recipe.multipliers)
    score_crops = compile_scorer(model, mesh)
    scored: Scored = {}

    def validate(variables: Mapping[str, Any]) -> Validation:
        metrics: dict[str, float | None] = {}
        parts = {}
        for part in plan.selection:
            predictions = predict_part(config, part, score_crops, variables, model, mesh)
            parts[part.name] = predictions
            labels = part.database.scores[list(part.rows)]
            measured = quality_metrics(compared_scores(config, predictions), labels)
            metrics |= {f"{part.name}/{name}": value for name, value in measured.items()}
        value = mean_srocc([metrics[f"{part.name}/srocc"] for part in plan.selection])

        def on_selected() -> None:
            # Sums over weights that fsdp splits may differ in the last bit from those of
            # `glpi evaluate`, which has them whole.
            if config.mesh.fsdp == 1:
                scored.update(parts)

        return Validation(metrics, value, on_selected)

    def starting_weights() -> Mapping[str, Any]:
        weights = loaded.pop() if loaded else load_starting_weights(config, model, mesh)
        check_origin(weights, workdir)
        return weights.variables

    one = RunSetup(
        config,
        plan.train.database,
        plan.train.rows,
        workdir,
        validate,
        plan.criterion,
        starting_weights if starts_from_weights else None,
    )
    return one, scored


def evaluate_run(config: ConfigDict, workdir: Path, scored: Scored | None = None) -> dict[str, Any]:
    """Score the parts that the protocol reports with the run's selected weights.

    Writes `results.json` and `report.html`. `config.evaluation` may differ from the trained one;
    model, data, split and seed may not. What these weights have `scored` is not scored again.

    Returns:
        The content of `results.json`.

    Raises:
        GlpiError: no trained model in the workdir, another config's workdir, or missing data.
    """
    saved = read_run(workdir)
    same = ("seed", "init_from", "protocol", "model", "data", "targets", "split")
    check_same(saved["config"], config, workdir, same)
    check_ranges(config)
    Crops.of_config(config)
    database, targets = open_databases(config)
    split = read_split(workdir / SPLIT_FILE, database)
    plan = make_plan(config, database, targets, split)
    mesh = mesh_of(config)
    model, variables, selection = load_best(workdir, mesh)
    score_crops = compile_scorer(model, mesh)
    parts = {}
    for part in plan.reported:
        predictions = (scored or {}).get(part.name)
        if predictions is None:
            predictions = predict_part(config, part, score_crops, variables, model, mesh)
        parts[part.name] = part_results(config, part, predictions)
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    results = {
        "format": FORMAT,
        "protocol": config.protocol,
        "seed": config.seed,
        "config": config_files.to_plain(config),
        "git_revision": git_revision(),
        "versions": versions(),
        "device": f"{jax.devices()[0].device_kind} × {mesh.size}",
        "model": {"name": config.model.name, "parameters": parameters},
        **{key: saved[key] for key in ("init_from", "pretrained", "denoiser")},
        "selection": selection,
        "split": {
            "sha256": split_sha256(database, split),
            "references": {
                part: split_references(database, getattr(split, part))
                for part in ("train", "validation", "test")
            },
        },
        "left_out": {item.name: item.left_out for item in (database, *targets.values())},
        "label_note": database.label_note,
        "score_name": database.score_name,
        "higher_is_better": database.higher_is_better,
        "metrics_note": metrics_note(config, database.score_name),
        "parts": parts,
    }
    if is_first():
        write_json(workdir / RESULTS_FILE, results)
        write_report(workdir)
    wait_for_all("report")
    return results


def load_best(workdir: Path, mesh: Mesh) -> tuple[GLPI, dict[str, Any], dict[str, Any]]:
    """Load a run's selected weights.

    Returns:
        The model, its variables on the mesh, and how they were selected.

    Raises:
        GlpiError: no run there, nothing trained yet, or a checkpoint of another model.
    """
    model = model_of(ConfigDict(read_run(workdir)["config"]))
    with closing(BestCheckpoint(workdir, read_only=True)) as best:
        return model, *best.restore(abstract_variables(model, mesh=mesh))
