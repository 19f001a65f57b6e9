"""Hub folders: what is written is what is read, strictly; cards; the commands that publish."""

import dataclasses
import hashlib
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save, save_file

from glpi_jax.core.errors import GlpiError
from glpi_jax.data.preprocessing import ASSUMED
from glpi_jax.hub import Card, read_folder, read_model, save_folder
from glpi_jax.hub.card import card_text
from glpi_jax.models.glpi import build
from glpi_jax.weights.convert import flax_entries

EIGHT_BIT = save({"x": np.zeros(4, ml_dtypes.float8_e4m3fn)})  # which NumPy does not have
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """The hub folder of the trained workdir; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("published") / "model"
    save_folder(trained.workdir, folder)
    return folder


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "copy")


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def change_weights(folder, change):
    """Change arrays, and the checksum with them."""
    path = folder / "model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_config(folder, lambda config: config.update(weights_sha256=digest))


def front_matter(folder):
    """The card's YAML, which is one JSON value a line."""
    text = (folder / "README.md").read_text()
    begin, matter, body = text.split("---\n", 2)
    assert begin == ""
    pairs = (line.split(": ", 1) for line in matter.splitlines())
    return {
        key: value if key == "library_name" else json.loads(value) for key, value in pairs
    }, body


# The folder


def test_it_holds_the_workdir_to_the_bit(trained, published):
    expected, read = read_model(trained.workdir), read_folder(published)
    assert sorted(path.name for path in published.iterdir()) == FILES
    assert read.model == expected.model
    old, new = (traverse_util.flatten_dict(each.variables, sep="/") for each in (expected, read))
    assert old.keys() == new.keys()
    for name in old:
        np.testing.assert_array_equal(old[name], new[name], err_msg=name)
    facts = ("name", "crops", "batch_size", "score_name", "higher_is_better", "label_note")
    for fact in facts:
        assert getattr(read, fact) == getattr(expected, fact)
    assert (read.crops, read.batch_size, read.scale) == (2, 4, "MOS, higher is better")


