"""Scalars of a run, on disk: `metrics.csv` for the report and TensorBoard event files.

`metrics.csv` has one value a row, `step,epoch,name,value`, and is the record that the report is
drawn from. TensorBoard files are written by tensorboardX, which needs NumPy and protobuf alone
(TensorFlow is 1.3 GB; TensorBoard's own writer brings its web server along), and by its record
writer: `SummaryWriter` hands events to a thread, which a full disk ends, and then waits for ever.
"""

import csv
import io
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from glpi_jax.core.errors import GlpiError
from glpi_jax.core.files import write_text
from glpi_jax.results.metrics_file import HEADER, METRICS_FILE, MetricRow, read_metrics

TENSORBOARD_FOLDER = "tensorboard"


class MetricWriter(AbstractContextManager["MetricWriter"]):
    """Write scalars to `metrics.csv` and to TensorBoard files under the workdir.

    A run that resumes from a checkpoint at step k repeats the steps after k. Rows of these steps
    that an earlier, interrupted run left are dropped when the writer is made, so that the file
    holds every value once; TensorBoard is told to hide them likewise. Call `flush` before a
    checkpoint is saved, so that no row up to its step can be lost.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], start_step: int, *, enabled: bool = True
    ) -> None:
        """Open both files, which are made if need be.

        Args:
            workdir: the folder of the run, made if it is missing.
            start_step: the last step that is already done: 0 at a fresh start, k when resuming
                from a checkpoint of step k.
            enabled: False on every process but the first of a multi-host run, where this writer
                then touches no file.

        Raises:
            GlpiError: an existing `metrics.csv` cannot be read, or nothing be written.
        """
        self._start_step = self._last_step = start_step
        self._closed = False
        self._files: tuple[TextIO, EventsWriter] | None = None
        self._path = path = Path(workdir) / METRICS_FILE
        if not enabled:
            return
        events = path.with_name(TENSORBOARD_FOLDER)
        with self._writing():
            events.mkdir(parents=True, exist_ok=True)
            old = read_metrics(path) if path.exists() else []
            write_text(path, _lines([HEADER, *(row for row in old if row.step <= start_step)]))
            table = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
            # The file name counts whole seconds, so that a quick restart would overwrite a file.
            record = EventsWriter(str(events / "events"), f".{time.time_ns()}")
            self._files = table, record
            # Hides what an interrupted run has written after the start.
            start = SessionLog(status=SessionLog.START)
            record.write_event(_event(start_step + 1, session_log=start))

    def write(self, step: int, epoch: int, values: Mapping[str, float | None]) -> None:
        """Record the scalars of one step.

        Args:
            step: steps done so far; more than `start_step`, never falling.
            epoch: epochs done so far.
            values: `{name: value}`. None, an undefined metric, leaves no row; NaN and infinities
                are kept, since a loss that diverges should be seen.

        Raises:
            ValueError: the step is not after `start_step` or falls back, or the writer is closed.
            GlpiError: the disk is full, or the files cannot be written for another reason.
        """
        if self._closed:
            raise ValueError("the metric writer is closed")
        if step <= self._start_step:
            raise ValueError(f"step {step} is not after step {self._start_step}, the start")
        if step < self._last_step:
            raise ValueError(f"step {step} comes after step {self._last_step} was written")
        self._last_step = step
        if self._files is None:
            return
        table, record = self._files
        rows = [MetricRow(step, epoch, k, float(x)) for k, x in values.items() if x is not None]
        with self._writing():
            # One write for the whole step: an interruption can tear the last row only.
            table.write(_lines(rows))
            table.flush()
            for row in rows:
                record.write_event(_event(step, summary=scalar(row.name, row.value)))
            record.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise GlpiError(
                f"{error.filename or self._path}: cannot be written ({error.strerror}); free space"
                " on that disk, or mend what is named here, and give the same command again"
            ) from error

    def flush(self) -> None:
        """Put everything written so far on disk; raises as `write` does."""
        if self._files is not None:
            table, record = self._files
            with self._writing():
                table.flush()
                os.fsync(table.fileno())
                record.flush()

    def close(self) -> None:
        """Flush, which may raise, and close; a second call does nothing."""
        self._closed = True
        try:
            self.flush()
        finally:
            opened, self._files = self._files or (), None
            for file in opened:
                with suppress(OSError):  # told by the flush
                    file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(GlpiError) if error else nullcontext():  # the first error is the cause
            self.close()


def _event(step: int, **content: Any) -> Event:
    return Event(step=step, wall_time=time.time(), **content)


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
