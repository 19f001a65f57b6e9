"""A trace of a few training steps, for XProf or TensorBoard's profile plugin."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import jax

from glpi_jax.distributed.ranks import is_first

_FIRST, _COUNT = 5, 5  # steps after the start: the first ones compile


@contextmanager
def profiled_steps(
    folder: Path | None, start_step: int
) -> Iterator[Callable[[int], AbstractContextManager[None]]]:
    """Trace the fifth to ninth step since the start into a folder; without one do nothing.

    Yields a context for the dispatch of a step, by its number counted from 1. `start_step` is the
    last step that is already done.
    """
    # Of process 0 alone: those of one host would write one file.
    folder = folder if is_first() else None
    first = start_step + _FIRST
    trace = ExitStack()

    @contextmanager
    def profiled(step: int) -> Iterator[None]:
        if folder is not None and step == first:
            trace.enter_context(_trace(folder))
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        if step == first + _COUNT - 1:
            trace.close()

    with trace:
        yield profiled


@contextmanager
def _trace(folder: Path) -> Iterator[None]:
    jax.profiler.start_trace(folder)
    try:
        yield
    finally:
        jax.effects_barrier()
        jax.profiler.stop_trace()
        print(f"trace of {_COUNT} steps: {folder}", flush=True)
