"""Scores of photographs with a trained model: what `glpi score` and `glpi_jax.load` offer."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from glpi_jax.data.images import ImageError, list_images, read_image
from glpi_jax.data.transforms import grid_crops
from glpi_jax.errors import GlpiError
from glpi_jax.evaluation.predict import compile_scorer, predict
from glpi_jax.hub.sources import read_model
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.training.sharding import make_mesh, replicated

MIN_SIDE = 16  # pixels: one patch of the ViT; less shows nothing that could be judged


@dataclass(frozen=True)
class ImageScore:
    """What became of one image: a score, or an error.

    Attributes:
        image: the path as given.
        score: mean over the crops, on the scale of the labels the model was trained on.
        crop_std: standard deviation over the crops.
        note: what was done to an unusual image, in words.
        error: why the image has no score.
    """

    image: str
    score: float | None = None
    crop_std: float | None = None
    note: str | None = None
    error: str | None = None


class Scorer:
    """A trained model on all devices, ready to score images.

    Attributes:
        score_name: "MOS" or "DMOS", the kind of label the model predicts; "score" if unknown.
        higher_is_better: whether a higher score means a better image, None if unknown.
        score_range: lowest and highest label of the scale that it was trained on, if known.
        label_note: what the labels are, in plain words.
        meaning: all of these in a line.
    """

    def __init__(self, trained: TrainedModel):
        """Put a model on the devices; `load` makes a scorer of anything that holds a model."""
        self.score_name = trained.score_name
        self.higher_is_better = trained.higher_is_better
        self.score_range = trained.score_range
        self.label_note = trained.label_note
        self.meaning = trained.meaning
        self._crop = trained.model.size.crop
        self._crops = trained.crops
        self._mesh = make_mesh(-1)
        # Batches that the devices share evenly.
        self._batch_size = self._mesh.size * max(1, trained.batch_size // self._mesh.size)
        self._variables = jax.device_put(trained.variables, replicated(self._mesh))
        self._score_crops = compile_scorer(trained.model, self._mesh)

    def score(self, paths: Sequence[str | os.PathLike[str]]) -> list[ImageScore]:
        """Score image files; an unreadable one becomes an error and stops none of the others.

        Grey is repeated over RGB, transparency laid on white, 16 bits scaled to 8, CMYK converted,
        EXIF orientation applied. Crops lie on a regular grid over the image, so that a score
        depends on the pixels alone; an image smaller than the crop is mirrored outward.

        Args:
            paths: image files.

        Returns:
            One result for each path, in order.
        """
        results: dict[int, ImageScore] = {}
        notes: dict[int, str | None] = {}

        def crops() -> Iterator[tuple[int, np.ndarray]]:
            for i, path in enumerate(paths):
                try:
                    image = read_image(path, apply_orientation=True)
                    notes[i] = self._note(image, path)
                except ImageError as error:
                    results[i] = ImageScore(os.fspath(path), error=str(error))
                else:
                    yield i, grid_crops(image, self._crop, self._crops)

        for i, prediction in predict(
            self._score_crops,
            self._variables,
            crops(),
            batch_size=self._batch_size,
            mesh=self._mesh,
        ):
            score, std = prediction
            results[i] = ImageScore(os.fspath(paths[i]), score, std, notes[i])
        return [results[i] for i in range(len(paths))]

    def score_files_and_folders(self, paths: Sequence[str | os.PathLike[str]]) -> list[ImageScore]:
        """Score image files and the images of folders; `list_images` says which these are.

        Returns:
            One result for each image, in the order of the arguments; a path that is missing and a
            folder without images are results with an error.
        """
        problems: dict[Path, str | None] = {}  # None: an image to be read
        for path in paths:
            try:
                problems |= dict.fromkeys(list_images([path]))
            except GlpiError as error:
                problems[Path(path)] = str(error)
            except OSError as error:
                problems[Path(path)] = f"{path}: cannot be read ({error.strerror})"
        scored = iter(self.score([path for path, error in problems.items() if error is None]))
        return [
            next(scored) if error is None else ImageScore(str(path), error=error)
            for path, error in problems.items()
        ]

    def _note(self, image: np.ndarray, path: str | os.PathLike[str]) -> str | None:
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise ImageError(
                f"{os.fspath(path)}: {width}×{height} pixels are too few to judge; the least is "
                f"{MIN_SIDE}×{MIN_SIDE}"
            )
        if min(height, width) < self._crop:
            return f"{width}×{height}, smaller than the crop: mirrored to {self._crop} pixels"
        return None


def load(source: str | os.PathLike[str] | None = None) -> Scorer:
    """Load a trained model on all devices.

    Args:
        source: a workdir, whose selected weights are taken; a hub folder; `hf://owner/name` or
            `hf://owner/name@revision` on the Hugging Face Hub; an official checkpoint, .pth, .pt
            or .safetensors, which says nothing about the scale of its scores; None for the
            demonstration weights that come with the package.

    Raises:
        GlpiError: nothing of that kind is there, or it cannot be read.
    """
    return Scorer(read_model(source))
