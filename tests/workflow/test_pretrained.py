"""Runs that start from published backbones: `config.model.pretrained`."""

import functools
import hashlib
import json
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hub_server import COMMIT
from safetensors.numpy import load_file, save_file
from short_runs import short_config, stopped_before_the_first_step

from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.interop.to_torch import to_torch
from glpi_jax.models.glpi import SIZES, build
from glpi_jax.training import loop
from glpi_jax.training.state import init_variables, key_of
from glpi_jax.weights.backbones import RESNETS, ResNetSize
from glpi_jax.weights.convert import carried_names, flax_entries, is_count, to_variables
from glpi_jax.weights.download import PublishedFile
from glpi_jax.workflow.runs import train_run
from glpi_jax.workflow.starting_weights import (
    PUBLISHED,
    load_starting_weights,
    names_starting_weights,
    read_pretrained,
)

DEMO = SIZES["glpi_demo"]
MODEL = build("glpi_demo", dropout=0.0)
VIT, RESNET = "vgfe.backbone.", "clfe.backbone."


@pytest.fixture(scope="module")
def initial(shared_compilations):
    """What a run without starting weights begins with."""
    return jax.jit(functools.partial(init_variables, MODEL))(key_of(0))


@pytest.fixture
def state(demo_state, monkeypatch):
    """An official state dict whose backbones the files hold."""
    whole = ResNetSize(DEMO.stem, (*DEMO.widths, 64), (*DEMO.blocks, 1))
    monkeypatch.setitem(RESNETS, "demo", whole)
    return demo_state


@pytest.fixture
def files(state, tmp_path):
    """A ViT under timm's names, and a ResNet under torchvision's."""
    vit, resnet = (
        {name.removeprefix(prefix): array for name, array in state.items() if prefix in name}
        for prefix in (VIT, RESNET)
    )
    widths = {"conv1": (64, 128, 1, 1), "conv2": (64, 64, 3, 3), "conv3": (256, 64, 1, 1)}
    widths["downsample.0"] = (256, 128, 1, 1)
    for name, shape in widths.items():
        resnet[f"layer4.0.{name}.weight"] = np.ones(shape, np.float32)
    for name, width in {"bn1": 64, "bn2": 64, "bn3": 256, "downsample.1": 256}.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            resnet[f"layer4.0.{name}.{part}"] = np.ones(width, np.float32)
    resnet |= {"fc.weight": np.ones((10, 256), np.float32), "fc.bias": np.ones(10, np.float32)}
    paths = {"vit": tmp_path / "vit.safetensors", "resnet": tmp_path / "resnet.safetensors"}
    save_file(vit, paths["vit"])
    save_file(resnet, paths["resnet"])
    return paths


@pytest.fixture
def config(kadid):
    """`config(vit="…", resnet="…")`: a training of seconds."""

    def make(*overrides, **pretrained):
        parts = (f"--config.model.pretrained.{part}={path}" for part, path in pretrained.items())
        return short_config(kadid, *parts, *overrides)

    return make


def assert_holds(variables, state, prefixes, initial):
    """Those of the file where it has them, and those of the seed elsewhere."""
    taken = 0
    for entry in flax_entries(MODEL):
        ours, theirs = variables, initial
        if entry.torch_name.startswith(prefixes):
            theirs, taken = to_variables(state, [entry]), taken + 1
        for key in (entry.collection, *entry.path):
            ours, theirs = ours[key], theirs[key]
        np.testing.assert_array_equal(ours, theirs, err_msg=entry.torch_name)
    return taken


def read(path):
    return json.loads(path.read_text())


def test_a_run_starts_from_both_and_then_stands_alone(
    files, state, initial, config, tmp_path, monkeypatch
):
    own, run = config(**files), tmp_path / "run"
    stopped_before_the_first_step(monkeypatch, own, run)
    noted = {
        part: {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for part, path in files.items()
    }
    assert read(run / "run.json")["pretrained"] == noted
    assert read(run / "run.json")["init_from"] is None
    first = ocp.StandardCheckpointer().restore(run / "checkpoints/0/state")
    assert assert_holds(first, state, (VIT, RESNET), initial) > 50

    for path in files.values():
        path.unlink()
    assert train_run(own, run)
    assert read(run / "results.json")["pretrained"] == noted
    assert not train_run(own, run)

    # What never reaches the score is in the checkpoint that the run is exported to.
    to_torch(run, tmp_path / "out.safetensors", fill=None, weights_only=True, force=False)
    exported, steps = load_file(tmp_path / "out.safetensors"), 3
    for name in carried_names(MODEL):
        np.testing.assert_array_equal(exported[name], state[name] + steps * is_count(name))


def test_files_that_change_before_they_are_saved(files, config, tmp_path, monkeypatch, state):
    own, run = config(**files), tmp_path / "run"

    def stop(*_, **__):
        raise GlpiError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "create_state", stop)
        patch.setattr("glpi_jax.workflow.runs.fit", stop)
        with pytest.raises(GlpiError, match="stopped"):
            train_run(own, run)
    # Of an address that has moved the SHA-256 alone counts.
    noted = read(run / "run.json")
    noted["pretrained"]["vit"]["path"] = "https://example.org/vit.safetensors"
    (run / "run.json").write_text(json.dumps(noted))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "create_state", stop)
        with pytest.raises(GlpiError, match="stopped"):
            train_run(own, run)
    vit = load_file(files["vit"])
    save_file(vit | {"cls_token": vit["cls_token"] + 1}, files["vit"])
    with pytest.raises(GlpiError, match=r"vit\.safetensors: has changed since .*run\.json noted"):
        train_run(own, run)


