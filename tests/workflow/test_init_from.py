"""Runs that start from other weights: SAQT pretraining on the fly, then fine-tuning."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file
from saqt_miniature import build_photographs
from short_runs import SMALL, short_config, stopped_before_the_first_step

import glpi_jax
from glpi_jax.cli.main import main
from glpi_jax.core.config import load_config, shipped_config
from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.mesh import make_mesh
from glpi_jax.models.glpi import build
from glpi_jax.workflow.runs import load_best, train_run
from glpi_jax.workflow.starting_weights import read_starting_weights

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, shared_compilations):
    """The workdir of a pretraining on three photographs, one of which trains."""
    folder = tmp_path_factory.mktemp("saqt")
    build_photographs(folder / "set", photographs=3, size=(70, 66))
    command = [
        *("train", "--config", shipped_config("saqt_pretrain"), "--workdir", str(folder / "run")),
        *SMALL,
        f"--config.data.root={folder / 'set/photographs'}",
        f"--config.data.labels={folder / 'set/labels'}",
        "--config.data.threads=2",
        "--config.split.train_fraction=0.67",
        "--config.split.validation_fraction=0.5",
    ]
    assert main(command) == 0
    return folder / "run"


@pytest.fixture
def config(kadid):
    """`config("--config.init_from=…")`: a fine-tuning of seconds."""
    return partial(short_config, kadid)


def read(path):
    return json.loads(path.read_text())


def leaves_of(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_arrays(tree, other):
    for leaf, expected in zip(leaves_of(tree), leaves_of(other), strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_pretraining_is_split_by_photograph(pretrained):
    results, split = read(pretrained / "results.json"), read(pretrained / "split.json")
    named = [*split["train"], *split["validation"], *split["test"]]
    assert sorted(named) == ["photo1.png", "photo2.bmp", "photo3.png"]
    for part in ("test", "validation"):
        predictions = results["parts"][part]["predictions"]
        assert len(predictions) == 125
        assert {entry["reference"] for entry in predictions} == set(split[part])
        assert len({(entry["distortion"], entry["level"]) for entry in predictions}) == 125
    assert results["init_from"] is None
    assert results["denoiser"].startswith("scikit-image ")
    assert read(pretrained / "run.json")["denoiser"] == results["denoiser"]


def test_fine_tuning_starts_from_a_run_and_then_stands_alone(
    pretrained, config, tmp_path, monkeypatch
):
    source = shutil.copytree(pretrained, tmp_path / "source")
    own = config(f"--config.init_from={source}")
    stopped_before_the_first_step(monkeypatch, own, tmp_path / "stopped")

    # The first checkpoint holds the selected weights of the source.
    _, expected, selection = load_best(source, make_mesh(-1))
    first = ocp.StandardCheckpointer().restore(tmp_path / "stopped/checkpoints/0/state")
    assert_same_arrays(first["params"], expected["params"])
    assert_same_arrays(first["batch_stats"], expected["batch_stats"])

    noted = read(tmp_path / "stopped/run.json")["init_from"]
    assert noted == {
        "path": str(source),
        "sha256": noted["sha256"],
        "selection": selection,
    }

    # Had it been stopped before that, it would read them again, if they are the same.
    earlier = shutil.copytree(tmp_path / "stopped", tmp_path / "earlier")
    shutil.rmtree(earlier / "checkpoints")
    changed = read(earlier / "run.json")
    changed["init_from"]["sha256"] = "0" * 64
    (earlier / "run.json").write_text(json.dumps(changed))
    with pytest.raises(GlpiError, match=r"source: has changed since .*run\.json noted its SHA-256"):
        train_run(own, earlier)

    # From there on the source need not exist any more.
    shutil.rmtree(source)
    assert train_run(own, tmp_path / "stopped")
    assert read(tmp_path / "stopped/results.json")["init_from"] == noted
    assert not train_run(own, tmp_path / "stopped")

    from_scratch = config()
    with pytest.raises(GlpiError, match=r"config\.init_from = '' \(was "):
        train_run(from_scratch, tmp_path / "stopped")


def test_an_official_checkpoint(model_golden, tmp_path):
    golden = model_golden("forward_vit_tiny")
    path = tmp_path / "official.safetensors"
    save_file({name: np.array(array) for name, array in golden.state_dict.items()}, path)
    model, expected = glpi_jax.load_torch(path)
    weights = read_starting_weights(str(path), model, make_mesh(-1))
    assert_same_arrays(weights.variables, expected)
    assert weights.origin["path"] == str(path)
    assert weights.origin["selection"] is None
    assert len(weights.origin["sha256"]) == 64
    with pytest.raises(GlpiError, match=r"official\.safetensors: .* than config\.model says: .*\("):
        read_starting_weights(str(path), build("glpi_demo", dropout=0.5), make_mesh(-1))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.pth", "neither a workdir nor a checkpoint file"),
        ("", "no trained model here"),
        ("notes.safetensors", "not a readable safetensors file"),
    ],
)
def test_what_is_no_start_is_refused_before_there_is_a_workdir(config, tmp_path, name, words):
    (tmp_path / "notes.safetensors").write_text("notes")
    with pytest.raises(GlpiError, match=words):
        train_run(config(f"--config.init_from={tmp_path / name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_model_lists_the_differences(pretrained, config, tmp_path):
    own = config(f"--config.init_from={pretrained}", "--config.model.name=glpi_ti16")
    with pytest.raises(GlpiError, match=r"another model than config\.model says") as caught:
        train_run(own, tmp_path / "run")
    text = str(caught.value)
    assert " missing: batch_stats/clfe/backbone/layer1_1/bn1/mean, " in text
    assert " misshapen: " in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.distortion_seed=-1", "config.data.distortion_seed = -1"),
        ("data.dncnn=/no/such/dncnn.pth", "dncnn.pth: no such checkpoint file"),
        ("data.labels=/no/such/labels", "/no/such/labels: the label file is missing"),
    ],
)
def test_bad_settings_of_a_pretraining(pretrained, tmp_path, override, words):
    saved = read(pretrained / "run.json")["config"]
    own = load_config(
        shipped_config("saqt_pretrain"),
        [
            *SMALL,
            f"--config.data.root={saved['data']['root']}",
            f"--config.data.labels={saved['data']['labels']}",
            "--config.split.train_fraction=0.67",
            "--config.split.validation_fraction=0.5",
            f"--config.{override}",
        ],
    )
    with pytest.raises(GlpiError) as caught:
        train_run(own, tmp_path / "run")
    assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_seen_what_is_tested_is_told(trained, tmp_path, monkeypatch, capsys):
    def begin(*overrides):
        path, *rest = trained.config[1], *trained.overrides, *overrides
        own = load_config(path, [*rest, f"--config.init_from={trained.workdir}"])
        workdir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        stopped_before_the_first_step(monkeypatch, own, workdir)
        return workdir, capsys.readouterr().err

    assert "warning" not in begin()[1]
    workdir, told = begin("--config.split.round=2")
    before, after = read(trained.workdir / "split.json"), read(workdir / "split.json")
    for part in ("test", "validation"):
        scenes = sorted({name.split("_")[0] for name in after[part]})
        shared = [s for s in scenes if any(name.startswith(s) for name in before["train"])]
        line = f"was trained on {len(shared)} references of the {part} part ({', '.join(shared)})"
        assert (line in told) is bool(shared)
    assert "was trained on" in told
