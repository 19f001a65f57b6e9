"""A trace of a few training steps, for XProf or TensorBoard's profile plugin."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import jax

from glpi_jax.distributed.ranks import is_first

_FIRST, _COUNT = 5, 5  # steps after the start: the first ones compile


class Profile:
    """Traces the fifth to ninth step since the start into a folder; without one it does nothing."""

    def __init__(self, folder: Path | None, start_step: int):
        """`start_step` is the last step that is already done."""
        # Of process 0 alone: those of one host would write one file.
        self._folder = folder if is_first() else None
        self._first = start_step + _FIRST
        self._last = self._first + _COUNT - 1
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the dispatch of a step, counted from 1."""
        if self._folder is None:
            yield
            return
        if number == self._first:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        annotation = jax.profiler.StepTraceAnnotation("train", step_num=number)
        with annotation if self._tracing else contextlib.nullcontext():
            yield
        if number == self._last:
            self._stop()

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.effects_barrier()
            jax.profiler.stop_trace()
            print(f"trace of {_COUNT} steps: {self._folder}", flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
