"""A part of a database, scored: its crops, predictions, metrics, intervals."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from glpi_jax.core.progress import progress_bar
from glpi_jax.data.crops import Crops
from glpi_jax.data.loader import evaluation_crops
from glpi_jax.data.on_the_fly import distorting_of
from glpi_jax.data.preprocessing import Preprocessing
from glpi_jax.distributed.ranks import gather_parts, is_first, largest_part, own_part
from glpi_jax.evaluation.bootstrap import bootstrap_intervals
from glpi_jax.evaluation.logistic import full_metrics
from glpi_jax.evaluation.metrics import metrics_by_group
from glpi_jax.evaluation.predict import Prediction, ScoreCrops, in_label_units, predict
from glpi_jax.evaluation.protocols import Part, compares_raw
from glpi_jax.models.glpi import GLPI


def predict_part(
    config: ConfigDict,
    part: Part,
    score_crops: ScoreCrops,
    variables: Mapping[str, Any],
    model: GLPI,
    mesh: Mesh,
) -> list[Prediction]:
    """Predict a part, raw; several processes share its images, and all get all predictions."""
    rows = tuple(own_part(part.rows))
    crops = crops_of_part(config, replace(part, rows=rows or part.rows[:1]), model)
    own_size = config.evaluation.batch_size // jax.process_count()
    busiest = largest_part(len(part.rows)) * config.evaluation.crops
    predictions = []
    with progress_bar(
        len(rows),
        unit="image",
        description=f"score {part.name} part",
        leave=False,
        enabled=is_first(),
    ) as bar:
        for _, prediction in predict(
            score_crops,
            variables,
            crops,
            batch_size=config.evaluation.batch_size,
            mesh=mesh,
            batches=math.ceil(busiest / own_size),
        ):
            predictions.append(prediction)
            bar.advance()
    found = np.array(predictions[: len(rows)], np.float64).reshape(-1, 2)
    return [Prediction(*map(float, row)) for row in gather_parts(found, len(part.rows))]


def crops_of_part(config: ConfigDict, part: Part, model: GLPI) -> Iterator[tuple[int, np.ndarray]]:
    """Cut the test crops of a part: `(place in the part, crops (n, crop, crop, 3) uint8)`."""
    return evaluation_crops(
        part.database,
        part.rows,
        crop=model.size.crop,
        crops=Crops.of_config(config),
        preprocessing=Preprocessing.of_section(part.section, part.where),
        threads=config.data.threads,
        distorting=distorting_of(config),
    )


def _in_label_units(config: ConfigDict, predictions: list[Prediction]) -> list[Prediction]:
    scale, shift = config.data.label_scale, config.data.label_shift
    return [in_label_units(p, label_scale=scale, label_shift=shift) for p in predictions]


def compared_scores(config: ConfigDict, raw: list[Prediction]) -> np.ndarray:
    """Return what the metrics compare with the labels: (n,) float64, see `compares_raw`."""
    predictions = raw if compares_raw(config) else _in_label_units(config, raw)
    return np.array([prediction.score for prediction in predictions], np.float64)


def part_results(config: ConfigDict, part: Part, raw: list[Prediction]) -> dict[str, Any]:
    """Return what results.json says of a part, from its raw predictions."""
    database, rows = part.database, part.rows
    scores, predictions = compared_scores(config, raw), _in_label_units(config, raw)
    mos = database.scores[list(rows)]
    distortions = [database.distortions[row] for row in rows]
    known = [i for i, name in enumerate(distortions) if name is not None]
    intervals = {}
    if config.evaluation.bootstrap_resamples:
        intervals = bootstrap_intervals(
            scores,
            mos,
            seed=config.seed,
            resamples=config.evaluation.bootstrap_resamples,
            confidence=config.evaluation.confidence,
            # Where these stand alone, a reference is an image.
            groups=[database.references[row] for row in rows],
        )
    return {
        "database": database.name,
        "images": len(rows),
        "crops": config.evaluation.crops,
        "metrics": full_metrics(scores, mos),
        "intervals": intervals,
        "by_distortion": metrics_by_group(
            scores[known], mos[known], [str(distortions[i]) for i in known]
        ),
        "predictions": [
            {
                "image": database.images[row],
                "reference": database.references[row],
                "distortion": database.distortions[row],
                "level": database.levels[row],
                "mos": float(database.scores[row]),
                "predicted": prediction.score,
                "crop_std": prediction.crop_std,
            }
            for row, prediction in zip(rows, predictions, strict=True)
        ],
    }
