"""Progress on the terminal: rich's bar, or a plain line now and then where there is no terminal.

All of it goes to stderr; stdout belongs to results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

__all__ = ["ProgressBar", "progress_bar"]

# The speed is an average over this time, or over the last two counts where these are further apart.
_SPEED_WINDOW_SECONDS = 60.0


class ProgressBar:
    """What `progress_bar` yields: count with `advance`, show values with `note`."""

    def __init__(
        self,
        progress: Progress,
        *,
        total: int | None,
        unit: str,
        description: str,
        initial: int,
        show: Callable[[], None],
    ) -> None:
        """Begin at `initial`; `show` is called after every change."""
        self._progress, self._unit, self._show = progress, unit, show
        self._notes: dict[str, str] = {}
        self._columns = (
            MofNCompleteColumn(),
            TaskProgressColumn(),
            _SpeedColumn(unit),
            _TimeColumn(),
            TextColumn("{task.fields[notes]}", markup=False),
        )
        name = TextColumn("{task.description}", markup=False)
        progress.columns = (name, BarColumn(bar_width=20), *self._columns)
        self._counted = progress.get_time()
        self._id = progress.add_task(description, total=total, completed=initial, notes="")
        progress.update(self._id)  # nothing to do is finished

    def advance(self, count: int = 1) -> None:
        """Count `count` more units as done."""
        self._update(advance=count)
        self._counted = self._progress.get_time()

    def set_total(self, total: int) -> None:
        """Say how many units there are in all, where the beginning did not know."""
        self._update(total=total)

    def note(self, **values: float | int | str | None) -> None:
        """Show these values with the count from now on; None takes one away."""
        for name, value in values.items():
            if value is None:
                self._notes.pop(name, None)
            else:
                self._notes[name] = f"{value:.4g}" if isinstance(value, float) else str(value)
        self._update(notes=", ".join(f"{name} {value}" for name, value in self._notes.items()))

    def line(self) -> str:
        """Return the whole state in one line, as it is printed where there is no terminal."""
        (task,) = self._progress.tasks
        count, *others = (column.render(task).plain.strip() for column in self._columns)
        return ", ".join(filter(None, [f"{task.description}: {count} {self._unit}s", *others]))

    def _update(self, **changes: Any) -> None:
        # Every update forgets counts older than this; the speed needs the last one.
        since = self._progress.get_time() - self._counted
        self._progress.speed_estimate_period = max(_SPEED_WINDOW_SECONDS, since + 1)
        self._progress.update(self._id, **changes)
        self._show()


class _SpeedColumn(ProgressColumn):
    """Units a second; of rich's own columns one counts bytes, another rounds to tenths."""

    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True))
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} {self._unit}s/s" if task.speed else "")


class _TimeColumn(ProgressColumn):
    """Time left; time taken when done or where the total is unknown."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        if task.total is None or task.finished:
            return TimeElapsedColumn().render(task).append(" elapsed")
        return TimeRemainingColumn().render(task).append(" left")


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
    # isatty besides, since rich takes a log file for a terminal where FORCE_COLOR is set.
    live = enabled and console.is_interactive and console.file.isatty()
    progress = Progress(
        console=console,
        transient=not leave,
        # Printed lines go above the bar, but results for a file or a pipe are left alone.
        redirect_stdout=sys.stdout.isatty(),
        get_time=clock,
    )
    shown = clock()

    def show() -> None:
        nonlocal shown
        if enabled and not live and clock() - shown >= line_every:
            shown = clock()
            print_line()

    def print_line() -> None:
        # Not console.print, which wraps at 80 columns and colours.
        print(bar.line(), file=console.file, flush=True)

    bar = ProgressBar(
        progress, total=total, unit=unit, description=description, initial=initial, show=show
    )
    with progress if live else nullcontext():
        try:
            yield bar
        finally:
            # Also after an error: how far it came is worth a line.
            if enabled and not live and leave:
                print_line()
