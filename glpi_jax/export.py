"""A trained model as one file that scores crops with JAX alone: StableHLO by `jax.export`.

There is no ONNX: jax2onnx converts this model (scores equal to 2.4e-7), but its versions that know
the present JAX need an orbax-checkpoint older than this package does.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from glpi_jax import __version__
from glpi_jax.core import files
from glpi_jax.core.errors import GlpiError
from glpi_jax.hub.sources import read_model
from glpi_jax.hub.trained import TrainedModel
from glpi_jax.models.pixels import normalise

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT = 1


def export_model(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, force: bool = False
) -> dict[str, Any]:
    """Write a model, weights and normalisation included, as a serialised StableHLO program.

    `jax.export.deserialize(bytearray(content)).call(crops)` runs it on a CPU, GPU or TPU, without
    this package: crops (b, crop, crop, 3) uint8 in, their scores (b,) float32 out, for any b ≥ 1.
    The scores are in the units of the labels; the crops come from a preprocessed image. The score
    of an image is the mean over its crops. Beside the file goes FILE.json with what has
    to be known about it; a program without it was not written to the end.

    Args:
        source: see `read_model`.
        path: a file that ends in .stablehlo.
        force: replace an existing file.

    Returns:
        The content of FILE.json.

    Raises:
        GlpiError: the source cannot be read, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        raise GlpiError(
            f"{path}: ONNX cannot be written: jax2onnx needs an orbax-checkpoint older than this"
            f" package does; name a {SUFFIX} file"
        )
    if path.suffix != SUFFIX:
        raise GlpiError(f"{path}: must end in {SUFFIX}")
    files.check_output(path, force=force)
    trained = read_model(source)
    exported = export_scorer(trained)
    program = bytes(exported.serialize())
    description = _describe(trained, exported, program, path.name)
    sidecar = path.with_name(f"{path.name}.json")
    sidecar.unlink(missing_ok=True)
    files.write_bytes(path, program)
    files.write_json(sidecar, description)
    return description


def export_scorer(trained: TrainedModel) -> jax_export.Exported:
    """Lower a model for all of `PLATFORMS`: (b, crop, crop, 3) uint8 → (b,) float32 label units.

    The same model, JAX version and matmul precision give the same bytes.
    """

    def score(crops: jax.Array) -> jax.Array:
        raw: jax.Array = trained.model.apply(trained.variables, normalise(crops))[0]
        if (trained.label_scale, trained.label_shift) == (1, 0):
            return raw
        return (raw - trained.label_shift) / trained.label_scale

    crop = trained.model.size.crop
    (batch,) = jax_export.symbolic_shape("batch")
    crops = jax.ShapeDtypeStruct((batch, crop, crop, 3), jnp.uint8)
    # The paths and lines of the code would be part of the program.
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        return jax_export.export(jax.jit(score), platforms=PLATFORMS)(crops)
    finally:
        jax.config.update(name, before)


def _describe(
    trained: TrainedModel, exported: jax_export.Exported, program: bytes, name: str
) -> dict[str, Any]:
    crop = trained.model.size.crop
    return {
        "format": FORMAT,
        "file": name,
        "bytes": len(program),
        "sha256": hashlib.sha256(program).hexdigest(),
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "input": {
            "shape": ["batch", crop, crop, 3],
            "dtype": "uint8",
            "pixels": "RGB, 0 to 255; the program normalises them: (x/255 - 0.5)/0.5",
        },
        "preprocessing": {
            **trained.preprocessing.to_json(),
            "assumed": trained.preprocessing_assumed,
            "note": f"before crops are cut, not in the program: {trained.preprocessing.words}",
        },
        "output": {"shape": ["batch"], "dtype": "float32", "units": "those of the labels"},
        "scoring": {"crop": crop, "crops": trained.crops, "placement": "grid", "reduction": "mean"},
        "labels": {
            "score_name": trained.score_name,
            "higher_is_better": trained.higher_is_better,
            "score_range": trained.score_range,
            "scale": trained.label_scale,
            "shift": trained.label_shift,
            "label_note": trained.label_note,
        },
        "model": {
            "name": trained.name,
            "dtype": jnp.dtype(trained.model.dtype).name,
            "size": dataclasses.asdict(trained.model.size),
        },
        "versions": {
            "glpi_jax": __version__,
            **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
        },
    }
