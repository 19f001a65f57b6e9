"""Work spread over processes of this machine."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.signals import leave_to_parent

T = TypeVar("T")

_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TASKS_A_PROCESS = 2  # handed out at a time, so that none waits for the next

# Set in a worker process; its parent does so when the others' results are no longer wanted.
_stop: Event | None = None


class Stopped(Exception):
    """Raised in a task whose result is no longer wanted."""


def check_stopped() -> None:
    """End a long task early where that is safe.

    Raises:
        Stopped: the results are no longer wanted.
    """
    if _stop is not None and _stop.is_set():
        raise Stopped


def run_unordered(
    function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], processes: int, *, what: str
) -> Generator[T, None, None]:
    """Yield `function(*task)` of every task as it finishes.

    Each process works in one thread, as far as the numerical libraries go. A worker ends by itself
    when its parent is gone. With one process everything runs in this one.

    Args:
        function: of a module, so that a process can import it.
        tasks: its arguments, which pickle; taken as they are needed.
        processes: how many work side by side; with more than one, a script that calls this needs
            the `if __name__ == "__main__":` guard.
        what: what the processes do, for messages, such as "rendering".

    Raises:
        GlpiError: processes below 1, or a process that died; and whatever `function` raises.
    """
    if processes < 1:
        raise GlpiError(f"processes {processes}: must be at least 1")
    if processes == 1:
        for task in tasks:
            yield function(*task)
        return
    # Spawned, not forked: a process that has started JAX or Grain must not be forked.
    spawn = multiprocessing.get_context("spawn")
    stop = spawn.Event()
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            processes, mp_context=spawn, initializer=_start_worker, initargs=(stop,)
        )
        try:
            yield from _results(pool, function, iter(tasks), _TASKS_A_PROCESS * processes)
        except BrokenProcessPool:
            raise GlpiError(
                f"a {what} process died, for lack of memory perhaps; use fewer processes, and in a"
                ' script put the call under if __name__ == "__main__":'
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor,
    function: Callable[..., T],
    tasks: Iterator[tuple[Any, ...]],
    at_a_time: int,
) -> Iterator[T]:
    running: set[Future[T]] = {pool.submit(function, *task) for task in islice(tasks, at_a_time)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(function, *task) for task in islice(tasks, len(done))}
        for future in done:
            yield future.result()


def _start_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    leave_to_parent(sigterm=False)
    end_with_parent()


def end_with_parent() -> None:
    """In a worker: end when the parent has ended, which a killed one cannot see to."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """For the processes that are started meanwhile; libraries read these variables when loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_COUNTS}
    os.environ.update(dict.fromkeys(_THREAD_COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
