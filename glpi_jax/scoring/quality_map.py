"""Scores of every part of an image: overlapping crops, averaged where they lie over each other."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.crops import check_whole
from glpi_jax.data.transforms import pad_to_crop


@dataclass(frozen=True, eq=False)
class QualityMap:
    """How good each part of an image is.

    The edges of all crops divide the image into rectangles; in each of them every pixel lies in the
    same crops, and has their mean score.

    Attributes:
        image: (height, width, 3) uint8, what was scored: the photograph after the model's
            preprocessing, whose resize may have changed its size and aspect.
        scores: (rows, columns) float64, of the rectangles.
        row_edges: (rows + 1,) int, pixels from the top, from 0 to the height.
        column_edges: (columns + 1,) int, pixels from the left, from 0 to the width.
        crop_scores: (crops down, crops across) float64.
        stride: pixels from one crop to the next.
    """

    image: np.ndarray
    scores: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray
    crop_scores: np.ndarray
    stride: int

    def resized(self, height: int, width: int) -> np.ndarray:
        """The scores at the centres of (height, width) pixels laid over the image, float64."""
        rows = _cells_at_centres(self.row_edges, height)
        columns = _cells_at_centres(self.column_edges, width)
        return self.scores[np.ix_(rows, columns)]

    def at_pixels(self) -> np.ndarray:
        """The score of each pixel of the image: (height, width) float64."""
        return self.resized(*self.image.shape[:2])


class Layout:
    """Crops that lie from edge to edge; the last of a row may be nearer to its neighbour.

    Attributes:
        count: number of crops.
        tops, lefts: pixels from the edges of the image, mirrored outward where it is smaller than
            a crop, to those of the crops.
    """

    def __init__(self, image: np.ndarray, crop: int, stride: int | None):
        """Lay the crops.

        Args:
            image: (height, width, 3) uint8.
            crop: side of a crop in pixels.
            stride: pixels from one crop to the next; None is half a crop.

        Raises:
            GlpiError: the stride is below 1, or above the crop, which would leave gaps.
            TypeError: it is no whole number.
        """
        if stride is None:
            stride = max(1, crop // 2)
        check_whole("stride", stride)
        if not 1 <= stride <= crop:
            raise GlpiError(f"stride {stride}: must be 1 to {crop} pixels, the side of a crop")
        self._image, self._padded = image, pad_to_crop(image, crop)
        self._crop, self._stride = crop, stride
        self.tops, self.lefts = (
            np.unique([*range(0, side - crop, stride), side - crop])
            for side in self._padded.shape[:2]
        )
        self.count = len(self.tops) * len(self.lefts)

    def crops(self) -> Iterator[np.ndarray]:
        """The (crop, crop, 3) uint8 crops, row by row."""
        for top in self.tops:
            for left in self.lefts:
                yield self._padded[top : top + self._crop, left : left + self._crop]

    def average(self, scores: np.ndarray) -> QualityMap:
        """The map that the scores of the crops make, (count,) float64 in their order."""
        crop_scores = scores.reshape(len(self.tops), len(self.lefts))
        height, width = self._image.shape[:2]
        # Of an image that was mirrored outward only the image itself is in the map.
        above = (self._padded.shape[0] - height) // 2
        beside = (self._padded.shape[1] - width) // 2
        row_edges, down = _cells(self.tops - above, self._crop, height)
        column_edges, across = _cells(self.lefts - beside, self._crop, width)
        total = down @ crop_scores @ across.T
        number = down.sum(1)[:, None] * across.sum(1)[None, :]
        return QualityMap(
            self._image, total / number, row_edges, column_edges, crop_scores, self._stride
        )


def _cells(starts: np.ndarray, crop: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the cells along one axis, and which crop covers which: (cells, crops) 0 or 1."""
    edges = np.unique(np.concatenate([starts, starts + crop]).clip(0, length))
    covered = (starts[None, :] <= edges[:-1, None]) & (edges[1:, None] <= starts[None, :] + crop)
    return edges, covered.astype(np.float64)


def _cells_at_centres(edges: np.ndarray, count: int) -> np.ndarray:
    centres = (np.arange(count) + 0.5) * edges[-1] / count
    return np.searchsorted(edges, centres, side="right") - 1
