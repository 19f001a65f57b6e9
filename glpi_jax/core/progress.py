"""Progress on the terminal: a live bar, or now and then a plain line where there is no terminal.

The bar is drawn by rich, which Flax depends on anyway. All of it goes to stderr; stdout belongs to
results.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

__all__ = ["ProgressBar", "progress_bar"]

# The speed is an average over this time, or over the last two counts where these are further apart.
_SPEED_WINDOW_SECONDS = 60.0


class ProgressBar:
    """What `progress_bar` hands out: count with `advance`, show values with `note`."""

    def __init__(
        self,
        total: int | None,
        *,
        unit: str,
        description: str,
        initial: int,
        show: Callable[[ProgressBar], None],
        clock: Callable[[], float],
    ) -> None:
        """Begin at `initial`; `show` is called after every change, `clock` gives seconds."""
        self.total = total
        self.completed = initial
        self._initial = initial
        self._unit = unit
        self.description = description
        self._show = show
        self._clock = clock
        self._started = clock()
        self._samples: deque[tuple[float, int]] = deque()
        self._notes: dict[str, str] = {}

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        now = self._clock()
        self.completed += count
        # The first count only starts the watch: it is slow, since it includes the compilation.
        self._samples.append((now, self.completed))
        while len(self._samples) > 1 and self._samples[1][0] < now - _SPEED_WINDOW_SECONDS:
            self._samples.popleft()
        self._show(self)

    def note(self, **values: float | int | str | None) -> None:
        """Show these values with the count from now on; None takes one away."""
        for name, value in values.items():
            if value is None:
                self._notes.pop(name, None)
            else:
                self._notes[name] = f"{value:.4g}" if isinstance(value, float) else str(value)
        self._show(self)

    @property
    def speed(self) -> float | None:
        """Units a second, lately; None before the second count."""
        if len(self._samples) < 2:
            return None
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else None

    def status(self) -> str:
        """Give speed, time left (when done: time taken) and notes, as in `95.2 images/s, …`."""
        parts = []
        if self.speed:
            parts.append(f"{self.speed:.3g} {self._unit}s/s")
        if self.total is None:
            parts.append(f"{_duration(self._clock() - self._started)} so far")
        elif self.completed >= self.total:
            parts.append(f"took {_duration(self._clock() - self._started)}")
        elif self.speed:
            parts.append(f"{_duration((self.total - self.completed) / self.speed)} left")
        parts += [f"{name} {value}" for name, value in self._notes.items()]
        return ", ".join(parts)

    def line(self) -> str:
        """Give the whole state in one line, as it is printed where there is no terminal."""
        if self.total is None:
            count = f"{self.description}: {self.completed} {self._unit}s"
            return ", ".join([count, self.status()])
        percent = 100 * self.completed // self.total if self.total else 100
        count = f"{self.description}: {self.completed}/{self.total} {self._unit}s ({percent} %)"
        return ", ".join(filter(None, [count, self.status()]))


@contextmanager
def progress_bar(
    total: int | None,
    *,
    unit: str,
    description: str,
    initial: int = 0,
    leave: bool = True,
    enabled: bool = True,
    line_every: float = 30.0,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ProgressBar]:
    """Show how far a loop is, how fast it goes and how long it will take.

        with progress_bar(len(images), unit="image", description="train") as bar:
            ...
            bar.advance(len(batch))
            bar.note(loss=loss)

    On a terminal that is a live bar. Elsewhere (a log file, a batch system, a notebook) it is a
    plain line every `line_every` seconds and one at the end. Bars may be nested.

    Args:
        total: units in all, those already done included; None where nobody knows.
        unit: what is counted, in the singular: `image`, `step`.
        description: what is going on, in a word or two.
        initial: units that an earlier run has done; they do not count for the speed.
        leave: keep the finished bar, or print the last line. False suits a bar inside another.
        enabled: False shows nothing, as on all processes of a multi-host run but the first.
        line_every: seconds between plain lines.
        console: where to draw; stderr unless given.
        clock: seconds, from any start.

    Yields:
        The bar, to be advanced.
    """
    # soft_wrap: lines that are printed above the bar stay whole, to be copied.
    console = console or Console(stderr=True, soft_wrap=True)
    display: AbstractContextManager[Callable[[ProgressBar], None]]
    if not enabled:
        display = nullcontext(lambda bar: None)
    # isatty besides, since rich takes a log file for a terminal where FORCE_COLOR is set.
    elif console.is_interactive and console.file.isatty():
        display = _live_bar(console, leave)
    else:
        display = _plain_lines(console, leave, line_every, clock)
    with display as show:
        bar = ProgressBar(
            total, unit=unit, description=description, initial=initial, show=show, clock=clock
        )
        show(bar)
        yield bar


@contextmanager
def _live_bar(console: Console, leave: bool) -> Iterator[Callable[[ProgressBar], None]]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        transient=not leave,
        # Printed lines go above the bar, but results for a file or a pipe are left alone.
        redirect_stdout=sys.stdout.isatty(),
    )
    task: list[TaskID] = []

    def show(bar: ProgressBar) -> None:
        status = escape(bar.status())
        if not task:
            name = escape(bar.description)
            task.append(progress.add_task(name, total=bar.total, status=status))
        progress.update(task[0], completed=bar.completed, status=status)

    with progress:
        yield show


@contextmanager
def _plain_lines(
    console: Console, leave: bool, line_every: float, clock: Callable[[], float]
) -> Iterator[Callable[[ProgressBar], None]]:
    last_time = clock()
    last_bar: ProgressBar | None = None

    def print_line(bar: ProgressBar) -> None:
        # Not console.print, which wraps at 80 columns and colours.
        print(bar.line(), file=console.file, flush=True)

    def show(bar: ProgressBar) -> None:
        nonlocal last_time, last_bar
        last_bar = bar
        if clock() - last_time >= line_every:
            last_time = clock()
            print_line(bar)

    try:
        yield show
    finally:
        # Also after an error: how far it came is worth a line.
        if leave and last_bar is not None:
            print_line(last_bar)


def _duration(seconds: float) -> str:
    """Write 42 s, 3 min 05 s, 2 h 07 min or 1 d 04 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
