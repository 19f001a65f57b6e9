"""What a score is made with: every kind of model, and the weights that come with the package."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import glpi_jax
from glpi_jax.cli.main import main
from glpi_jax.core.errors import GlpiError
from glpi_jax.hub import Card, looks_like_a_model, read_model, save_folder, sources


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "model"
    save_folder(trained.workdir, folder, Card(score_range=(0, 5)))
    return folder


@pytest.fixture
def shipped(published, monkeypatch):
    """A package that has weights."""
    monkeypatch.setattr(sources, "SHIPPED", published)


@pytest.fixture(scope="module")
def checkpoint(model_golden, tmp_path_factory):
    """An official checkpoint without words: names and arrays alone."""
    path = tmp_path_factory.mktemp("checkpoint") / "official.safetensors"
    save_file(model_golden("forward_vit_tiny").state_dict, path)
    return path


def scores(capsys, *arguments):
    assert main(["score", "--json", *map(str, arguments)]) == 0
    output = capsys.readouterr()
    return json.loads(output.out), output.err


# Python


def test_a_hub_folder_scores_as_its_workdir(trained, published, photo):
    workdir, folder = glpi_jax.load(trained.workdir), glpi_jax.load(published)
    assert folder.score([photo]) == workdir.score([photo])
    assert folder.score([photo])[0].score is not None
    assert (folder.score_range, workdir.score_range) == ((0, 5), None)
    assert folder.meaning == (
        "MOS, 0 to 5, higher is better; training labels: 5 minus the level of noise; preprocessing"
        " as in training: size kept, EXIF orientation not applied"
    )


def test_an_official_checkpoint_admits_what_it_does_not_know(checkpoint):
    trained = read_model(checkpoint)
    assert (trained.name, trained.crops, trained.model.size.crop) == ("glpi_ti16", 25, 224)
    assert trained.scale == "score"
    assert trained.higher_is_better is None
    assert "neither the scale nor the direction of its scores is known" in trained.meaning
    assert trained.meaning.endswith("; preprocessing assumed: size kept, EXIF orientation applied")
    assert trained.preprocessing_assumed


def test_an_official_checkpoint_becomes_a_hub_folder(checkpoint, tmp_path):
    save_folder(checkpoint, tmp_path / "model")
    old, new = read_model(checkpoint), read_model(tmp_path / "model")
    assert new.model == old.model
    assert (new.name, new.meaning) == (old.name, old.meaning)
    np.testing.assert_array_equal(
        new.variables["params"]["vgfe"]["pos_embed"], old.variables["params"]["vgfe"]["pos_embed"]
    )


def test_a_package_without_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHIPPED", tmp_path / "weights")
    with pytest.raises(GlpiError, match="this installation has no weights of its own"):
        glpi_jax.load()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file or folder; a model is a workdir"),
        (lambda path: path.mkdir(), "not a model, which is a workdir"),
        (lambda path: path.write_text(""), "not a model, which is a workdir"),
        (
            lambda path: (path.mkdir(), (path / "benchmark.json").write_text("{}")),
            "a benchmark has a model for each round",
        ),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, make, words):
    make(tmp_path / "it")
    with pytest.raises(GlpiError, match=words):
        glpi_jax.load(tmp_path / "it")


def test_the_weights_of_a_hub_folder_are_not_taken_for_a_checkpoint(published):
    with pytest.raises(GlpiError, match="the weights of a hub folder; name the folder"):
        glpi_jax.load(published / "model.safetensors")


def test_what_looks_like_a_model(trained, published, checkpoint, photo, tmp_path):
    for model in (trained.workdir, published, checkpoint, "hf://me/model", "missing.pth"):
        assert looks_like_a_model(str(model))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for other in (photo, photo.parent, tmp_path, "missing", "missing.jpg"):
        assert not looks_like_a_model(str(other))


# The command


def test_images_alone_are_scored_with_the_shipped_weights(shipped, published, photo, capsys):
    expected, err = scores(capsys, published, photo)
    assert err == (
        "glpi: MOS, 0 to 5, higher is better; training labels: 5 minus the level of noise;"
        " preprocessing as in training: size kept, EXIF orientation not applied\n"
    )
    for arguments in ([photo], [photo.parent]):
        results, err = scores(capsys, *arguments)
        assert results == expected
        assert err == (
            "glpi: weights of the package (glpi_small): MOS, 0 to 5, higher is better; training"
            " labels: 5 minus the level of noise; preprocessing as in training: size kept, EXIF"
            " orientation not applied\n"
        )
    assert main(["score", str(photo), "missing.jpg"]) == 2
    output = capsys.readouterr()
    score, error = expected[0]["score"], expected[0]["standard_error"]
    assert output.out == f"{score:8.3f} ± {error:.3f}  {photo}\n"
    note, problem = output.err.splitlines()
    assert note.startswith("glpi: weights of the package")
    assert problem == "glpi: error: missing.jpg: no such file or folder"


def test_a_missing_image_named_first_stops_no_other(shipped, photo, capsys):
    assert main(["score", "--json", "missing.JPG", str(photo)]) == 2
    missing, found = json.loads(capsys.readouterr().out)
    assert missing["error"] == "missing.JPG: no such file or folder"
    assert "score" in found


def test_the_model_may_be_named_by_an_option(trained, published, photo, capsys):
    expected, _ = scores(capsys, published, photo)
    assert scores(capsys, "--model", published, photo)[0] == expected
    assert main(["score", str(photo), "--model", str(published), "--json", str(photo.parent)]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["score", "--model", str(photo), str(photo)]) == 2
    assert "not a model, which is a workdir" in capsys.readouterr().err


def test_a_model_and_no_image_shows_the_usage(published, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["score", str(published)])
    assert caught.value.code == 2
    assert "is a model: name an image or a folder to score with it" in capsys.readouterr().err


def test_a_first_argument_that_is_nothing_gets_help(shipped, photo, tmp_path, capsys):
    missing = tmp_path / "missing"
    assert main(["score", str(missing), str(photo)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith(f"glpi: error: {missing}: no ")
    assert "a workdir of `glpi train`, a hub folder, a checkpoint" in line


def test_a_first_folder_without_image_or_model_stops_no_other(shipped, photo, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["score", str(empty), str(photo)]) == 2
    output = capsys.readouterr()
    assert str(photo) in output.out
    lines = output.err.splitlines()
    assert lines[0].startswith(f"glpi: {empty} is no model, which is a workdir of `glpi train`")
    assert lines[-1].startswith(f"glpi: error: {empty}: no image in this folder")


def test_a_damaged_hub_folder_is_one_line(published, photo, tmp_path, capsys):
    folder = shutil.copytree(published, tmp_path / "model")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert main(["score", str(folder), str(photo)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith(f"glpi: error: {folder / 'model.safetensors'} does not fit the model: ")
