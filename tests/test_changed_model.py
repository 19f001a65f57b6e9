"""The diffs of docs/change_the_model.md, and all that a model with the first one goes through."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from glpi_jax.results.metrics_file import read_metrics

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "docs/change_the_model.md").read_text(), re.DOTALL)
OWN = "params/quality_head/extra/kernel"
OVERRIDES = (
    "--config.train.loss=plcc",
    "--config.optimizer.name=adamw",
    "--config.optimizer.arguments.weight_decay=0.05",
    "--config.optimizer.rules=(('vgfe/patch_embed/.*', None), ('.*', 1.0))",
    "--config.model.pretrained.vit=vit.safetensors",
    "--config.model.pretrained.resnet=resnet.safetensors",
    "--config.train.batch_size=8",  # of sixteen images: two steps
    "--config.train.epochs=1",
    "--config.train.log_every_steps=1",
    "--config.evaluation.every_epochs=1",
    "--config.evaluation.crops=1",
    "--config.evaluation.batch_size=4",
    "--config.evaluation.bootstrap_resamples=0",
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of package and configs, as a checkout has them."""
    folder = tmp_path_factory.mktemp("checkout")
    leave_out = shutil.ignore_patterns("__pycache__", "shipped")
    for name in ("glpi_jax", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    return folder


def apply(diff, folder, *options):
    subprocess.run(["git", "apply", *options], input=diff, cwd=folder, check=True, text=True)


def test_every_diff_of_the_page_applies(copy):
    assert len(DIFFS) == 4
    for diff in DIFFS:
        apply(diff, copy, "--check")


@pytest.fixture(scope="module")
def changed(copy, make_database, shared_compilations):
    """The folder in which a model with the first diff was trained, and what was found."""
    database = make_database(copy / "database")
    apply(DIFFS[0], copy)
    script = ROOT / "tests/support/changed_model.py"
    done = subprocess.run(
        [sys.executable, str(script), str(database), *OVERRIDES],
        cwd=copy,
        env={**shared_compilations, "PYTHONPATH": str(copy)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return copy, json.loads((copy / "found.json").read_text())


def test_it_trains_with_another_loss_and_optimizer(changed):
    folder, found = changed
    assert found["train"]["code"] == 0, found["train"]["stderr"]
    # 48² weights and 48 biases of the new layer, beside those of fc1 and fc2.
    assert "parameters: quality_head 4,753 (0.02 MiB), trained, whole" in found["train"]["stderr"]
    losses = {r.step: r.value for r in read_metrics(folder / "run/metrics.csv") if "loss" in r.name}
    assert losses.keys() == {1, 2}
    assert all(0 < loss < 2 for loss in losses.values())  # 1 − a correlation; labels go to 4.5


def test_it_starts_from_backbones(changed):
    """Of which a frozen layer is as it was."""
    folder, _ = changed
    given = load_file(folder / "vit.safetensors")["patch_embed.proj.weight"]
    with np.load(folder / "weights.npz") as weights:
        np.testing.assert_array_equal(weights["patch_embed"], given.transpose(2, 3, 1, 0))


def test_its_hub_folder_holds_it_and_gives_the_same_scores(changed):
    folder, found = changed
    assert found["push"]["code"] == 0, found["push"]["stderr"]
    published = load_file(folder / "published/model.safetensors")
    with np.load(folder / "weights.npz") as weights:
        np.testing.assert_array_equal(published[OWN], weights["extra"])
    assert "quality_head.layers.0.weight" in published
    assert found["score of published"] == found["score of run"]
    card = (folder / "published/README.md").read_text()
    assert f"Not in the official model, by their Flax paths: {OWN}" in card.replace(
        "params/quality_head/extra/bias, ", ""
    )


def test_its_program_gives_the_same_scores(changed):
    _, found = changed
    assert found["export"]["code"] == 0, found["export"]["stderr"]
    np.testing.assert_allclose(found["score of program"], found["score of run"], atol=2e-6)


def test_it_is_no_official_checkpoint(changed):
    folder, found = changed
    assert found["port"]["code"] == 2
    line = found["port"]["stderr"].splitlines()[-1]
    assert line.startswith("glpi: error: run, step 2: params/quality_head/extra/")
    assert "no name in official PyTorch files" in line
    assert not (folder / "model.safetensors").exists()
