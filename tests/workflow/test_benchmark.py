"""Rounds of an experiment: what each is, what is made of them, and what a kill leaves."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGKILL

import miniatures
import numpy as np
import pytest

from glpi_jax.cli.main import main
from glpi_jax.core.config import load_config
from glpi_jax.data.sources import load_database
from glpi_jax.data.splits import official_seed, official_split
from glpi_jax.workflow.benchmark import round_of

pytestmark = pytest.mark.usefixtures("no_plots")

CONFIGS = Path(__file__).parents[2] / "configs"
ROUNDS = 3
# Of the official recipe what a miniature cannot bear.
SMALL = (
    "--config.model.name=glpi_demo",
    "--config.model.pretrained.vit=",
    "--config.model.pretrained.resnet=",
    "--config.train.batch_size=4",
    "--config.train.epochs=1",
    "--config.train.checkpoint_every_steps=2",
    "--config.train.log_every_steps=1",
    "--config.evaluation.crops=2",
    "--config.evaluation.batch_size=4",
    "--config.evaluation.bootstrap_resamples=20",
)


@pytest.fixture(
    scope="module",
    params=["synthetic.py:kadid10k", pytest.param("authentic.py:koniq10k", marks=pytest.mark.slow)],
)
def command(request, tmp_path_factory):
    """The arguments of a benchmark on a miniature, without the workdir."""
    kind = request.param.partition(":")[2]
    root = tmp_path_factory.mktemp("database") / kind
    references = {"kadid10k": 6, "koniq10k": 16}[kind]
    miniatures.build_miniature(kind, root, references=references, images_per_reference=3)
    protocol = {"kadid10k": "strict", "koniq10k": "official"}[kind]
    return [
        *("benchmark", "--config", str(CONFIGS / request.param), "--rounds", str(ROUNDS)),
        *(f"--config.data.root={root}", f"--config.protocol={protocol}", *SMALL),
    ]


@pytest.fixture(scope="module")
def undisturbed(command, shared_compilations, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "workdir"
    assert main([*command, "--workdir", str(workdir)]) == 0
    return workdir


def read(path):
    return json.loads(path.read_text())


def test_rounds_have_splits_and_seeds_of_their_own(command, undisturbed):
    benchmark = read(undisturbed / "benchmark.json")
    kind = benchmark["config"]["data"]["database"]
    database = load_database(kind, benchmark["config"]["data"]["root"])
    for number, record in enumerate(benchmark["rounds"], start=1):
        assert (record["round"], record["seed"]) == (number, number - 1)
        folder = undisturbed / record["folder"]
        results = read(folder / "results.json")
        assert record["split_sha256"] == results["split"]["sha256"]
        assert record["metrics"]["test"] == results["parts"]["test"]["metrics"]
        _, test = official_split(
            database.reference_order, train_fraction=0.8, seed=official_seed(number)
        )
        assert results["split"]["references"]["test"] == sorted(test)
    assert len({record["split_sha256"] for record in benchmark["rounds"]}) == ROUNDS


def test_the_summary_is_the_median_over_rounds(undisturbed):
    benchmark = read(undisturbed / "benchmark.json")
    for name, part in benchmark["summary"].items():
        for metric, spread in part["metrics"].items():
            values = [record["metrics"][name][metric] for record in benchmark["rounds"]]
            assert spread["rounds"] == ROUNDS
            if None in values:
                assert spread["median"] is None
                assert spread["undefined"] == values.count(None)
            else:
                assert spread["median"] == pytest.approx(np.median(values), abs=1e-12)
                assert (spread["min"], spread["max"]) == (min(values), max(values))


def test_the_protocol_decides_what_selects(undisturbed):
    benchmark = read(undisturbed / "benchmark.json")
    for record in benchmark["rounds"]:
        test = record["metrics"]["test"]["srocc"]
        if benchmark["protocol"] == "official":
            assert record["selection"]["criterion"].startswith("SROCC on the test part")
            assert record["metrics"].keys() == {"test"}
            assert record["selection"]["value"] == pytest.approx(test, abs=1e-6)
        else:
            assert record["selection"]["criterion"] == "SROCC on the validation part"
            assert record["metrics"].keys() == {"test", "validation"}


@pytest.mark.slow
def test_killed_twice_it_ends_the_same(command, undisturbed, shared_compilations, tmp_path):
    workdir = tmp_path / "workdir"
    arguments = [sys.executable, "-m", "glpi_jax", *command, "--workdir", str(workdir)]
    # In the first round and in the second, at some moment after its first steps.
    for folder in ("round_01", "round_02"):
        with subprocess.Popen(
            arguments, env=shared_compilations, stderr=subprocess.PIPE, text=True
        ) as process:
            started = workdir / folder / "metrics.csv"
            for _ in range(4000):  # over three minutes
                if started.exists() or process.poll() is not None:
                    break
                time.sleep(0.05)
            time.sleep(random.random())
            process.send_signal(SIGKILL)
            _, error = process.communicate()
        assert process.returncode == -SIGKILL, error
        assert not (workdir / "benchmark.json").exists()
    done = subprocess.run(
        arguments, env=shared_compilations, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for number in range(1, ROUNDS + 1):
        results = f"round_{number:02d}/results.json"
        assert read(workdir / results) == read(undisturbed / results)
    assert read(workdir / "benchmark.json") == read(undisturbed / "benchmark.json")


def test_a_finished_benchmark_is_read_again_and_more_rounds_may_follow(
    command, undisturbed, monkeypatch, capsys
):
    monkeypatch.setattr("glpi_jax.workflow.runs.fit", lambda *_, **__: False)  # nothing to train
    before = (undisturbed / "benchmark.json").read_text()
    assert main([*command, "--workdir", str(undisturbed)]) == 0
    assert (undisturbed / "benchmark.json").read_text() == before
    assert "± " in capsys.readouterr().out


def test_one_round_is_what_train_gives():
    config = load_config(str(CONFIGS / "synthetic.py:live"), ["--config.seed=5"])
    assert round_of(config, 1).to_dict() == config.to_dict()
    third = round_of(config, 3)
    assert (third.seed, third.split.round) == (7, 3)
    assert (config.seed, config.split.round) == (5, 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--rounds=0", "0 rounds: must be at least 1"),
        ("--config.split.round=2", "a benchmark counts rounds from 1 itself"),
    ],
)
def test_bad_rounds(option, message, tmp_path, capsys):
    command = ["benchmark", "--config", str(CONFIGS / "synthetic.py:live"), "--rounds=1", option]
    assert main([*command, "--workdir", str(tmp_path / "w")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
