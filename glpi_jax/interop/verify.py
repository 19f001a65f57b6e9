"""The same images through an official checkpoint in PyTorch and through a workdir in JAX.

All that is asked of the authors' code: a class that is made without arguments, takes the official
state dict strictly, maps images (B, 3, crop, crop) to B scores, and computes with the layers that
the state dict names. What these take and give are the stages. (The class itself needs timm and
einops, and loads ImageNet weights when it is made: the network, or timm's cache, must have them.)
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from glpi_jax.core.config import importable
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.crops import Crops
from glpi_jax.data.images import list_images, read_image
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.models.glpi import GLPI, Size
from glpi_jax.models.pixels import normalise
from glpi_jax.weights.carried import carried_at, read_carried
from glpi_jax.weights.convert import flax_entries, official_arrays, read_weights
from glpi_jax.weights.torch_files import NO_TORCH, read_state
from glpi_jax.workflow.runs import load_best

AUTHORS_CLASS = "glintiqa.models.glintiqa:GlintIQA"


class Difference(NamedTuple):
    """How far a stage, or a weight, is from the official one.

    Attributes:
        name: of the stage or the official entry.
        largest: largest absolute difference.
        relative: the same in standard deviations of the official values.
        shapes: ours and the official one where they differ, with infinite differences.
    """

    name: str
    largest: float
    relative: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None


class WeightComparison(NamedTuple):
    """Entries of a workdir against an official file.

    Attributes:
        equal: number of entries that are equal to the last bit.
        different: the others, largest difference first.
        absent: official entries that the workdir does not keep; they never reach the score.
    """

    equal: int
    different: Sequence[Difference]
    absent: Sequence[str]


class Pair(NamedTuple):
    """An official file and a workdir of the same size.

    Attributes:
        official: the file's entries by official name.
        model: the workdir's.
        variables: its selected weights.
        carried: its entries that never reach the score; none where it keeps none.
    """

    official: Mapping[str, np.ndarray]
    model: GLPI
    variables: Mapping[str, Any]
    carried: Mapping[str, np.ndarray]


def open_pair(path: Path, workdir: Path) -> Pair:
    """Read what is to be compared.

    Raises:
        GlpiError: either cannot be read, or they are of different sizes.
    """
    file_model, official = read_weights(read_state(path), str(path))
    model, variables, selection = load_best(workdir, make_mesh(1))
    if file_model.size != model.size:
        raise GlpiError(
            f"{path} and {workdir} are of different sizes: {file_model.size} and {model.size}"
        )
    kept = read_carried(workdir)
    carried = carried_at(kept, int(selection["step"]), model, str(workdir)) if kept else {}
    return Pair(official, model, variables, carried)


def compare_weights(pair: Pair) -> WeightComparison:
    """Compare name by name."""
    ours = {**official_arrays(pair.variables, flax_entries(pair.model)), **pair.carried}
    equal, different = 0, []
    for name in (name for name in pair.official if name in ours):
        if np.array_equal(ours[name], pair.official[name]):
            equal += 1
        else:
            different.append(_difference(name, ours[name], pair.official[name]))
    different.sort(key=lambda difference: -difference.relative)
    return WeightComparison(equal, different, [n for n in pair.official if n not in ours])


def compare_stages(
    pair: Pair, repository: Path, torch_class: str, images: np.ndarray
) -> list[Difference]:
    """Run both models in float32 and compare every intermediate and the scores.

    Args:
        pair: the file's weights run in PyTorch on the CPU, the workdir's in JAX at the highest
            precision of the device.
        repository: folder to import the authors' code from.
        torch_class: "module:Class" in it.
        images: (B, crop, crop, 3) float32, normalised.

    Returns:
        The stages in the order of computation, the score last.

    Raises:
        GlpiError: PyTorch is missing, or the class cannot be imported, made, filled or run.
    """
    theirs = _run_torch(repository, torch_class, pair.official, pair.model.size, images)
    model = pair.model.clone(dtype=jnp.float32)
    with jax.default_matmul_precision("highest"):
        score, taps = jax.jit(model.apply)(pair.variables, images)
    ours = {**taps, "score": score}
    return [_difference(name, np.asarray(ours[name]), theirs[name]) for name in theirs]


def crops_to_compare(paths: Sequence[Path], crop: int) -> np.ndarray:
    """The central crop of each image, or of folders' images; without paths, four of noise.

    Returns:
        (B, crop, crop, 3) float32, normalised.

    Raises:
        GlpiError: a path is missing or no image.
    """
    if not paths:
        noise = np.random.default_rng(0).integers(0, 256, (4, crop, crop, 3), np.uint8)
        return np.asarray(normalise(jnp.asarray(noise)))
    crops = [
        Crops(1).cut(read_image(file, apply_orientation=True), crop, file.name)
        for file in list_images(paths)
    ]
    return np.asarray(normalise(jnp.asarray(np.concatenate(crops))))


def _difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    if ours.shape != theirs.shape:  # the ViT's classifier may have any number of classes
        return Difference(name, math.inf, math.inf, (ours.shape, theirs.shape))
    distance = np.abs(ours.astype(np.float64) - theirs).max()
    deviation = theirs.std(dtype=np.float64)
    if not deviation:  # a single value, or a constant
        deviation = np.abs(theirs).max() or 1.0
    return Difference(name, float(distance), float(distance / deviation))


def _run_torch(
    repository: Path,
    torch_class: str,
    arrays: Mapping[str, np.ndarray],
    size: Size,
    images: np.ndarray,
) -> dict[str, np.ndarray]:
    """Intermediates and scores of the authors' class, by our names."""
    try:
        import torch
    except ImportError as error:
        raise GlpiError(f"running the official model {NO_TORCH}") from error
    if not repository.is_dir():
        raise GlpiError(f"--torch-repo {repository}: no such folder")
    module_name, colon, class_name = torch_class.partition(":")
    if not (module_name and colon and class_name):
        raise GlpiError(f"--torch-class {torch_class}: must be module:Class")
    stages: dict[str, np.ndarray] = {}
    try:
        with importable(repository.resolve()):
            network = getattr(importlib.import_module(module_name), class_name)()
        network.load_state_dict({name: torch.tensor(a) for name, a in arrays.items()}, strict=True)
        network.eval()
        for stage, (layer, reading) in _readings(size).items():
            network.get_submodule(layer).register_forward_hook(_keeping(stages, stage, reading))
        with torch.inference_mode():
            scores = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        stages = {stage: stages[stage] for stage in _readings(size)}
        stages["score"] = scores.reshape(len(images)).numpy()
    except Exception as error:  # code of others, which may raise anything
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise GlpiError(f"{torch_class} of {repository} cannot be run ({cause})") from error
    return stages


def _readings(size: Size) -> dict[str, tuple[str, Any]]:
    """For each stage the layer that has it, and how to read it from what goes in and comes out."""

    def map_to_tokens(_: Any, output: Any) -> Any:
        return output.flatten(2).transpose(1, 2)  # (B, d, side, side) to (B, N, d)

    readings: dict[str, tuple[str, Any]] = {}
    for i, block in enumerate(size.taps):
        layer = f"vgfe.backbone.blocks.{block}"
        readings[f"vgfe_{i}"] = (layer, lambda _, output: output[:, 1:])
    for i in range(len(size.widths)):
        readings[f"clfe_{i}"] = (f"clfe.patch_embed{i + 1}.proj", map_to_tokens)
    readings["local"] = ("local_projection", lambda _, output: output)
    for i in range(len(size.taps)):
        readings[f"stage_{i}"] = (f"siem{i + 1}.conv", map_to_tokens)
    readings["pooled"] = ("quality_head.layers.0", lambda inputs, _: inputs[0])
    return readings


def _keeping(stages: dict[str, np.ndarray], stage: str, reading: Any) -> Any:
    def hook(_: Any, inputs: Any, output: Any) -> None:
        stages[stage] = reading(inputs, output).numpy()

    return hook
