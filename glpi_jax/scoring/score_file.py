"""The file that `glpi score --csv` and `--jsonl` write: where it may be, and what a resume adds."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import IMAGE_SUFFIXES
from glpi_jax.scoring.inputs import names_video, videos_as_frames
from glpi_jax.scoring.record_forms import Form, check_replaceable, read_names
from glpi_jax.scoring.records import Records, open_records, partial_file
from glpi_jax.scoring.results import Problem
from glpi_jax.scoring.scorer import Scorer
from glpi_jax.scoring.video import VIDEO_SUFFIXES, Frame


def check_score_file(path: Path, form: Form) -> Path:
    """Check that scores may be written to a path, before the long work that makes them.

    Returns:
        The path, or where it leads if it is a link, which is kept.

    Raises:
        GlpiError: there is something that is not to be replaced.
    """
    # As in `--jsonl photo.jpg`, whose file name was forgotten.
    for suffixes, kind in ((IMAGE_SUFFIXES, "an image"), (VIDEO_SUFFIXES, "a video")):
        if path.suffix.lower() in suffixes:
            raise GlpiError(f"{form} {path}: this would replace {kind}; name a file for the scores")
    if path.is_dir():
        raise GlpiError(f"{form} {path}: this is a folder; name a file for the scores")
    if path.exists() and (not path.is_file() or _is_stdout(path)):
        raise GlpiError(
            f"{form} {path}: a pipe, a device or what stdout goes to; --{form} - writes to stdout"
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


def is_complete(path: Path) -> bool:
    """Whether there are scores that no interrupted run has left."""
    return path.exists() and not partial_file(path).exists()


def check_complete(path: Path, form: Form, inputs: Iterable[str | Problem]) -> tuple[int, int]:
    """Check that a complete file has scores of all inputs: a resume has nothing to add.

    Returns:
        The number of images in the file, and how many of them had errors.

    Raises:
        GlpiError: inputs are missing. The file does not say what its scores are made with, so that
            others could not be added.
    """
    known, errors = read_names(path, form, cut=False)
    known_videos = {name.rpartition("#")[0] for name in known}
    missing = [
        name
        for name in map(_name, inputs)
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
    """Open records of a scorer's results; arguments and errors are those of `open_records`.

    Args:
        path: from `check_score_file`.
        form: of the records.
        scorer: that makes the scores; a resume with another one is refused.
        every_seconds: between the frames of a video, of which the same holds.
        resume: go on in the partial file of an interrupted run, if there is one.
    """
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
    """Yield inputs, frames of videos among them, whose names are not known yet."""
    for source in videos_as_frames(inputs, every_seconds):
        if _name(source) not in known:
            yield source


def _name(source: str | Frame | Problem) -> str:
    return source if isinstance(source, str) else source.name
