"""`glpi export`: a program that JAX alone runs, for any batch."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from glpi_jax import export
from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.evaluation.predict import compile_scorer
from glpi_jax.hub import read_model, save_folder

BATCHES = (1, 7, 32)

# Runs FILE on the crops of an .npz file, with nothing but JAX and NumPy.
RUNNER = """
import sys
import jax
import numpy as np
from jax import export

program, crops, scores = sys.argv[1:]
exported = export.deserialize(bytearray(open(program, "rb").read()))
with np.load(crops) as batches:
    np.savez(scores, **{name: exported.call(batches[name]) for name in batches.files})
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"glpi_jax", "flax", "orbax", "safetensors"}, loaded
"""


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The program of the trained workdir."""
    file = tmp_path_factory.mktemp("exported") / "model.stablehlo"
    assert main(["export", str(trained.workdir), str(file)]) == 0
    return file


def test_jax_alone_gives_the_models_scores(trained, exported, tmp_path, shared_compilations):
    model = read_model(trained.workdir)
    crop = model.model.size.crop
    rng = np.random.default_rng(0)
    batches = {str(b): rng.integers(0, 256, (b, crop, crop, 3), np.uint8) for b in BATCHES}
    np.savez(tmp_path / "crops.npz", **batches)
    (tmp_path / "run.py").write_text(RUNNER)
    # Not in the tree and not on the path: the package itself cannot be imported by accident.
    environment = {k: v for k, v in shared_compilations.items() if k != "PYTHONPATH"}
    command = [sys.executable, "run.py", exported, "crops.npz", "scores.npz"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    score = compile_scorer(model.model, make_mesh(1))
    # In one batch, since the model's scores do not depend on what else is in it.
    expected = np.asarray(score(model.variables, np.concatenate([*batches.values()])))
    with np.load(tmp_path / "scores.npz") as scores:
        found = np.concatenate([scores[name] for name in batches])
    assert found.dtype == np.float32
    assert found.shape == (sum(BATCHES),)
    assert np.ptp(expected) > 1e-3
    # Float32 sums in another order: of another batch, and fused otherwise.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_the_description_says_what_the_program_is(trained, exported):
    content = exported.read_bytes()
    description = json.loads(exported.with_name("model.stablehlo.json").read_text())
    assert description["file"] == "model.stablehlo"
    assert description["sha256"] == hashlib.sha256(content).hexdigest()
    assert description["bytes"] == len(content)
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    assert description["input"]["shape"] == ["batch", 64, 64, 3]
    assert description["input"]["dtype"] == "uint8"
    assert description["scoring"]["crops"] == 2
    assert description["labels"]["score_name"] == "MOS"
    assert description["labels"]["higher_is_better"] is True
    assert (description["labels"]["scale"], description["labels"]["shift"]) == (1, 0)
    assert description["output"]["units"] == "those of the labels"
    assert description["preprocessing"] == {
        "resize": [],
        "method": "bilinear",
        "apply_orientation": False,
        "assumed": False,
        "note": "before crops are cut, not in the program: size kept, EXIF orientation not applied",
    }
    assert description["model"]["name"] == "glpi_demo"
    assert description["versions"].keys() == {"glpi_jax", "jax", "jaxlib", "flax"}
    assert [path.name for path in exported.parent.iterdir() if "tmp" in path.name] == []


def test_program_of_stretched_labels_gives_scores_in_their_units(trained):
    plain = read_model(trained.workdir)
    stretched = dataclasses.replace(plain, label_scale=2.0, label_shift=-50.0)
    crop = plain.model.size.crop
    crops = np.random.default_rng(0).integers(0, 256, (4, crop, crop, 3), np.uint8)
    raw = np.asarray(export.export_scorer(plain).call(crops))
    scores = np.asarray(export.export_scorer(stretched).call(crops))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, (raw + 50) / 2, rtol=1e-6)


def test_a_published_model_gives_the_same_program(trained, exported, tmp_path):
    save_folder(trained.workdir, tmp_path / "model")
    description = export.export_model(tmp_path / "model", tmp_path / "again.stablehlo")
    assert (tmp_path / "again.stablehlo").read_bytes() == exported.read_bytes()
    assert description["model"]["size"]["taps"] == (0, 1, 2, 3)
    # Neither paths of the machine nor lines of the code, in the program or beside it.
    for content in (exported.read_bytes(), json.dumps(description).encode()):
        assert b".py" not in content
        assert str(tmp_path).encode() not in content


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.onnx", "ONNX cannot be written"),
        ("model.bin", "must end in .stablehlo"),
        ("folder.stablehlo", "this is a folder"),
        ("there.stablehlo", "--force replaces it"),
        ("no/model.stablehlo", "there is no folder"),
    ],
)
def test_a_wrong_output_is_told_before_anything_is_read(tmp_path, name, words):
    (tmp_path / "folder.stablehlo").mkdir()
    (tmp_path / "there.stablehlo").write_text("older")
    with pytest.raises(GlpiError, match=words):
        export.export_model("no-such-workdir", tmp_path / name)
    assert (tmp_path / "there.stablehlo").read_text() == "older"


def test_a_program_that_cannot_be_written_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    """In particular no description of an older program."""
    file = tmp_path / "model.stablehlo"
    file.write_text("older")
    file.with_name("model.stablehlo.json").write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glpi_jax.core.files.os.replace", full)
    with pytest.raises(GlpiError, match="No space left on device"):
        export.export_model(trained.workdir, file, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.stablehlo"]
    assert file.read_text() == "older"


def test_a_source_that_is_no_model_is_one_line(tmp_path, capsys):
    assert main(["export", str(tmp_path), str(tmp_path / "model.stablehlo")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"glpi: error: {tmp_path}: not a model, which is a workdir")
    assert list(tmp_path.iterdir()) == []
