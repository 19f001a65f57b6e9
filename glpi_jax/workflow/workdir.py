"""A workdir as a whole: `run.json` and `split.json`, written at the beginning, and its lock."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from glpi_jax.core import config as config_files
from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import NO_LOCKS, write_json
from glpi_jax.data.on_the_fly import distorting_of
from glpi_jax.data.sources import Database
from glpi_jax.data.splits import Split, write_split
from glpi_jax.distributed.ranks import is_first, told_by_first, wait_for_all
from glpi_jax.results.workdirs import RUN_FILE as RUN_FILE
from glpi_jax.training.checkpoint import BEST_FOLDER
from glpi_jax.training.checkpoint_store import RESUME_FOLDER
from glpi_jax.weights.carried import hand_on_carried, write_carried
from glpi_jax.workflow.starting_weights import StartingWeights

SPLIT_FILE, LOCK_FILE = "split.json", "lock"
FORMAT = 1
# What `read_run` promises to be in sections of `run.json`, and in it beside them.
_RUN_KEYS = {
    "model": ("name", "dropout", "dtype", "batch_norm_inference_stages", "attention"),
    "data": ("resize", "resize_method", "apply_orientation", "label_scale", "label_shift"),
    "evaluation": ("crops", "batch_size"),
    "database": ("score_name", "higher_is_better", "label_note"),
}
_RUN_KEYS_OF_TRAINING = ("init_from", "pretrained", "denoiser")
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
        run["config"] = config_files.with_later_keys(run["config"])
        sections = {**run["config"], "database": run["database"]}
        for section, keys in _RUN_KEYS.items():
            for key in keys:
                sections[section][key]
        for key in _RUN_KEYS_OF_TRAINING:
            run[key]
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
    locks: ExitStack,
) -> None:
    """Write split and `run.json`, which ties a new workdir to its config.

    Of the weights to start from it keeps where they are from, and of a database of photographs
    what removes the noise of distortion type 15. `locks` keeps other trainings out until it closes.

    Raises:
        GlpiError: another training has the workdir, or checkpoints of something else are in it.
    """
    begun = (workdir / RUN_FILE).is_file()
    wait_for_all("begin")  # all have looked
    # First of all, so that a denoiser that cannot be read is told before there is a workdir.
    run = None
    if is_first() and not begun:
        origin = weights.origin if weights else None
        run = {
            "format": FORMAT,
            "config": config_files.to_plain(config),
            "database": {
                key: getattr(source, key)
                for key in ("name", "score_name", "higher_is_better", "label_note")
            },
            "init_from": origin if config.init_from else None,
            "pretrained": None if config.init_from else origin,
            "denoiser": distorting_of(config).denoiser().identity if source.photographs else None,
        }
    if not begun:
        # Checkpoints of another program would be cleared away.
        for folder in (workdir / RESUME_FOLDER, workdir / BEST_FOLDER):
            if folder.is_dir() and any(folder.iterdir()):
                raise GlpiError(
                    f"{folder}: holds something, but {workdir} is not a workdir (no {RUN_FILE});"
                    " name another --workdir"
                )
    if is_first():
        workdir.mkdir(parents=True, exist_ok=True)
    locks.enter_context(kept_to_one_training(workdir))
    if run is not None:
        write_split(workdir / SPLIT_FILE, source, split)
        if config.init_from:
            hand_on_carried(Path(config.init_from), workdir)
        if weights and weights.carried:
            write_carried(workdir, weights.carried)
        write_json(workdir / RUN_FILE, run)
    wait_for_all("begun")


@contextmanager
def kept_to_one_training(workdir: Path) -> Iterator[None]:
    """Keep other trainings out of a workdir, which exists, until this one or its process has ended.

    The system gives the lock back. Where the file system knows none, nothing is kept out. Of
    several processes that train together the first takes it for all.

    Raises:
        GlpiError: another training has it.
    """
    file, free = _take_lock(workdir / LOCK_FILE) if is_first() else (None, True)
    try:
        if not told_by_first(free):
            raise GlpiError(
                f"{workdir}: another process is training in this workdir at this moment; wait for"
                " it or end it, or name another --workdir"
            )
        yield
    finally:
        if file is not None:
            os.close(file)


def _take_lock(path: Path) -> tuple[int | None, bool]:
    """A descriptor that holds the lock, if there is one, and whether training may begin."""
    file = None
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return file, False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            if file is not None:
                os.close(file)
            raise
    return file, True


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
        if file["sha256"] != before["sha256"]:
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