def test_its_weights_have_official_names_and_layout(trained, published):
    arrays = load_file(published / "model.safetensors")
    params = read_model(trained.workdir).variables["params"]
    np.testing.assert_array_equal(
        arrays["quality_head.layers.0.weight"], params["quality_head"]["fc1"]["kernel"].T
    )
    np.testing.assert_array_equal(
        arrays["siem2.conv.weight"], params["siem2"]["conv"]["kernel"].transpose(3, 2, 0, 1)
    )
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_the_same_model_gives_the_same_bytes(trained, published, tmp_path):
    save_folder(trained.workdir, tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes()


def test_an_empty_folder_is_filled(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_folder(published, ".")
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_its_size_needs_no_name(copy):
    """The numbers make the network, so that a size of one's own can be published."""
    change_config(copy, lambda config: config["model"].update(name="my_size"))
    read = read_folder(copy)
    assert read.name == "my_size"
    assert read.model == read_folder(copy).model


def test_it_is_written_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glpi_jax.hub.folder.os.replace", full)
    with pytest.raises(GlpiError, match="cannot be written"):
        save_folder(trained.workdir, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_it_replaces_no_other_thing(trained, published, tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.txt").write_text("mine")
    for folder, force, words in (
        (other, True, "holds other things"),
        (other / "a.txt", True, "this is a file"),
        (published, False, "--force replaces it"),
    ):
        with pytest.raises(GlpiError, match=words):
            save_folder(trained.workdir, folder, force=force)
    assert (other / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', "[]", "{", None])
@pytest.mark.parametrize("force", [True, False])
def test_it_replaces_no_model_of_another_library(tmp_path, config, force):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(GlpiError, match=r"other things than a GLPI model .*; name a new folder$"):
        save_folder(None, tmp_path, force=force)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_force_replaces_its_three_files_alone(trained, published, copy):
    change_weights(copy, lambda arrays: arrays.clear())
    (copy / "notes.txt").write_text("kept")
    save_folder(trained.workdir, copy, force=True)
    assert (copy / "notes.txt").read_text() == "kept"
    for name in FILES:
        assert (copy / name).read_bytes() == (published / name).read_bytes()


def test_weights_of_another_save_are_noticed(copy):
    """As after an interrupted replacement."""
    arrays = load_file(copy / "model.safetensors")
    arrays["quality_head.layers.3.bias"] += 1
    save_file(arrays, copy / "model.safetensors")
    with pytest.raises(GlpiError, match="is not the weights_sha256 of config"):
        read_folder(copy)


def test_every_wrong_weight_is_in_one_error(copy):
    names = [entry.torch_name for entry in flax_entries(read_folder(copy).model)]
    gone, bent, spoilt, halved = names[:4]

    def spoil(arrays):
        del arrays[gone]
        arrays["stray"] = np.zeros(3, np.float32)
        arrays[bent] = np.zeros((*arrays[bent].shape, 2), np.float32)
        arrays[spoilt] = np.full_like(arrays[spoilt], np.nan)
        arrays[halved] = arrays[halved].astype(np.float64)

    change_weights(copy, spoil)
    with pytest.raises(GlpiError) as caught:
        read_folder(copy)
    message = str(caught.value)
    assert str(copy / "model.safetensors") in message
    for words in (
        f"1 missing: {gone}",
        "1 unexpected: stray",
        f"1 misshapen: {bent}",
        f"1 not finite: {spoilt}",
        f"{halved} float64 instead of float32",
    ):
        assert words in message


def test_every_wrong_key_is_in_one_error(copy):
    def spoil(config):
        del config["labels"]["label_note"]
        config["stray"] = 1
        config["model"]["size"] |= {"patch": 8, "taps": [0, 2, 1, 3], "heads": "three"}
        config["model"] |= {"dropout": 1.0, "dtype": "float16"}
        config["scoring"] |= {"placement": "random", "crops": 0, "batch_size": True}
        config["labels"] |= {"score_range": [5, 1], "higher_is_better": 1, "scale": 0}
        config["labels"] |= {"shift": "none"}
        config["preprocessing"] = {"resize": [1, 2, 3], "method": "area", "assumed": 0}

    change_config(copy, spoil)
    with pytest.raises(GlpiError) as caught:
        read_folder(copy)
    message = str(caught.value)
    for words in (
        "no labels.label_note",
        "unknown stray",
        "model.size.patch = 8 must be 16",
        "model.size.taps = [0, 2, 1, 3] must be four rising whole numbers",
        'model.size.heads = "three" must be a whole number',
        "model.dropout = 1.0 must be",
        'model.dtype = "float16" must be float32 or bfloat16',
        'scoring.placement = "random" must be grid',
        "scoring.crops = 0 must be",
        "scoring.batch_size = true must be",
        "labels.score_range = [5, 1] must be two rising numbers or null",
        "labels.higher_is_better = 1 must be true, false or null",
        "labels.scale = 0 must be a number above 0",
        'labels.shift = "none" must be a number',
        "no preprocessing.apply_orientation",
        "preprocessing.resize = [1, 2, 3] must be [], [side,] or [height, width] in pixels",
        'preprocessing.method = "area" must be bilinear or bicubic',
        "preprocessing.assumed = 0 must be true or false",
    ):
        assert words in message


def as_format_1(config):
    config["format"] = 1
    del config["preprocessing"], config["labels"]["scale"], config["labels"]["shift"]
    del config["model"]["size"]["vit_dim"]


def test_format_1_is_read_with_assumed_preprocessing(published, copy, tmp_path):
    change_config(copy, as_format_1)
    read = read_folder(copy)
    assert (read.preprocessing, read.preprocessing_assumed) == (ASSUMED, True)
    assert (read.label_scale, read.label_shift) == (1, 0)
    assert read.meaning.endswith("; preprocessing assumed: size kept, EXIF orientation applied")
    assert read_folder(published).preprocessing_assumed is False
    save_folder(copy, tmp_path / "again", Card(title="Again"))
    again = read_folder(tmp_path / "again")
    assert again.meaning == read.meaning  # a copy knows no more
    assert "before the crops, assumed: size kept" in again.card


def test_format_1_with_keys_of_format_2_is_refused(copy):
    change_config(copy, lambda config: config.update(format=1))
    with pytest.raises(GlpiError, match=r"unknown labels\.scale; unknown labels\.shift; unknown m"):
        read_folder(copy)


def test_format_2_without_preprocessing_is_refused(copy):
    change_config(copy, lambda config: config.pop("preprocessing"))
    with pytest.raises(GlpiError, match=r"no preprocessing\.apply_orientation"):
        read_folder(copy)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"crop": 65}, "model.size.crop must be a multiple of model.size.patch"),
        ({"heads": 5}, "model.size.vit_dim must be a multiple of model.size.heads"),
        ({"depth": 3}, "model.size.taps must be blocks below model.size.depth"),
    ],
)
def test_numbers_that_contradict_each_other(copy, numbers, words):
    change_config(copy, lambda config: config["model"]["size"].update(numbers))
    with pytest.raises(GlpiError, match=words):
        read_folder(copy)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", None, "config.json: cannot be read"),
        ("config.json", b"{", "config.json: not JSON"),
        ("config.json", b'{"model_type": "bert"}', "not the config of a GLPI model"),
        ("config.json", b'{"library_name": "glpi_jax", "format": 3}', "format 3, this version"),
        ("model.safetensors", None, "model.safetensors: cannot be read"),
        ("model.safetensors", b"\0" * 100, "not a readable safetensors file"),
        ("model.safetensors", EIGHT_BIT, "not a readable safetensors file"),
    ],
)
def test_files_that_are_no_model(copy, name, content, words):
    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
    with pytest.raises(GlpiError, match=words):
        read_folder(copy)


