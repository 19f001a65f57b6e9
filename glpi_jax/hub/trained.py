"""A trained model with what is known about its scores."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from glpi_jax.data.preprocessing import ASSUMED, Preprocessing
from glpi_jax.models.glpi import GLPI


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network, its weights, how it scores an image, and what the scores mean.

    Attributes:
        name: of its size, a key of `SIZES`.
        model: the network.
        variables: `params` and `batch_stats`, NumPy float32.
        preprocessing: of an image before crops are cut, as in the training.
        preprocessing_assumed: whether nothing recorded it, so that it may differ from the training.
        crops: crops of an image, on a regular grid, whose scores are averaged.
        batch_size: crops at a time.
        label_scale, label_shift: the network was trained on label_scale · label + label_shift;
            scores are mapped back. The scale is above 0.
        score_name: what the model predicts, "MOS" or "DMOS"; "score" where that is unknown.
        higher_is_better: whether a higher score means a better image, None where that is unknown.
        score_range: lowest and highest label of the scale that it was trained on, where known.
            Scores may lie outside.
        label_note: what the labels were, in plain words.
        card: the model card that it came with, where there is one.
    """

    name: str
    model: GLPI
    variables: Mapping[str, Any]
    crops: int
    batch_size: int
    score_name: str
    higher_is_better: bool | None
    label_note: str
    preprocessing: Preprocessing = ASSUMED
    preprocessing_assumed: bool = True
    label_scale: float = 1.0
    label_shift: float = 0.0
    score_range: tuple[float, float] | None = None
    card: str | None = None

    @property
    def meaning(self) -> str:
        """What a score says, as a line: "MOS, higher is better; training labels: …".

        The preprocessing follows unless it is recorded and changes nothing but the orientation.
        """
        text = f"{self.scale}; training labels: {self.label_note}"
        if self.preprocessing_assumed:
            return f"{text}; preprocessing assumed: {self.preprocessing.words}"
        if self.preprocessing.resize or not self.preprocessing.apply_orientation:
            return f"{text}; preprocessing as in training: {self.preprocessing.words}"
        return text

    @property
    def scale(self) -> str:
        """Name, direction and range of the scores: "MOS, 1 to 5, higher is better"."""
        words = [self.score_name]
        if self.score_range is not None:
            words.append("{:g} to {:g}".format(*self.score_range))
        if self.higher_is_better is not None:
            words.append(f"{'higher' if self.higher_is_better else 'lower'} is better")
        return ", ".join(words)
