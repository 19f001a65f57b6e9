"""Scores of photographs with a trained model: what `glpi score` and `glpi_jax.load` offer."""

from glpi_jax.data.crops import PAPER_CROPS, Crops
from glpi_jax.scoring.quality_map import QualityMap
from glpi_jax.scoring.reading import MIN_SIDE, Source
from glpi_jax.scoring.results import ImageScore, Problem
from glpi_jax.scoring.scorer import Scorer, load
from glpi_jax.scoring.video import Frame, video_frames

__all__ = [
    "MIN_SIDE",
    "PAPER_CROPS",
    "Crops",
    "Frame",
    "ImageScore",
    "Problem",
    "QualityMap",
    "Scorer",
    "Source",
    "load",
    "video_frames",
]
