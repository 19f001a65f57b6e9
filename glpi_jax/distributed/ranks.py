"""Several processes that train together, one a host or one a GPU: starting, and what they share.

Each reads its part of the data; the devices of all form one mesh. Process 0 alone writes files that
are not checkpoints. All see the same folders.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.signals import take_sigterm_back


def start(
    distributed: str, coordinator: str | None, processes: int | None, process: int | None
) -> bool:
    """Join the other processes, before anything else uses JAX.

    Args:
        distributed: "auto" finds them by what TPU pods, Slurm or Open MPI tell; "off" is for a
            process that is alone, or whose place the next three arguments tell.
        coordinator: HOST:PORT of process 0.
        processes: how many there are.
        process: this one's number, from 0.

    Returns:
        Whether there are others.

    Raises:
        GlpiError: a place told in part, or twice, or others that do not answer.
    """
    told = (coordinator, processes, process)
    if distributed == "auto" and any(value is not None for value in told):
        raise GlpiError(
            "--distributed auto finds the other processes itself: leave out --coordinator,"
            " --processes and --process, or --distributed"
        )
    if distributed == "off" and all(value is None for value in told):
        return False
    if distributed == "off" and any(value is None for value in told):
        raise GlpiError("--coordinator, --processes and --process belong together: give all three")
    if process is not None and processes is not None and not 0 <= process < processes:
        raise GlpiError(f"--process {process} of --processes {processes}: there is no such process")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        remedy = (
            "this is no TPU pod, Slurm or Open MPI job; give --coordinator, --processes and"
            " --process"
            if distributed == "auto"
            else "is process 0 running there, with the same --processes?"
        )
        cause = " ".join(str(error).split())
        raise GlpiError(f"cannot join the other processes: {remedy} ({cause})") from error
    if jax.process_count() > 1:
        return True
    take_sigterm_back()  # alone after all
    return False


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return bool(jax.process_index() == 0)


def wait_for_all(where: str) -> None:
    """Go on when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def told_by_first(number: int) -> int:
    """The number that process 0 gives, on every process; below 2³¹."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def own_part(rows: Sequence[int]) -> Sequence[int]:
    """This process's part of some rows: every n-th of them."""
    return rows[jax.process_index() :: jax.process_count()]


def largest_part(count: int) -> int:
    """The most rows that a process has as its part of `count`."""
    return -(-count // jax.process_count())


def gather_parts(values: np.ndarray, count: int) -> np.ndarray:
    """Put together what each process has found for its part of `count` rows, in their order.

    Args:
        values: (rows of this process, n) float64, bit for bit.
        count: rows of all processes.

    Returns:
        (count, n) float64, the same on every process.
    """
    if jax.process_count() == 1:
        return values
    padded = np.full((largest_part(count), *values.shape[1:]), np.nan)
    padded[: len(values)] = values
    # As pairs of 32 bits: JAX would round 64-bit numbers.
    bits = multihost_utils.process_allgather(padded.view(np.uint32))  # (processes, part, 2n)
    parts = np.ascontiguousarray(bits).view(np.float64)
    return parts.swapaxes(0, 1).reshape(-1, values.shape[1])[:count]
