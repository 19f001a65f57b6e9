"""What scoring gives: a score for each image, or what was wrong with it."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class ImageScore:
    """What became of one image: a score, or an error.

    Attributes:
        image: the path as given; for a frame of a video its name, for another image in memory its
            place in the call.
        score: mean over the crops, in the units of the labels the model was trained on.
        crop_std: standard deviation over the crops: how different the parts of the image are.
        note: what was done to an unusual image, in words.
        error: why the image has no score.
        standard_error: of the mean over the crops: how far the score may lie from that of other
            crops; None for a single crop. It takes the crops for independent; where they overlap
            it is too small.
        crops: how many crops were averaged.
    """

    image: str
    score: float | None = None
    crop_std: float | None = None
    note: str | None = None
    error: str | None = None
    standard_error: float | None = None
    crops: int | None = None


class Problem(NamedTuple):
    """Something that was named to be scored and is no image; its error takes an image's place."""

    name: str
    error: str
