"""SAQT's retrieval: each photograph gets the KADID-10k references that look most like it.

Source: arXiv 2408.03885 (semantic-aligned quality transfer) and the authors' similarity tables. A
photograph's semantic vector is ImageNet's ResNet-101 after global average pooling, at unit length;
the references with the largest cosine similarity are its matches.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_text
from glpi_jax.core.progress import progress_bar
from glpi_jax.data.images import ImageError, list_images
from glpi_jax.data.sources.manifest import is_rendered
from glpi_jax.models.resnet import ResNet
from glpi_jax.saqt.feature_store import PHOTOGRAPHS_PER_SHARD, FeatureStore, list_digest
from glpi_jax.saqt.features import FeatureExtractor, ReadyPhotograph, read_photographs
from glpi_jax.saqt.labels import OLD_MATCHES, Columns

_NEW_MATCHES = (
    "source_image",
    "source_path",
    "target_reference",
    "target_reference_path",
    "semantic_distance",
    "cosine_similarity",
    "rank",
)
_KADID_DISTORTED = re.compile(r"I\d\d_\d\d_\d\d\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Retrieved:
    """A photograph and its most similar references, best first.

    Attributes:
        photograph: its file.
        references: files of the references.
        similarities: their cosine similarities, in [-1, 1].
    """

    photograph: Path
    references: tuple[Path, ...]
    similarities: tuple[float, ...]


def list_photographs(path: Path) -> list[Path]:
    """The photographs of a folder, or of a text file with a path on each line, sorted by name.

    A folder is searched recursively, rendered folders in it left out. Paths in a text file are
    relative to the file's folder.

    Raises:
        GlpiError: nothing there, or two photographs whose names differ at most in suffix or folder:
            SAQT's tables and distorted images tell photographs apart by their names alone.
    """
    if path.is_dir():
        return _by_name(list_images([path], skip=is_rendered), path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GlpiError(
            f"{path}: neither a folder of photographs nor a text file with a path on each line"
            f" ({error})"
        ) from error
    photographs = [path.parent / line.strip() for line in lines if line.strip()]
    if not photographs:
        raise GlpiError(f"{path}: lists no photograph")
    return _by_name(photographs, path)


def list_references(folder: Path) -> list[Path]:
    """The reference images of a folder, sorted by name.

    In KADID-10k's `images` folder these are I01.png to I81.png; its distorted images I01_01_01.png
    and so on are left out.

    Raises:
        GlpiError: no such folder, no reference in it, or two of the same name.
    """
    references = [p for p in list_images([folder]) if not _KADID_DISTORTED.fullmatch(p.name)]
    if not references:
        raise GlpiError(f"{folder}: only distorted images of KADID-10k, no reference (I01.png)")
    return _by_name(references, folder)


def _by_name(paths: Sequence[Path], where: Path) -> list[Path]:
    known: dict[str, Path] = {}
    for path in paths:
        other = known.setdefault(path.stem, path)
        if other is not path:
            raise GlpiError(f"{where}: {other} and {path} have the same name; rename one of them")
    return sorted(paths, key=lambda path: path.name)


def retrieve(
    photographs: Sequence[Path],
    references: Sequence[Path],
    resnet: ResNet,
    variables: Any,
    mesh: Mesh,
    *,
    weights: dict[str, str],
    folder: Path,
    top: int,
    batch_size: int,
    max_pixels: int | None,
    skip_bad: bool,
    threads: int,
    tell: Callable[[str], None],
) -> list[Retrieved]:
    """Match photographs with references, going on where an earlier call was stopped.

    Args:
        photographs: from `list_photographs`.
        references: from `list_references`.
        resnet: the network of the semantic vectors.
        variables: its `params` and `batch_stats`.
        mesh: devices of this process; batches are split over all of its axes.
        weights: what tells these weights from others, recorded with the vectors.
        folder: where the vectors are kept, 8 kB a photograph. Vectors of the same photographs
            serve other references and another `top` too.
        top: references for each photograph.
        batch_size: images of 512×384 pixels on each device at a time.
        max_pixels: reduce larger photographs to this many pixels; None, as the authors: never.
        skip_bad: leave out photographs that cannot be read, and tell of each.
        threads: photographs decoded at a time.
        tell: takes each line on a photograph left out.

    Returns:
        one for each photograph that could be read, in order. Among equal similarities the
        reference whose name comes first is the better one.

    Raises:
        GlpiError: an unreadable photograph (unless left out) or reference, more references asked
            than there are, vectors of other weights or photographs in `folder`.
    """
    if not 1 <= top <= len(references):
        raise GlpiError(f"--top {top}: must lie in 1 … {len(references)}, the number of references")
    if max_pixels is not None and max_pixels < 1:
        raise GlpiError(f"--max-pixels {max_pixels}: must be at least 1")
    if threads < 1:
        raise GlpiError(f"--threads {threads}: must be at least 1")
    extractor = FeatureExtractor(resnet, variables, mesh, batch_size=batch_size)
    read = partial(read_photographs, max_pixels=max_pixels, threads=threads)
    # Both are opened before anything is computed: what is wrong with them shows at once.
    made_with = (extractor.dimension, {"weights": weights, "max_pixels": max_pixels})
    source = FeatureStore(folder / "photographs", photographs, *made_with)
    digest = list_digest(references)[:8]
    target = FeatureStore(folder / f"references_{digest}", references, *made_with)
    _fill(target, extractor, read, tell, description="references", skip_bad=False)
    _fill(source, extractor, read, tell, description="photographs", skip_bad=skip_bad)
    return _ranked(source, target, mesh, top)


def _fill(
    store: FeatureStore,
    extractor: FeatureExtractor,
    read: Callable[[Sequence[Path]], Iterator[ReadyPhotograph | ImageError]],
    tell: Callable[[str], None],
    *,
    description: str,
    skip_bad: bool,
) -> None:
    """Compute the vectors that a store lacks."""
    for path, message in store.earlier_errors:
        if not skip_bad:
            raise GlpiError(
                f"{message} (found when {path} was written; once the photograph is repaired, delete"
                " that file)"
            )
        tell(message)
    rows = store.unfinished()
    total = len(store.photographs)
    with progress_bar(
        total, unit="image", description=description, initial=total - len(rows)
    ) as bar:

        def images() -> Iterator[tuple[tuple[int, tuple[int, int]], np.ndarray]]:
            photographs = read([store.photographs[row] for row in rows])
            for row, photograph in zip(rows, photographs, strict=True):
                if isinstance(photograph, ImageError):
                    if not skip_bad:
                        raise photograph
                    tell(str(photograph))
                    store.put(row, error=str(photograph))
                    bar.advance()
                else:
                    yield (row, photograph.size), photograph.image

        for keys, vectors in extractor(images()):
            for (row, size), vector in zip(keys, vectors, strict=True):
                store.put(row, vector, size)
            bar.advance(len(keys))


def _ranked(source: FeatureStore, target: FeatureStore, mesh: Mesh, top: int) -> list[Retrieved]:
    """All readable photographs with their best references."""
    references = np.concatenate([target.read(i).vectors for i in range(len(target.shards))])
    rank = compile_ranking(mesh, top)
    # Blocks of one size, so that one program ranks all: a multiple of the devices.
    block = -(-PHOTOGRAPHS_PER_SHARD // mesh.size) * mesh.size
    found = []
    for number, rows in enumerate(source.shards):
        shard = source.read(number)
        vectors = np.zeros((block, references.shape[1]), np.float32)
        vectors[: len(rows)] = shard.vectors
        similarities, indices = (np.asarray(part) for part in rank(vectors, references))
        found += [
            Retrieved(
                source.photographs[row],
                tuple(target.photographs[index] for index in indices[place]),
                tuple(similarities[place].tolist()),
            )
            for place, row in enumerate(rows)
            if not shard.errors[place]
        ]
    if not found:
        raise GlpiError(f"none of {len(source.photographs)} photographs could be read")
    return found


def compile_ranking(
    mesh: Mesh, top: int
) -> Callable[[np.ndarray, np.ndarray], tuple[jax.Array, jax.Array]]:
    """Jit the ranking of references by cosine similarity over a mesh.

    The function takes unit vectors of photographs (P, d), P a multiple of the devices, and of
    references (R, d), float32. It returns the `top` largest cosines (P, top) float32, clipped to
    [-1, 1], largest first, and the references' indices (P, top) int32; of equal cosines the smaller
    index comes first.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

    def rank(photographs: jax.Array, references: jax.Array) -> tuple[jax.Array, jax.Array]:
        cosines = jnp.matmul(photographs, references.T, precision="highest")
        similarities, indices = jax.lax.top_k(jnp.clip(cosines, -1, 1), top)
        return similarities, indices

    return jax.jit(rank, in_shardings=(split, whole), out_shardings=split)


def write_matches(path: Path, matches: Sequence[Retrieved], *, columns: Columns) -> None:
    """Write the official similarity table, which `glpi_jax.saqt.labels.read_matches` reads.

    Args:
        path: replaced in one step.
        matches: from `retrieve`.
        columns: "old" (kadis, kadid-10k, sim_value), the best reference alone; "new"
            (source_image, source_path, target_reference, target_reference_path,
            semantic_distance, cosine_similarity, rank), where rank counts from 1 and
            semantic_distance is 1 − cosine_similarity.

    Raises:
        GlpiError: several references for the old columns, or the file cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(OLD_MATCHES if columns == "old" else _NEW_MATCHES)
    for match in matches:
        if columns == "old" and len(match.references) > 1:
            raise GlpiError("the old columns hold one reference for each photograph: take --top 1")
        ranked = zip(match.references, match.similarities, strict=True)
        for rank, (reference, similarity) in enumerate(ranked, 1):
            source, name, distance = match.photograph, reference.name, 1 - similarity
            if columns == "old":
                table.writerow([source.name, name, similarity])
            else:
                table.writerow([source.name, source, name, reference, distance, similarity, rank])
    write_text(path, text.getvalue())
