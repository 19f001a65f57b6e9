"""Run by test_processes.py: a command of two processes, one of which ends as it is told.

Arguments: the port, this process's number, and how process 1 ends: killed, with bad input, by
Ctrl-C, or by an error that nobody has foreseen.
"""

import os
import signal
import sys

import numpy as np
from jax.experimental import multihost_utils

from glpi_jax.cli import serve
from glpi_jax.cli.common import add_command
from glpi_jax.cli.main import main
from glpi_jax.cli.run import add_process_options
from glpi_jax.core.errors import GlpiError
from glpi_jax.distributed.ranks import start

port, number, end = sys.argv[1:]
ENDS = {
    "bad input": GlpiError("a.png: not an image"),
    "interrupted": KeyboardInterrupt(),
    "unforeseen": KeyError("no such name"),
}


def lose_one(args):
    args.joined = start(args.distributed, args.coordinator, args.processes, args.process)
    for count in range(1000):
        multihost_utils.process_allgather(np.zeros(1))
        if count == 3 and number == "1" and end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == 3 and number == "1" and end in ENDS:
            raise ENDS[end]
    return 0


def add(commands):
    parser = add_command(commands, "lose-one", "Lose process 1.")
    add_process_options(parser)
    parser.set_defaults(run=lose_one, resumes=True)


serve.add = add
place = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process", number]
sys.exit(main(["lose-one", *place]))