# The card


def test_the_card_tells_the_results(trained, published):
    results = json.loads((trained.workdir / "results.json").read_text())
    srocc = results["parts"]["test"]["metrics"]["srocc"]
    matter, body = front_matter(published)
    assert "license" not in matter
    assert matter["library_name"] == "glpi_jax"
    assert "image-quality-assessment" in matter["tags"]
    assert matter["metrics"] == ["spearmanr", "pearsonr"]
    (index,) = matter["model-index"]
    (result,) = index["results"]
    assert result["dataset"]["name"] == "miniature"
    assert result["metrics"][0] == {"type": "spearmanr", "name": "SROCC", "value": srocc}
    assert f"| test | miniature | 4 | {srocc:.4f} |" in " ".join(body.split())
    assert "protocol strict" in body
    assert "MOS, higher is better. Training labels: 5 minus the level of noise." in body
    assert "glpi score hf://OWNER/NAME photo.jpg" in body


def test_the_card_says_what_it_is_given(trained, tmp_path):
    card = Card(title="Noise", license="mit", text="Knows noise alone.", score_range=(0, 5))
    save_folder(trained.workdir, tmp_path / "model", card)
    matter, body = front_matter(tmp_path / "model")
    assert matter["license"] == "mit"
    assert "# Noise\n\nKnows noise alone.\n" in body
    assert "MOS, 0 to 5, higher is better" in body
    assert read_folder(tmp_path / "model").score_range == (0, 5)


def test_a_card_without_results_claims_none(trained, tmp_path):
    workdir = shutil.copytree(trained.workdir, tmp_path / "workdir")
    (workdir / "results.json").unlink()
    save_folder(workdir, tmp_path / "model")
    matter, body = front_matter(tmp_path / "model")
    assert matter.keys() == {"library_name", "tags"}
    assert "SROCC" not in body


def test_the_card_points_to_pytorch_where_that_can_read_it(trained):
    demo = read_model(trained.workdir)
    official = dataclasses.replace(demo, name="glpi_s16", model=build("glpi_s16", dropout=0.5))
    assert "load_state_dict" not in card_text(demo, Card(), None, "float32")
    assert "load_state_dict" in card_text(official, Card(), None, "float32")


def test_a_card_written_by_hand_stays(copy, tmp_path):
    text = "# Mine\n\nglpi score hf://OWNER/NAME a.jpg\n"
    (copy / "README.md").write_text(text)
    save_folder(copy, tmp_path / "next")
    assert (tmp_path / "next/README.md").read_text() == text
    assert read_folder(tmp_path / "next").card == text
    save_folder(copy, tmp_path / "new card", Card(title="Another"))
    assert "# Another" in (tmp_path / "new card/README.md").read_text()
