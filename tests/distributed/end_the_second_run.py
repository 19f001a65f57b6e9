"""Run by test_processes.py: of two processes one gets SIGTERM between two runs.

Arguments: the port and this process's number. Prints the step after which the second run ends.
"""

import os
import signal
import sys

import numpy as np
from jax.experimental import multihost_utils

from glpi_jax.core.signals import stop_between_steps
from glpi_jax.distributed.ranks import start

port, number = sys.argv[1:]


def last_step(steps):
    with stop_between_steps() as stop:
        for step in range(1, steps + 1):
            multihost_utils.process_allgather(np.zeros(1))
            if stop.save_and_end():
                return step
    return None


start("off", f"127.0.0.1:{port}", 2, int(number))
assert last_step(3) is None
if number == "1":
    os.kill(os.getpid(), signal.SIGTERM)
print(last_step(5000))
