"""What Ctrl-C and SIGTERM do; every handler of the package is set by a function of this module.

==============================  ======================  ==========================================
who                             Ctrl-C                  SIGTERM
==============================  ======================  ==========================================
command that resumes or clears  ends, exit code 130     ends, exit code 75: `sigterm_raises`
any other command               ends, exit code 130     ends at once: the system's default
`glpi serve`                    ends, exit code 0       answers what it has begun, then ends
training loop                   finishes its step,      finishes its step, saves, then exit code 75:
                                saves nothing           `stop_between_steps`
training loop with peers        finishes its step       JAX listens: all save after the same step
process that found no peers     as any command          Python's again: `take_sigterm_back`
worker of `core.pools`          ignores it              ends at once; both: `leave_to_parent`
worker of the input pipeline    ignores it              ignores it, the training may still save
launch/local.sh                 passes on SIGTERM       passes it on; starts nothing again
==============================  ======================  ==========================================

A command says which it is by `set_defaults(resumes=…)` or `(clears_away=…)` in its module of `cli`.
A second Ctrl-C ends a training loop at once. A worker ends with its parent in any case
(`core.pools.end_with_parent`). `cli.main` turns what is raised into exit codes.
"""

import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from glpi_jax.core.errors import Terminated

# Of the process, not of a run: JAX agrees on the next number that nobody has asked about, which a
# resumed or a second run, counting its own steps, would pass over.
_asked = itertools.count(1)


class Stop:
    """What `stop_between_steps` has heard."""

    def __init__(self) -> None:
        """Nothing so far."""
        self.interrupted = threading.Event()
        self.terminated = threading.Event()

    def raise_if_interrupted(self) -> None:
        """Raise a KeyboardInterrupt after Ctrl-C."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt

    def save_and_end(self) -> bool:
        """Whether to save after this step and to end with `Terminated`; called after every step.

        Of several processes all get the same answer, some steps after one of them had the signal.
        """
        import jax
        from jax.experimental import multihost_utils

        if jax.process_count() > 1:
            # JAX itself listens to SIGTERM in a process that has joined others.
            return bool(multihost_utils.reached_preemption_sync_point(next(_asked)))
        return self.terminated.is_set()


@contextmanager
def stop_between_steps() -> Iterator[Stop]:
    """Hold Ctrl-C and SIGTERM back until the yielded object is asked.

    A second Ctrl-C raises at once, a second SIGTERM changes nothing. Outside the main thread, where
    signals do not arrive, nothing is held back.
    """
    import jax

    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.interrupted.is_set():
            signal.default_int_handler(number, frame)
        stop.interrupted.set()

    def terminate(number: int, frame: FrameType | None) -> None:
        stop.terminated.set()

    handlers = {signal.SIGINT: interrupt}
    if jax.process_count() == 1:
        handlers[signal.SIGTERM] = terminate
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_raises(*, enabled: bool) -> Iterator[None]:
    """Turn SIGTERM into `Terminated`, where signals arrive; the training loop holds it back."""
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_to_parent(*, sigterm: bool) -> None:
    """Ignore Ctrl-C in a worker, and SIGTERM if `sigterm`: its parent decides what comes of them.

    Ctrl-C reaches every process of a terminal, SIGTERM every one of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def take_sigterm_back() -> None:
    """Set Python's handler of SIGTERM again, where JAX has put one of its own."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
