"""One, two and five processes evaluate alike, also where some have no image of a part."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from own_process import free_port, with_devices

CROPS = "--config.evaluation.batch_size=10"  # shared out evenly by all


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 5])
def test_results_are_those_of_one_process(trained, shared_compilations, tmp_path, processes):
    workdir = tmp_path / "workdir"
    shutil.copytree(trained.workdir, workdir)
    address = f"127.0.0.1:{free_port()}"
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "glpi_jax", "evaluate", "--workdir", workdir),
                *(*trained.config, CROPS),
                *("--coordinator", address, "--processes", str(processes)),
                *("--process", str(number)),
            ],
            env=with_devices(shared_compilations, 1),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, errors
    results, expected = (
        json.loads((folder / "results.json").read_text()) for folder in (workdir, trained.workdir)
    )
    assert min(len(part["predictions"]) for part in expected["parts"].values()) < 5
    for name, part in expected["parts"].items():
        found = results["parts"][name]
        assert found["metrics"]["srocc"] == part["metrics"]["srocc"]
        assert [p["image"] for p in found["predictions"]] == [
            p["image"] for p in part["predictions"]
        ]
        np.testing.assert_allclose(
            [p["predicted"] for p in found["predictions"]],
            [p["predicted"] for p in part["predictions"]],
            rtol=1e-5,
        )
