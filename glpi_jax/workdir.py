"""What a workdir says about its run: `run.json` and `split.json`, written at the beginning."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from glpi_jax import config as config_files
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import Split, write_split
from glpi_jax.errors import GlpiError
from glpi_jax.files import write_json
from glpi_jax.porting.carried import hand_on_carried, write_carried
from glpi_jax.starting_weights import StartingWeights
from glpi_jax.training.loop import distorting_of
from glpi_jax.training.processes import is_first, wait_for_all

RUN_FILE, SPLIT_FILE = "run.json", "split.json"
FORMAT = 1
# What `read_run` promises to be in `run.json`, below `config` and `database`.
_RUN_KEYS = {
    "model": ("name", "dropout", "dtype", "batch_norm_inference_stages", "attention"),
    "evaluation": ("crops", "batch_size"),
}
_RUN_KEYS_OF_TRAINING = ("init_from", "pretrained", "denoiser")
_RUN_DATABASE_KEYS = ("score_name", "higher_is_better", "label_note")
# What changes speed and memory alone: a run may go on with other values, on other devices.
SPEED_KEYS = (
    "mesh",
    "model.attention",
    "data.threads",
    "data.workers",
    "data.prefetch",
    "data.cache_bytes",
    "train.accumulation",
    "train.remat",
    "evaluation.batch_size",
)


def read_run(workdir: Path) -> dict[str, Any]:
    """Read a workdir's `run.json`: `config`, and `database` with the facts about its labels."""
    path = workdir / RUN_FILE
    if not workdir.is_dir():
        raise GlpiError(f"{workdir}: no such workdir; `glpi train` makes one")
    try:
        run = json.loads(path.read_text())
        if run["format"] != FORMAT:
            raise GlpiError(f"{path}: format {run['format']}, this version reads {FORMAT}")
        for section, keys in _RUN_KEYS.items():
            for key in keys:
                run["config"][section][key]
        for key in _RUN_KEYS_OF_TRAINING:
            run[key]
        for key in _RUN_DATABASE_KEYS:
            run["database"][key]
    except FileNotFoundError as error:
        raise GlpiError(
            f"{workdir}: not a workdir (no {RUN_FILE}); `glpi train` makes one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"no {error}" if isinstance(error, KeyError) else error
        raise GlpiError(f"{path}: not a readable run description ({cause})") from error
    return run


def begin_workdir(
    config: ConfigDict,
    source: Database,
    split: Split,
    workdir: Path,
    weights: StartingWeights | None,
) -> None:
    """Write split and `run.json`, which ties a new workdir to its config.

    Of the weights to start from it keeps where they are from, and of a database of photographs
    what removes the noise of distortion type 15.
    """
    begun = (workdir / RUN_FILE).is_file()
    wait_for_all("begin")  # all have looked
    if is_first() and not begun:
        # First of all, so that a denoiser that cannot be read is told before there is a workdir.
        run = _describe(config, source, weights)
        workdir.mkdir(parents=True, exist_ok=True)
        write_split(workdir / SPLIT_FILE, source, split)
        if config.init_from:
            hand_on_carried(Path(config.init_from), workdir)
        if weights and weights.carried:
            write_carried(workdir, weights.carried)
        write_json(workdir / RUN_FILE, run)
    wait_for_all("begun")


def _describe(
    config: ConfigDict, source: Database, weights: StartingWeights | None
) -> dict[str, Any]:
    """What `run.json` says."""
    denoiser = distorting_of(config).denoiser().identity if source.photographs else None
    return {
        "format": FORMAT,
        "config": config_files.to_plain(config),
        "database": {
            "name": source.name,
            "score_name": source.score_name,
            "higher_is_better": source.higher_is_better,
            "label_note": source.label_note,
        },
        "init_from": weights.origin if weights and config.init_from else None,
        "pretrained": weights.origin if weights and not config.init_from else None,
        "denoiser": denoiser,
    }


def check_origin(weights: StartingWeights, workdir: Path) -> None:
    """Refuse other weights than the run was begun with, if it was stopped before it saved them."""
    run = read_run(workdir)
    files, noted = _files(weights.origin), _files(run["init_from"] or run["pretrained"])
    if len(files) != len(noted):  # one made by `glpi port from-torch`, whose checkpoints are gone
        raise GlpiError(
            f"{workdir} has no checkpoint left, and was begun with"
            f" {', '.join(before['path'] for before in noted)}; make it anew"
        )
    for file, before in zip(files, noted, strict=True):
        if file != before:
            raise GlpiError(
                f"{file['path']}: has changed since {workdir / RUN_FILE} noted its SHA-256,"
                f" {before['sha256']}; train in another workdir"
            )


def _files(origin: dict[str, Any]) -> list[dict[str, Any]]:
    """Each of the files that weights are from."""
    return [origin] if "sha256" in origin else [file for file in origin.values() if file]


def check_same(
    saved: dict[str, Any], config: ConfigDict, workdir: Path, sections: Sequence[str]
) -> None:
    """Raise a GlpiError that lists how sections of a config differ, but for `SPEED_KEYS`."""
    given = config_files.to_plain(config)
    changed = config_files.differences(
        {key: saved.get(key) for key in sections},
        {key: given.get(key) for key in sections},
        but_for=SPEED_KEYS,
    )
    if changed:
        raise GlpiError(
            f"{workdir} is a run of another config: {'; '.join(changed)}. "
            "Give the same config, or another --workdir"
        )
