import json
import os
import subprocess
import sys
from pathlib import Path


def test_eight_devices_step_like_one():
    """Loss, predictions, parameters and BatchNorm statistics, within float32 rounding."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("data_parallel_step.py"))],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert sum("batch_stats" in name for name in differences) == 26
    wrong = {
        name: (difference, largest)
        for name, (difference, largest) in differences.items()
        if difference > 1e-5 * max(1.0, largest)
    }
    assert not wrong
