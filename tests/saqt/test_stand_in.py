"""The stand-ins have the form of what they stand in for."""

import numpy as np
from PIL import Image

from glpi_jax.distortions import MEAN_DMOS
from glpi_jax.saqt.labels import read_reference_scores
from glpi_jax.saqt.retrieval import list_references
from glpi_jax.saqt.stand_in import write_random_resnet, write_stand_in_references
from glpi_jax.weights.backbones import load_resnet


def test_references_and_their_scores(tmp_path):
    folder = write_stand_in_references(tmp_path / "kadid10k", ["coffee", "cat"])
    references = list_references(folder / "images")
    assert [path.name for path in references] == ["I01.png", "I02.png"]
    for path in references:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((512, 384), "RGB")
    scores = read_reference_scores(folder / "dmos.csv")
    assert list(scores) == ["I01.png", "I02.png"]
    for table in scores.values():
        np.testing.assert_array_equal(table, [MEAN_DMOS[kind] for kind in range(1, 26)])


def test_random_resnet_loads_and_follows_its_seed(tmp_path):
    path = write_random_resnet(tmp_path / "resnet.safetensors", name="resnet50", seed=1)
    content = path.read_bytes()
    loaded = load_resnet(path)
    assert loaded.name == "resnet50"
    kernel = loaded.variables["params"]["conv1"]["kernel"]
    assert kernel.shape == (7, 7, 3, 64)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (7 * 7 * 3)), rtol=0.05)
    assert write_random_resnet(path, name="resnet50", seed=1).read_bytes() == content
    assert write_random_resnet(path, name="resnet50", seed=2).read_bytes() != content
