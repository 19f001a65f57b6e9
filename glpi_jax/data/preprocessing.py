"""What happens to the pixels of an image before crops are cut: in training, evaluation and scoring.

Images are (height, width, 3) uint8 arrays, RGB from 0 to 255.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import ImageError
from glpi_jax.data.transforms import RESIZE_METHODS, ResizeMethod, resize

MAX_PIXELS = 2**28  # of a resized image
RESIZE_FORMS = "(), (side,) or (height, width) in pixels"


@dataclass(frozen=True)
class Preprocessing:
    """How an image is turned and resized before crops are cut from it.

    Attributes:
        resize: () keeps the size; (height, width) in pixels is the exact size, whatever the
            aspect; (side,) reduces a larger image until its shorter side has `side` pixels and
            keeps the aspect; smaller images keep their size, since enlarging adds nothing.
        method: interpolation of the resize, "bilinear" or "bicubic", antialiased when shrinking.
        apply_orientation: turn an image file as its EXIF orientation says.
    """

    resize: tuple[int, ...]
    method: ResizeMethod
    apply_orientation: bool

    def __post_init__(self) -> None:
        """Raise a GlpiError if the resize is none of the three forms, or its method unknown."""
        if self.method not in RESIZE_METHODS:
            raise GlpiError(
                f"resize_method = '{self.method}': choose one of {', '.join(RESIZE_METHODS)}"
            )
        if not is_resize(self.resize):
            raise GlpiError(f"resize = {self.resize}: must be {RESIZE_FORMS}")

    @classmethod
    def of_section(cls, section: ConfigDict | Mapping[str, Any], where: str) -> "Preprocessing":
        """Take the preprocessing from a data section of a config.

        Args:
            section: of the config or its saved dict, with `resize`, `resize_method` and
                `apply_orientation`.
            where: name of the section in errors, such as "config.data".

        Raises:
            GlpiError: an invalid value; the key is named.
        """
        size = tuple(section["resize"])
        try:
            return cls(size, section["resize_method"], bool(section["apply_orientation"]))
        except GlpiError as error:
            raise GlpiError(f"{where}.{error}") from error

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Take the preprocessing from what `to_json` returned; raise a GlpiError if it is bad."""
        return cls(tuple(values["resize"]), values["method"], values["apply_orientation"])

    def to_json(self) -> dict[str, Any]:
        """Return the values as a dict that fits JSON."""
        return {**asdict(self), "resize": list(self.resize)}

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels that an image of this height and width gets.

        With (side,) the longer side is rounded to the nearest pixel, half a pixel up.
        """
        if len(self.resize) == 2:
            return self.resize[0], self.resize[1]
        if not self.resize:
            return height, width
        (side,) = self.resize
        shorter, longer = min(height, width), max(height, width)
        if shorter <= side:
            return height, width
        longer = max(side, (2 * longer * side + shorter) // (2 * shorter))
        return (side, longer) if height <= width else (longer, side)

    def resized(self, image: np.ndarray, name: str) -> np.ndarray:
        """Resize one image.

        Args:
            image: (height, width, 3) uint8, at least one pixel.
            name: of the image in errors.

        Returns:
            (new height, new width, 3) uint8, the image itself where the size stays.

        Raises:
            ImageError: the resized image would have more than `MAX_PIXELS` pixels.
        """
        if not self.resize:
            return image
        height, width = self.size_of(*image.shape[:2])
        if height * width > MAX_PIXELS:
            raise ImageError(
                f"{name}: would be resized to {width}×{height} pixels, the most is"
                f" {MAX_PIXELS / 1e6:.0f} megapixels"
            )
        return resize(image, height, width, method=self.method)

    @property
    def words(self) -> str:
        """Describe the preprocessing: "size kept, EXIF orientation applied"."""
        if not self.resize:
            size = "size kept"
        elif len(self.resize) == 1:
            size = f"shorter side reduced to at most {self.resize[0]} pixels, {self.method}"
        else:
            height, width = self.resize
            size = f"resized to height {height} and width {width} pixels, {self.method}"
        return f"{size}, EXIF orientation {'applied' if self.apply_orientation else 'not applied'}"


def is_resize(value: object) -> bool:
    """Return whether a tuple is one of the three forms of a resize."""
    return (
        isinstance(value, tuple)
        and len(value) <= 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    )


# Of a model that does not say how its training images were preprocessed.
ASSUMED = Preprocessing((), "bilinear", apply_orientation=True)
