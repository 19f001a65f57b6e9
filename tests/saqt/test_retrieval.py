"""Retrieval: vectors of mixed sizes, stops and restarts, ranking, the official table."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image
from safetensors.numpy import save_file

from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.data.images import read_image
from glpi_jax.data.transforms import resize
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.models.resnet import ResNet, semantic_vectors
from glpi_jax.saqt import feature_store, features, retrieval
from glpi_jax.saqt.features import FeatureExtractor, padded_shape
from glpi_jax.saqt.labels import Match, read_matches
from glpi_jax.saqt.retrieval import (
    Retrieved,
    compile_ranking,
    list_photographs,
    list_references,
    retrieve,
    write_matches,
)
from glpi_jax.weights.backbones import RESNETS, ResNetSize
from glpi_jax.weights.torch_names import CONV, to_torch_name

TINY = ResNetSize(4, (3, 5), (1, 1))  # two stages: retrieval does not care
NETWORK = ResNet(
    stem=TINY.stem,
    widths=TINY.widths,
    blocks=TINY.blocks,
    inference_stages=(),
    dtype=jnp.float32,
)
WEIGHTS = {"name": "tiny", "sha256": "0" * 64}
# (height, width): three padded shapes, odd sides.
SIZES = [(32, 32), (31, 60), (9, 20), (61, 33), (17, 64)]


@pytest.fixture(scope="module", autouse=True)
def compile_once(shared_compilations: dict[str, str]) -> None:
    """Extractors of the same network share their programs."""


@pytest.fixture(scope="module")
def variables() -> Any:
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(
        lambda: NETWORK.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False)
    )
    drawn = jax.tree.map(lambda x: rng.normal(0, 0.6, x.shape).astype(np.float32), shapes)
    statistics = jax.tree.map(np.abs, drawn["batch_stats"])
    return {"params": drawn["params"], "batch_stats": statistics}


def save_photographs(folder: Path, count: int, *, seed: int, prefix: str) -> list[Path]:
    """Coloured noise on colour gradients, so that vectors differ."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        height, width = SIZES[i % len(SIZES)]
        gradient = np.linspace(rng.uniform(0, 255, 3), rng.uniform(0, 255, 3), width)
        pixels = gradient[None] + rng.normal(0, rng.uniform(0, 60), (height, width, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{prefix}{i:02d}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("retrieval") / "photographs"
    return save_photographs(folder, 14, seed=0, prefix="p")


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("kadid10k") / "images"
    files = save_photographs(folder, 5, seed=1, prefix="I")
    Image.new("RGB", (32, 32)).save(folder / "I01_07_03.png")
    return files


@pytest.fixture(scope="module")
def expected(variables: Any) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Vectors of images computed one by one at their own size."""
    run = jax.jit(lambda image, size: semantic_vectors(NETWORK, variables, image, size))

    def compute(images: Sequence[np.ndarray]) -> np.ndarray:
        sizes = [np.array([image.shape[:2]], np.int32) for image in images]
        pairs = zip(images, sizes, strict=True)
        return np.concatenate([run(image[None], size) for image, size in pairs])

    return compute


def read_all(paths: Sequence[Path]) -> list[np.ndarray]:
    return [read_image(path, apply_orientation=True) for path in paths]


@pytest.mark.parametrize("devices", [1, 2])
def test_vectors_of_mixed_sizes_on_any_mesh(
    variables: Any, photographs: list[Path], expected: Callable[..., np.ndarray], devices: int
) -> None:
    images = read_all(photographs)
    extractor = FeatureExtractor(NETWORK, variables, make_mesh(devices), batch_size=2)
    found: dict[int, np.ndarray] = {}
    for keys, vectors in extractor(enumerate(images)):
        assert vectors.shape == (len(keys), extractor.dimension)
        assert not found.keys() & set(keys)
        found |= dict(zip(keys, vectors, strict=True))
    assert sorted(found) == list(range(len(images)))
    vectors = np.stack([found[i] for i in range(len(images))])
    np.testing.assert_allclose(vectors, expected(images), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(np.corrcoef(vectors) - 1).max() > 0.01  # the photographs can be told apart
    shapes = {padded_shape(*image.shape[:2]) for image in images}
    assert extractor._compute._cache_size() == len(shapes) == 3


def test_few_padded_shapes_and_little_padding() -> None:
    sides = [padded_shape(side, 1)[0] for side in range(1, 8193)]
    assert sides == sorted(sides)
    assert len(set(sides)) == 28  # of 784 shapes
    assert all(padded < max(1.25 * side, side + 32) for side, padded in enumerate(sides, 1))
    assert padded_shape(384, 512) == (384, 512)
    assert padded_shape(385, 513) == (448, 640)
    assert padded_shape(1, 32) == (32, 32)


def test_batches_hold_fewer_images_of_large_shapes(variables: Any) -> None:
    extractor = FeatureExtractor(NETWORK, variables, make_mesh(2), batch_size=8)
    counts = [
        extractor.images_in_batch(s) for s in ((32, 32), (384, 512), (768, 512), (4096, 5120))
    ]
    assert counts == [16, 16, 8, 2]


@pytest.mark.parametrize("limit", ["photographs", "pixels"])
def test_a_rare_shape_does_not_wait_long(
    variables: Any, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    if limit == "photographs":
        monkeypatch.setattr(features, "LONGEST_WAIT", 5)
    else:
        monkeypatch.setattr(features, "USUAL_PIXELS", 32 * 32)
        monkeypatch.setattr(features, "WAITING_BATCHES", 1)
    asked = 0

    def images() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal asked
        for i in range(40):
            asked = i
            yield i, np.zeros((31, 64 if i == 0 else 32, 3), np.uint8)

    extractor = FeatureExtractor(NETWORK, variables, make_mesh(1), batch_size=4)
    # Dispatched when five others have come, or when four images' pixels are exceeded; handed
    # out once the next batch is under way.
    arrived = {}
    for keys, _ in extractor(images()):
        arrived |= dict.fromkeys(keys, asked)
    assert sorted(arrived) == list(range(40))
    assert arrived[0] <= 12


def fill_folder(
    folder: Path, photographs: list[Path], references: list[Path], variables: Any, **changed: Any
) -> tuple[list[Retrieved], list[str]]:
    told: list[str] = []
    arguments = {
        "weights": WEIGHTS,
        "folder": folder,
        "top": 2,
        "batch_size": 2,
        "max_pixels": None,
        "skip_bad": False,
        "threads": 2,
        **changed,
    }
    mesh = make_mesh(2)
    found = retrieve(
        photographs, references, NETWORK, variables, mesh, tell=told.append, **arguments
    )
    return found, told


def test_matches_are_the_largest_cosines(
    tmp_path: Path,
    variables: Any,
    photographs: list[Path],
    references: list[Path],
    expected: Callable[..., np.ndarray],
) -> None:
    listed = list_references(references[0].parent)
    assert listed == references  # without the distorted image
    found, _ = fill_folder(tmp_path / "vectors", photographs, references, variables)
    cosines = expected(read_all(photographs)) @ expected(read_all(references)).T
    assert [match.photograph for match in found] == photographs
    for match, row in zip(found, cosines, strict=True):
        order = np.argsort(-row)[:2]
        assert match.references == tuple(references[i] for i in order)
        np.testing.assert_allclose(match.similarities, row[order], atol=1e-5)
    assert len({match.references[0] for match in found}) > 1


def test_a_killed_run_goes_on(
    tmp_path: Path,
    variables: Any,
    photographs: list[Path],
    references: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_store, "PHOTOGRAPHS_PER_SHARD", 4)
    monkeypatch.setattr(features, "LONGEST_WAIT", 3)
    whole, _ = fill_folder(tmp_path / "whole", photographs, references, variables)
    read = features.read_photographs
    decoded: list[Path] = []

    def stop_at(number: int) -> Callable[..., Iterator[Any]]:
        def reading(paths: Sequence[Path], **options: Any) -> Iterator[Any]:
            for path, photograph in zip(paths, read(paths, **options), strict=True):
                if path.name == f"p{number:02d}.png":
                    raise KeyboardInterrupt
                decoded.append(path)
                yield photograph

        return reading

    folder = tmp_path / "stopped"
    monkeypatch.setattr(retrieval, "read_photographs", stop_at(11))
    with pytest.raises(KeyboardInterrupt):
        fill_folder(folder, photographs, references, variables)
    complete = {path.name: path.read_bytes() for path in (folder / "photographs").glob("*.npz")}
    assert 1 <= len(complete) < 4
    assert not list(folder.glob("**/*.tmp"))

    decoded.clear()
    monkeypatch.setattr(retrieval, "read_photographs", stop_at(99))
    found, _ = fill_folder(folder, photographs, references, variables)
    done = {int(name[-9:-4]) for name in complete}
    assert decoded == [path for i, path in enumerate(photographs) if i // 4 not in done]
    assert all((folder / "photographs" / n).read_bytes() == c for n, c in complete.items())
    assert [match.references for match in found] == [match.references for match in whole]
    np.testing.assert_allclose(
        [match.similarities for match in found],
        [match.similarities for match in whole],
        atol=1e-6,
    )

    decoded.clear()  # other references or another top compute no photograph again
    fill_folder(folder, photographs, references[:3], variables, top=3)
    assert decoded == references[:3]


def test_vectors_of_something_else_are_refused(
    tmp_path: Path,
    variables: Any,
    photographs: list[Path],
    references: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_store, "PHOTOGRAPHS_PER_SHARD", 4)
    folder = tmp_path / "vectors"
    fill_folder(folder, photographs, references, variables)

    def again(paths: list[Path] = photographs, **changed: Any) -> None:
        fill_folder(folder, paths, references, variables, **changed)

    with pytest.raises(GlpiError, match=r'made otherwise \(weights .*"000.* there, .*"abc"} now\)'):
        again(weights={"name": "tiny", "sha256": "abc"})
    with pytest.raises(GlpiError, match="max_pixels null there, 100 now"):
        again(max_pixels=100)
    with pytest.raises(GlpiError, match=r"4 of 4 files hold .* first vectors_00000\.npz"):
        again(photographs[1:])
    with pytest.raises(GlpiError, match=r"1 of 4 files hold .* first vectors_00003\.npz"):
        again(photographs[:12])
    again()

    damaged = folder / "photographs" / "vectors_00001.npz"
    content = bytearray(damaged.read_bytes())
    content[300] ^= 255
    damaged.write_bytes(content)
    with pytest.raises(GlpiError, match=r"vectors_00001\.npz: cannot be read \(Bad CRC-32.*delete"):
        again()
    damaged.unlink()
    again()
    manifest = json.loads((folder / "photographs" / "manifest.json").read_text())
    assert manifest["weights"] == WEIGHTS
    assert set(manifest["begun_with"]) > {"glpi_jax", "jax", "numpy"}

    (tmp_path / "full" / "photographs").mkdir(parents=True)
    (tmp_path / "full" / "photographs" / "notes.txt").write_text("")
    with pytest.raises(GlpiError, match="not empty, and no vectors"):
        fill_folder(tmp_path / "full", photographs, references, variables)


def test_unreadable_photographs(
    tmp_path: Path,
    variables: Any,
    photographs: list[Path],
    references: list[Path],
) -> None:
    bad = tmp_path / "p00a.png"
    bad.write_bytes(b"no image")
    missing = tmp_path / "p00b.png"
    listed = [photographs[0], bad, missing, photographs[1]]
    folder = tmp_path / "vectors"
    with pytest.raises(GlpiError, match=r"p00a\.png: not an image"):
        fill_folder(folder, listed, references, variables)
    found, told = fill_folder(folder, listed, references, variables, skip_bad=True)
    assert [match.photograph for match in found] == [photographs[0], photographs[1]]
    assert [line.split(": ")[0] for line in told] == [str(bad), str(missing)]
    # The vectors are there now; what was left out is told again, and is still an error without.
    assert fill_folder(folder, listed, references, variables, skip_bad=True) == (found, told)
    with pytest.raises(GlpiError, match=r"p00a\.png: not an image.* delete that file"):
        fill_folder(folder, listed, references, variables)
    with pytest.raises(GlpiError, match="none of 1 photographs could be read"):
        fill_folder(tmp_path / "none", [bad], references, variables, skip_bad=True)
    with pytest.raises(GlpiError, match=r"p00a\.png"):  # references are never left out
        fill_folder(tmp_path / "refs", listed, [*references, bad], variables, skip_bad=True)


def test_large_photographs_are_reduced_when_asked(
    tmp_path: Path, variables: Any, references: list[Path], expected: Callable[..., np.ndarray]
) -> None:
    large = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(large)
    reduced = resize(noise, 25, 100, method="bicubic")
    fill_folder(tmp_path / "vectors", [large], references, variables, max_pixels=2500)
    with np.load(tmp_path / "vectors" / "photographs" / "vectors_00000.npz") as file:
        np.testing.assert_allclose(file["vectors"], expected([reduced]), atol=1e-5)
        assert file["sizes"].tolist() == [[50, 200]]


def test_too_little_memory_is_one_line(variables: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = FeatureExtractor(NETWORK, variables, make_mesh(1), batch_size=1)

    def fail(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")

    monkeypatch.setattr(extractor, "_compute", fail)
    with pytest.raises(GlpiError, match=r"photographs of up to 64×32 pixels: .* --max-pixels"):
        list(extractor([(0, np.zeros((20, 40, 3), np.uint8))]))


def test_ranking_and_ties() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(64, 37)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # 81 references, of which each stands three times: the first comes first.
    references = np.concatenate([vectors[:27]] * 3)
    for devices in (1, 2):
        similarities, indices = compile_ranking(make_mesh(devices), 5)(vectors, references)
        assert np.abs(similarities).max() <= 1
        cosines = vectors.astype(np.float64) @ vectors[:27].T.astype(np.float64)
        best, second = np.argsort(-cosines, axis=1)[:, :2].T
        steps = np.array([0, 27, 54])
        np.testing.assert_array_equal(indices[:, :3], best[:, None] + steps[None])
        np.testing.assert_array_equal(indices[:, 3:], second[:, None] + steps[None, :2])
        assert indices[:27, 0].tolist() == list(range(27))


def test_photographs_from_a_list(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("b/y.jpg\n\n  a/z.jpg\n/photos/x.png\n")
    assert list_photographs(listing) == [
        Path("/photos/x.png"),
        tmp_path / "b/y.jpg",
        tmp_path / "a/z.jpg",
    ]
    listing.write_text("b/y.jpg\na/y.png\n")
    with pytest.raises(GlpiError, match=r"b/y\.jpg and .*a/y\.png have the same name"):
        list_photographs(listing)
    listing.write_text("\n")
    with pytest.raises(GlpiError, match=r"list\.txt: lists no photograph"):
        list_photographs(listing)
    with pytest.raises(GlpiError, match="neither a folder of photographs nor a text file"):
        list_photographs(tmp_path / "none")
    (tmp_path / "distorted").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "distorted" / "I01_01_01.png")
    with pytest.raises(GlpiError, match="only distorted images"):
        list_references(tmp_path / "distorted")


@pytest.fixture
def weights(tmp_path: Path, variables: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The network in torchvision's names, as a file that the command accepts."""
    monkeypatch.setitem(RESNETS, "tiny", TINY)
    state = {"fc.weight": np.zeros((3, 20), np.float32), "fc.bias": np.zeros(3, np.float32)}
    for (collection, *path), leaf in traverse_util.flatten_dict(variables).items():
        name, layout = to_torch_name(collection, "/".join(["clfe", "backbone", *path]))
        array = leaf.transpose(3, 2, 0, 1) if layout == CONV else leaf
        state[name.removeprefix("clfe.backbone.")] = np.ascontiguousarray(array)
    path = tmp_path / "tiny.safetensors"
    save_file(state, path)
    return path


def test_command_writes_the_official_tables(
    tmp_path: Path,
    variables: Any,
    photographs: list[Path],
    references: list[Path],
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [str(photographs[0].parent), str(references[0].parent)]
    options = ["--weights", str(weights), "--batch-size", "2"]
    out = tmp_path / "similarity.csv"
    command = ["saqt", "retrieve", *folders, *options, "--out", str(out)]
    assert main([*command, "--top", "3"]) == 0
    told = capsys.readouterr().err
    assert "14 photographs, 5 references, tiny on 2 devices" in told
    assert "the 3 best references of 14 photographs" in told
    expected, _ = fill_folder(tmp_path / "direct", photographs, references, variables, top=3)
    matches = [
        Match(m.photograph.name, tuple(r.name for r in m.references), m.similarities)
        for m in expected
    ]
    assert [match.source for match in matches] == sorted(path.name for path in photographs)
    assert read_matches(out) == matches
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("source_image", "source_path", "target_reference", "target_reference_path"),
        *("semantic_distance", "cosine_similarity", "rank"),
    ]
    assert len(rows) == 3 * len(photographs)
    for row in rows:
        assert Path(row["source_path"]).name == row["source_image"]
        assert Path(row["target_reference_path"]) in references
        assert float(row["semantic_distance"]) == 1 - float(row["cosine_similarity"])

    assert main([*command, "--columns", "old"]) == 0
    assert out.read_text().startswith("kadis,kadid-10k,sim_value\np00.png,I")
    assert read_matches(out) == [
        Match(match.source, match.references[:1], match.similarities[:1]) for match in matches
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "old", "--top", "2"], "--columns old holds one reference"),
        (["--top", "6"], "--top 6: must lie in 1 … 5, the number of references"),
        (["--top", "0"], "--top 0: must lie in 1 … 5"),
        (["--batch-size", "0"], "batch size 0: must be at least 1"),
        (["--max-pixels", "0"], "--max-pixels 0: must be at least 1"),
        (["--threads", "0"], "--threads 0: must be at least 1"),
        (["--out", "nowhere/similarity.csv"], "must be a file in a folder that exists"),
        (["--weights", "none.pth"], "none.pth: cannot be read"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path,
    photographs: list[Path],
    references: list[Path],
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    folders = [str(photographs[0].parent), str(references[0].parent)]
    defaults = ["--weights", str(weights), "--out", str(tmp_path / "similarity.csv")]
    assert main(["saqt", "retrieve", *folders, *defaults, *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [weights]


def test_old_columns_hold_one_reference(tmp_path: Path) -> None:
    match = Retrieved(Path("a.png"), (Path("I01.png"), Path("I02.png")), (0.9, 0.8))
    with pytest.raises(GlpiError, match="take --top 1"):
        write_matches(tmp_path / "out.csv", [match], columns="old")
    assert not list(tmp_path.iterdir())
