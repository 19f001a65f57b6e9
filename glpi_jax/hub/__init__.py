"""Trained models: every place that one is read from, and the folder that one is published in."""

from glpi_jax.hub.card import Card
from glpi_jax.hub.folder import is_hub_folder, read_folder
from glpi_jax.hub.publish import push, save_folder
from glpi_jax.hub.sources import looks_like_a_model, read_model
from glpi_jax.hub.trained import TrainedModel

__all__ = [
    "Card",
    "TrainedModel",
    "is_hub_folder",
    "looks_like_a_model",
    "push",
    "read_folder",
    "read_model",
    "save_folder",
]
