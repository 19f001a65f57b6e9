"""A cross-dataset run from a config to its report, under both protocols."""

import json
from pathlib import Path

import miniatures
import pytest
from short_runs import TINY

from glpi_jax.cli.main import main

pytestmark = pytest.mark.usefixtures("no_plots")

CONFIG = Path(__file__).parents[2] / "configs/cross.py"


@pytest.mark.parametrize("protocol", ["strict", "official"])
def test_trains_on_one_and_tests_on_others(protocol, shared_compilations, tmp_path):
    sizes = {"bid": 8, "clive": 6, "livemd": 3}
    roots = {
        kind: miniatures.build_miniature(kind, tmp_path / kind, references=count)
        for kind, count in sizes.items()
    }
    workdir = tmp_path / "run"
    command = [
        *("train", "--config", f"{CONFIG}:bid-clive,livemd", "--workdir", str(workdir)),
        f"--config.protocol={protocol}",
        f"--config.data.root={roots['bid']}",
        *(f"--config.targets.{kind}.root={roots[kind]}" for kind in ("clive", "livemd")),
        *TINY,
    ]
    assert main(command) == 0
    results = json.loads((workdir / "results.json").read_text())
    targets = {"test clive", "test livemd"}
    assert results["parts"].keys() == targets | ({"validation"} if protocol == "strict" else set())
    assert results["parts"]["test clive"]["images"] == sizes["clive"]
    labels = [row["mos"] for row in results["parts"]["test livemd"]["predictions"]]
    assert all(label < 0 for label in labels) is (protocol == "strict")  # a DMOS, turned
    if protocol == "official":
        means = [results["parts"][name]["metrics"]["srocc"] for name in sorted(targets)]
        assert results["selection"]["value"] == pytest.approx(sum(means) / 2, abs=1e-6)
    page = (workdir / "report.html").read_text()
    assert "clive" in page
    assert "livemd" in page
    again = [argument for argument in command if "clive.root" not in argument]
    assert main([*again, f"--config.targets.clive.root={tmp_path / 'elsewhere'}"]) == 2
