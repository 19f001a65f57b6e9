"""The file that `glpi score --csv` and `--jsonl` write: where it may be, and what a resume adds."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import IMAGE_SUFFIXES
from glpi_jax.scoring.inputs import names_video
from glpi_jax.scoring.reading import name_of
from glpi_jax.scoring.records import (
    Form,
    Records,
    check_replaceable,
    open_records,
    read_names,
)
from glpi_jax.scoring.results import Problem
from glpi_jax.scoring.scorer import Scorer
from glpi_jax.scoring.video import VIDEO_SUFFIXES, Frame, video_frames


def check_score_file(path: Path, form: Form) -> Path:
    """Check that scores may be written to a path, before the long work that makes them.

    Returns the path, or where it leads if it is a link; GlpiError if there is something else.
    """
    # As in `--jsonl photo.jpg`, whose file name was forgotten.
    for suffixes, kind in ((IMAGE_SUFFIXES, "an image"), (VIDEO_SUFFIXES, "a video")):
        if path.suffix.lower() in suffixes:
            raise GlpiError(
                f"--{form} {path}: this would replace {kind}; name a file for the scores"
            )
    if path.is_dir():
        raise GlpiError(f"--{form} {path}: this is a folder; name a file for the scores")
    if path.exists() and (not path.is_file() or _is_stdout(path)):
        raise GlpiError(
            f"--{form} {path}: a pipe, a device or what stdout goes to; --{form} - writes to stdout"
        )
    if path.is_symlink():
        path = path.resolve()
    check_replaceable(path, form)
    return path


def _is_stdout(path: Path) -> bool:
    """Whether the shell writes what is printed into this file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # stdout is closed
        return False


def check_complete(path: Path, form: Form, inputs: Iterable[str | Problem]) -> tuple[int, int]:
    """Count the images in a complete file, and their errors; GlpiError if inputs are missing.

    It does not say what its scores are made with, so that a resume could not add others.
    """
    known, errors = read_names(path, form, cut=False)
    known_videos = {name.rpartition("#")[0] for name in known}
    missing = [
        name
        for name in map(name_of, inputs)
        if name not in known and not (name in known_videos and names_video(name))
    ]
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise GlpiError(
            f"{path}: complete, but without {missing[0]}{others}; give these another file, or leave"
            " out --resume to score all anew"
        )
    return len(known), errors


def open_scores(
    path: Path, form: Form, scorer: Scorer, every_seconds: float, *, resume: bool
) -> AbstractContextManager[Records]:
    """Open records as `open_records`; another scorer or interval refuses to resume them."""
    settings = {
        "model": scorer.fingerprint(),
        "crops": scorer.crops.count,
        "placement": scorer.crops.placement,
        "seed": scorer.crops.seed,
        "every_seconds": every_seconds,
    }
    return open_records(path, form, settings, resume=resume)


def unscored(
    inputs: Iterable[str | Problem], every_seconds: float, known: Collection[str]
) -> Iterator[str | Frame | Problem]:
    """Yield inputs whose names are not known yet; of a video its frames, as `video_frames` does."""
    for found in inputs:
        sources: Iterable[str | Frame | Problem] = [found]
        if isinstance(found, str) and names_video(found):
            sources = video_frames(found, every_seconds)
        yield from (source for source in sources if name_of(source) not in known)
