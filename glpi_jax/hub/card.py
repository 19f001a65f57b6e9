"""The model card: README.md of a hub folder, with front matter for the Hugging Face Hub."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.templates import template_environment
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.models.glpi import SIZES
from glpi_jax.report.tables import results_markdown
from glpi_jax.results.workdirs import is_test, parts_in_order
from glpi_jax.weights.convert import all_entries

REPOSITORY = "OWNER/NAME"  # in the examples, until the folder is uploaded
TAGS = ("image-quality-assessment", "no-reference-image-quality-assessment", "glpi", "jax", "flax")
# Metrics by the Hub's names, which have none for KRCC and RMSE.
_METRICS = {"spearmanr": ("SROCC", "srocc"), "pearsonr": ("PLCC", "plcc")}

_TEMPLATES = template_environment("glpi_jax.hub")
_LEFT_OUT = "entries that never reach the score are left out."
_FORM_NOTES = {
    "float32": "",
    "float16": " The weights are float16.",
    "int8": (
        " Large kernels are int8: times `NAME.int8_scale`, one number for each output, they are the"
        " weights."
    ),
}


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model card says that no run knows.

    Attributes:
        title: the heading; "GLPI, size …" if None.
        license: of the weights, as the Hub names it, "mit" for one; not stated if None.
        text: paragraphs, in Markdown, below the heading.
        score_range: lowest and highest label of the scale that the model was trained on.
    """

    title: str | None = None
    license: str | None = None
    text: str = ""
    score_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Raise a GlpiError unless the range rises."""
        if self.score_range is not None and not self.score_range[0] < self.score_range[1]:
            low, high = self.score_range
            raise GlpiError(f"score range {low:g} to {high:g}: give the lower end first")


def card_text(
    trained: TrainedModel, card: Card, results: Mapping[str, Any] | None, weights: str
) -> str:
    """Write the card of a model, with the content of its results.json, where there is one.

    `weights` is their form, see `weights_file`.
    """
    title = card.title or f"GLPI, size {trained.name}"
    return _TEMPLATES.get_template("card.md").render(
        card=card,
        title=title,
        front_matter=_front_matter(card, results, title),
        trained=trained,
        repository=REPOSITORY,
        form=f"{_LEFT_OUT}{_FORM_NOTES[weights]}",
        own=[entry.torch_name for entry in all_entries(trained.model) if not entry.official],
        # The size that the authors' code builds.
        official=trained.model.size == SIZES["glpi_s16"] and weights != "int8",
        results=results,
        results_table=None if results is None else results_markdown(results),
    )


def with_form(card: str, weights: str) -> str:
    """Return a card that `card_text` wrote with the note for another form of the weights."""
    for note in _FORM_NOTES.values():
        card = card.replace(f"{_LEFT_OUT}{note}", _LEFT_OUT) if note else card
    return card.replace(_LEFT_OUT, f"{_LEFT_OUT}{_FORM_NOTES[weights]}")


def _front_matter(card: Card, results: Mapping[str, Any] | None, title: str) -> dict[str, str]:
    """YAML by its keys, of which JSON's texts, numbers and lists are a part."""
    matter = {} if card.license is None else {"license": json.dumps(card.license)}
    matter |= {"library_name": "glpi_jax", "tags": json.dumps(TAGS)}
    if results is None:
        return matter
    matter["metrics"] = json.dumps([*_METRICS])
    tests = [part for name, part in parts_in_order(results) if is_test(name)]
    entries = []
    for part in tests:
        metrics = [
            {"type": metric, "name": name, "value": part["metrics"][key]}
            for metric, (name, key) in _METRICS.items()
            if part["metrics"][key] is not None
        ]
        if metrics:
            task = {"type": "image-quality-assessment", "name": "Image quality assessment"}
            dataset = {"type": part["database"], "name": part["database"]}
            entries.append({"task": task, "dataset": dataset, "metrics": metrics})
    if entries:
        index = [{"name": title, "results": entries}]
        matter["model-index"] = json.dumps(index, ensure_ascii=False)
    return matter