def test_a_run_of_other_weights_does_not_begin_anew(files, config, tmp_path, monkeypatch):
    """As one of `glpi port from-torch` without its checkpoints: its config may name backbones."""
    own, run = config(**files), tmp_path / "run"
    stopped_before_the_first_step(monkeypatch, own, run)
    shutil.rmtree(run / "checkpoints")
    noted = read(run / "run.json")
    whole = {"path": "official.pth", "sha256": "ab" * 32, "selection": None}
    (run / "run.json").write_text(json.dumps(noted | {"init_from": whole, "pretrained": None}))
    with pytest.raises(GlpiError, match=r"no checkpoint left, and was begun with official\.pth"):
        train_run(own, run)


def test_one_backbone_alone(files, state, initial, config):
    vit = read_pretrained(config(vit=files["vit"]), MODEL)
    taken = assert_holds(vit.variables, state, (VIT,), initial)
    assert vit.origin["resnet"] is None
    assert vit.carried.arrays.keys() == set(carried_names(MODEL))
    assert {int(vit.carried.arrays[name]) for name in vit.carried.arrays if is_count(name)} == {0}

    resnet = read_pretrained(config(resnet=files["resnet"]), MODEL)
    assert assert_holds(resnet.variables, state, (RESNET,), initial) != taken
    assert resnet.origin["vit"] is None
    assert resnet.carried is None


def test_what_cannot_start_a_run_is_refused_before_there_is_a_workdir(files, config, tmp_path):
    for part in files:
        with pytest.raises(GlpiError, match=rf"pretrained\.{part} = 'download': nothing .* glpi_"):
            train_run(config(**{part: "download"}), tmp_path / "run")
        with pytest.raises(GlpiError, match=r"none\.pth: cannot be read \(No such file"):
            train_run(config(**{part: tmp_path / "none.pth"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_official_recipe_starts_from_both():
    """And another run's weights replace them, as the demonstration does without any."""
    official = load_config(shipped_config("base")).model.pretrained
    assert official.to_dict() == {"vit": "download", "resnet": "download", "vit_gain": 1.0}
    assert not names_starting_weights(load_config(shipped_config("demo")))


def test_a_whole_model_replaces_backbones(files, config, tmp_path, demo_state):
    save_file(demo_state, tmp_path / "whole.safetensors")
    own = config(f"--config.init_from={tmp_path / 'whole.safetensors'}", **files)
    weights = load_starting_weights(own, MODEL, make_mesh(1))
    assert weights.origin["path"] == own.init_from


def test_download_takes_the_published_file(hub, files, state, initial, config, monkeypatch):
    """Of the size, recorded under the address where it was published."""
    for part, path in files.items():
        content = path.read_bytes()
        hub.repositories[f"of/{part}"] = {"model.safetensors": content}
        published = PublishedFile(f"of/{part}", COMMIT, hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(PUBLISHED, part, {"glpi_demo": published})
    own = config(vit="download", resnet="download")
    weights = read_pretrained(own, MODEL)
    assert_holds(weights.variables, state, (VIT, RESNET), initial)
    assert weights.origin["vit"] == {
        "path": f"https://huggingface.co/of/vit/resolve/{COMMIT}/model.safetensors",
        "sha256": hashlib.sha256(files["vit"].read_bytes()).hexdigest(),
    }


def test_what_is_published():
    """One for each size that has official backbones, pinned."""
    for part in ("vit", "resnet"):
        assert PUBLISHED[part].keys() == SIZES.keys() - {"glpi_small", "glpi_demo"}
    small = PUBLISHED["vit"]["glpi_s16"]
    assert small.repository == "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
    assert PUBLISHED["resnet"]["glpi_s16"].repository == "timm/resnet50.tv_in1k"
    files = {file for sizes in PUBLISHED.values() for file in sizes.values()}
    assert len({file.sha256 for file in files}) == len(files) == 4
    for file in files:
        assert re.fullmatch("[0-9a-f]{40}", file.revision)
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
