"""Ctrl-C and SIGTERM between steps: a step, a save or a write under way is finished first."""

import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

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
