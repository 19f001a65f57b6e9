"""The scripts of benchmarks/ at their smallest: they run, and write what they are read for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from own_process import with_devices
from PIL import Image
from skimage import data

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL_MODEL = ("model_speed.py", "--model", "glpi_demo", "--batch", "2", "--peak", "1", "--steps")

pytestmark = pytest.mark.slow


@pytest.fixture
def run(shared_compilations, tmp_path):
    """Run a script in a process of its own; returns the JSON that it writes."""

    def run_script(script, *options):
        file = tmp_path / "figures.json"
        command = [sys.executable, FOLDER / script, *options, "--json", file]
        done = subprocess.run(
            command, env=with_devices(shared_compilations, 1), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(file.read_text())

    return run_script


@pytest.mark.parametrize("what", ["train", "score"])
def test_model_speed_counts_flops_as_xla_does(run, what):
    (measured,) = run(*SMALL_MODEL, "2", "--what", what)["runs"]
    figures = measured["sides"]["jax"]
    assert len(figures["ms"]) == 2
    assert figures["images_per_second"] > 0
    # By hand only products count, and padding does; XLA counts the rest, and what it needs of that.
    by_xla = figures["flops_by_xla_before_compilation"]
    assert figures["flops_by_hand"] == pytest.approx(by_xla, rel=0.15)


def test_scaling_splits_the_state(run):
    runs = run("scaling.py", "--devices", "1", "2", "--batch", "4", "--steps", "1")["runs"]
    alone, data, fsdp = (figures["state_bytes"] for figures in runs)
    assert data == alone
    assert fsdp < 0.6 * alone
    # The gradients, which are a third of the state but for what is frozen, and not much else.
    assert runs[0]["collective_bytes"] == 0
    assert 0.2 * alone < runs[1]["collective_bytes"] < 0.5 * alone


def test_streamed_photographs_are_scored_as_one_by_one(run):
    figures = run("scoring_files.py", "--images", "8", "--megapixels", "2")
    assert figures["images"] == 8
    assert figures["compiled_programs"] <= 8
    assert figures["streamed_images_per_second"] > 0


@pytest.fixture
def labelled(tmp_path):
    """A folder with labels.csv: a photograph under rising noise, large enough for NIQE."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    lines = ["image,score"]
    rng = np.random.default_rng(0)
    for level in range(6):
        pixels = data.astronaut()[:240, 100:400] + rng.normal(0, 10 * level, (240, 300, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{level}.png")
        lines.append(f"{level}.png,{5 - level}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("method", ["niqe", "glpi"])  # BRISQUE is not among the tests' packages
def test_baselines_see_noise(run, labelled, method):
    (figures,) = run(
        *("baselines.py", "--database", "csv", "--root", labelled, "--methods", method)
    )["methods"]
    assert (figures["method"], figures["images"]) == (method, 6)
    assert figures["images_per_second"] > 0
    assert figures["srocc"] > 0.5


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("distortions.py", ("--repeats", "1", "--size", "64x48")),
        ("denoisers.py", ("--size", "48x32")),
        ("input_pipeline.py", ("--images", "2", "--batches", "1", "--batch-size", "2")),
    ],
)
def test_others_write_figures(run, script, options):
    assert run(script, *options)
