"""A trained model on the devices, and the scores of images of any kind."""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, overload

import jax
import numpy as np

from glpi_jax.data.crops import Crops, Placement
from glpi_jax.distributed.mesh import make_mesh, replicated
from glpi_jax.evaluation.predict import Prediction, compile_scorer, in_label_units, predict
from glpi_jax.hub.sources import read_model
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.scoring.quality_map import Layout, QualityMap
from glpi_jax.scoring.reading import Reader, Source, is_single, name_of, read_pixels
from glpi_jax.scoring.results import ImageScore

_ERRORS_HELD = 64  # after as many, images that wait for a full batch are scored without


class Scorer:
    """A trained model on all devices, ready to score images.

    Attributes:
        score_name: "MOS" or "DMOS", the kind of label the model predicts; "score" if unknown.
        higher_is_better: whether a higher score means a better image, None if unknown.
        score_range: lowest and highest label of the scale that it was trained on, if known.
        label_note: what the labels are, in plain words.
        scale: name, range and direction of the scores in a few words.
        preprocessing: of an image before crops are cut, as in the model's training.
        preprocessing_assumed: whether the model does not say how its training did that.
        meaning: all of these in a line.
        crops: which crops of an image are averaged.
        crop: side of a crop in pixels.
    """

    def __init__(self, trained: TrainedModel, crops: Crops | None = None):
        """Put a model on the devices; `load` makes a scorer of anything that holds a model.

        Args:
            trained: the model.
            crops: which crops are averaged; None takes as many as the model came with, on a grid.
        """
        self.score_name = trained.score_name
        self.higher_is_better = trained.higher_is_better
        self.score_range = trained.score_range
        self.label_note = trained.label_note
        self.scale = trained.scale
        self.meaning = trained.meaning
        self.preprocessing = trained.preprocessing
        self.preprocessing_assumed = trained.preprocessing_assumed
        self._label_scale, self._label_shift = trained.label_scale, trained.label_shift
        self.crops = crops or Crops(trained.crops)
        self.crop = trained.model.size.crop
        self._model = trained.model
        self._mesh = make_mesh(-1)
        # Batches that the devices share evenly.
        self._batch_size = self._mesh.size * max(1, trained.batch_size // self._mesh.size)
        self._variables = jax.device_put(trained.variables, replicated(self._mesh))
        self._score_crops = compile_scorer(trained.model, self._mesh)

    @property
    def lower_better(self) -> bool | None:
        """Whether a lower score means a better image, None if unknown."""
        return None if self.higher_is_better is None else not self.higher_is_better

    @overload
    def score(self, images: Source) -> ImageScore: ...  # type: ignore[overload-overlap]
    @overload
    def score(self, images: Iterable[Source]) -> list[ImageScore]: ...
    def score(self, images: Source | Iterable[Source]) -> ImageScore | list[ImageScore]:
        """Score images; an unreadable one becomes an error and stops none of the others.

        Grey is repeated over RGB, transparency laid on white, 16 bits scaled to 8, CMYK converted,
        the first frame of an animation taken. The model's preprocessing follows, the same as in its
        training and evaluation: EXIF orientation is applied or not, the image is resized or not.
        An image smaller than the crop is mirrored outward.

        Args:
            images: one or several of: a path, an http(s) URL, a Pillow image, a uint8 array (of
                NumPy or JAX) of shape (height, width), (height, width, 3) or (height, width, 4),
                the bytes of an image file, a file opened with "rb", a frame that `video_frames`
                gives. An array with four axes is a batch of images.

        Returns:
            A result for a single image; for several a list, in order.

        Raises:
            TypeError: something is none of these.
        """
        results = self.score_iter(images)
        if is_single(images):
            (result,) = results
            return result
        return list(results)

    def score_iter(self, images: Source | Iterable[Source]) -> Iterator[ImageScore]:
        """Score images one after the other, as `score` does, giving each result as it comes.

        Images are asked for a few at a time, so that there may be any number of them. Files are
        read and decoded ahead by threads while the device computes. Crops of several images share
        a batch, so that a result comes when its batch is full, or after the last image.
        """
        sources: Iterable[Any] = [images] if is_single(images) else images  # type: ignore[assignment]
        count = self.crops.count
        ahead = math.ceil(self._batch_size / count)
        reader = Reader(self.crops, preprocessing=self.preprocessing, side=self.crop, ahead=ahead)
        readings = reader.read(sources)
        waiting: deque[ImageScore] = deque()  # read, and not yet given out
        finished = False

        def crops() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal finished
            errors = 0
            for index, (result, cut) in enumerate(readings):
                waiting.append(result)
                if cut is not None:
                    yield index, cut
                else:
                    errors += 1
                    if errors == _ERRORS_HELD:
                        return
            finished = True

        def leading_errors() -> Iterator[ImageScore]:
            while waiting and waiting[0].error is not None:
                yield waiting.popleft()

        with closing(readings):  # type: ignore[type-var]
            while not finished:
                for _, prediction in self._predict(crops()):
                    yield from leading_errors()
                    yield _scored(waiting.popleft(), prediction, count)
                yield from leading_errors()

    def quality_map(
        self,
        image: Source,
        *,
        stride: int | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> QualityMap:
        """Score every part of an image by overlapping crops.

        With a model whose preprocessing resizes, the map is that of the resized image.

        Args:
            image: as in `score`.
            stride: pixels from one crop to the next, 1 to the side of a crop; None is half a crop.
            on_progress: told the crops that are done, and how many there are.

        Raises:
            ImageError: the image cannot be read, or is too small.
            GlpiError: the stride is out of range.
            TypeError: it is no image, or the stride is no whole number.
        """
        layout = Layout(self.read_pixels(image), self.crop, stride)
        scores = np.empty(layout.count)
        single = ((index, crop[None]) for index, crop in enumerate(layout.crops()))
        for index, prediction in self._predict(single):
            scores[index] = prediction.score
            on_progress(index + 1, layout.count)
        return layout.average(scores)

    def read_pixels(self, image: Source) -> np.ndarray:
        """Return an image as crops are cut from it: (height, width, 3) uint8, preprocessed.

        What is returned can be scored again: the preprocessing leaves it as it is.

        Raises:
            ImageError: the image cannot be read, or is too small.
            TypeError: it is no image.
        """
        pixels = read_pixels(image, apply_orientation=self.preprocessing.apply_orientation)
        return self.preprocessing.resized(pixels, name_of(image))

    def fingerprint(self) -> str:
        """A text that is the same for the same network, weights and preprocessing, and no other."""
        settings = (
            self._model.size,
            str(self._model.dtype),
            self.preprocessing,
            self._label_scale,
            self._label_shift,
        )
        digest = hashlib.sha256(repr(settings).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._variables):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def _predict(self, crops: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[int, Prediction]]:
        """Predict in the units of the labels."""
        score, variables, mesh = self._score_crops, self._variables, self._mesh
        scale, shift = self._label_scale, self._label_shift
        for key, raw in predict(score, variables, crops, batch_size=self._batch_size, mesh=mesh):
            yield key, in_label_units(raw, label_scale=scale, label_shift=shift)


def _scored(result: ImageScore, prediction: Prediction, crops: int) -> ImageScore:
    score, std = prediction
    error = std / math.sqrt(crops - 1) if crops > 1 else None
    return replace(result, score=score, crop_std=std, standard_error=error, crops=crops)


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    crops: int | None = None,
    placement: Placement = "grid",
    seed: int = 0,
) -> Scorer:
    """Load a trained model on all devices.

    The paper's setting is `crops=25, placement="random"`.

    Args:
        source: a workdir, whose selected weights are taken; a hub folder; `hf://owner/name` or
            `hf://owner/name@revision` on the Hugging Face Hub; an official checkpoint, .pth, .pt
            or .safetensors, which says nothing about its preprocessing (assumed: size kept, EXIF
            orientation applied) and the scale of its scores; None for the weights
            that come with the package.
        crops: how many crops of an image are averaged; None takes the number that the model came
            with.
        placement: where they lie; see `Crops`.
        seed: of random crops; a grid has none.

    Raises:
        GlpiError: nothing of that kind is there, it cannot be read, or a number is out of range.
        TypeError: the source is no path, or a number is no whole one.
    """
    if not (source is None or isinstance(source, str | os.PathLike)):
        raise TypeError(
            f"source {source!r}: must be a path or hf://owner/name, not {type(source).__name__}"
        )
    trained = read_model(source)
    return Scorer(trained, Crops(trained.crops if crops is None else crops, placement, seed))
