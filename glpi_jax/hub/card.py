"""The model card: README.md of a hub folder, with front matter for the Hugging Face Hub."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from glpi_jax.core.errors import GlpiError
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.models.glpi import SIZES
from glpi_jax.report.tables import results_markdown
from glpi_jax.results.workdirs import is_test, parts_in_order
from glpi_jax.weights.convert import all_entries

REPOSITORY = "OWNER/NAME"  # in the examples, until the folder is uploaded
TAGS = ("image-quality-assessment", "no-reference-image-quality-assessment", "glpi", "jax", "flax")
# Metrics by the Hub's names, which have none for KRCC and RMSE.
_METRICS = {"spearmanr": ("SROCC", "srocc"), "pearsonr": ("PLCC", "plcc")}

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
    """Write the card of a model.

    Args:
        trained: the model.
        card: what is known besides.
        results: the content of the run's results.json, where there is one.
        weights: form of the weights, see `weights_file`.
    """
    title = card.title or f"GLPI, size {trained.name}"
    lines = ["---", *_front_matter(card, results, title), "---", "", f"# {title}", ""]
    if card.text:
        lines += [card.text.strip(), ""]
    labels = trained.label_note.rstrip(".")
    lines += [
        "No-reference image quality assessment with GLPI (the paper's GlintIQA, "
        "[arXiv 2408.03885](https://arxiv.org/abs/2408.03885)), in the form of glpi_jax.",
        "",
        f"A score is the mean over {trained.crops} crops of {trained.model.size.crop} pixels on a "
        f"regular grid: {trained.scale}. Training labels: {labels}. Preprocessing before the crops"
        f"{', assumed' if trained.preprocessing_assumed else ''}: {trained.preprocessing.words}.",
        "",
        "```bash",
        f"glpi score hf://{REPOSITORY} photo.jpg",
        "```",
        "",
        "```python",
        "import glpi_jax",
        "",
        f'scorer = glpi_jax.load("hf://{REPOSITORY}")',
        'print(scorer.score(["photo.jpg"]))',
        "```",
        "",
        "`model.safetensors` has the names and the layout of the official PyTorch state dict; "
        f"{_LEFT_OUT}{_FORM_NOTES[weights]}",
        "",
    ]
    own = [entry.torch_name for entry in all_entries(trained.model) if not entry.official]
    if own:
        lines += [f"Not in the official model, by their Flax paths: {', '.join(own)}.", ""]
    # The size that the authors' code builds.
    if trained.model.size == SIZES["glpi_s16"] and weights != "int8" and not own:
        lines += ["The authors' model takes it with `load_state_dict(..., strict=False)`.", ""]
    if results is not None:
        lines += ["## Results", "", results_markdown(results), ""]
        if results["protocol"] == "official":
            lines += ["The official protocol selects the epoch on the test part itself.", ""]
    return "\n".join(lines)


def with_form(card: str, weights: str) -> str:
    """Return a card that `card_text` wrote with the note for another form of the weights."""
    for note in _FORM_NOTES.values():
        card = card.replace(f"{_LEFT_OUT}{note}", _LEFT_OUT) if note else card
    return card.replace(_LEFT_OUT, f"{_LEFT_OUT}{_FORM_NOTES[weights]}")


def _front_matter(card: Card, results: Mapping[str, Any] | None, title: str) -> Iterator[str]:
    """YAML, of which JSON's texts, numbers and lists are a part."""
    if card.license is not None:
        yield f"license: {json.dumps(card.license)}"
    yield "library_name: glpi_jax"
    yield f"tags: {json.dumps(TAGS)}"
    if results is None:
        return
    yield f"metrics: {json.dumps([*_METRICS])}"
    tests = [part for name, part in parts_in_order(results) if is_test(name)]
    entries = [entry for part in tests if (entry := _model_index(part))["metrics"]]
    if entries:
        index = [{"name": title, "results": entries}]
        yield f"model-index: {json.dumps(index, ensure_ascii=False)}"


def _model_index(part: Mapping[str, Any]) -> dict[str, Any]:
    """Results on one test part, as the Hub's `model-index` has them."""
    return {
        "task": {"type": "image-quality-assessment", "name": "Image quality assessment"},
        "dataset": {"type": part["database"], "name": part["database"]},
        "metrics": [
            {"type": metric, "name": name, "value": part["metrics"][key]}
            for metric, (name, key) in _METRICS.items()
            if part["metrics"][key] is not None
        ],
    }
