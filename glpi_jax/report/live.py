"""Curves of a run while it trains, for a notebook or any other place that shows pictures."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glpi_jax.core.errors import GlpiError
from glpi_jax.report.curve_plots import training_curves
from glpi_jax.report.plot_style import LIGHT
from glpi_jax.results.metrics_file import METRICS_FILE, MetricRow, read_metrics


@contextmanager
def live_curves(
    workdir: Path, show: Callable[[bytes], object], *, every: float = 2.0
) -> Iterator[None]:
    """Draw a run's curves anew as its metrics come, while the block trains.

        handle = display(Image(), display_id=True)
        with live_curves(workdir, lambda png: handle.update(Image(png))):
            train_run(config, workdir)

    A thread reads `metrics.csv`, which grows every `train.log_every_steps` steps; training itself
    knows nothing of it. The last picture is drawn when the block ends, also by an error.

    Args:
        workdir: of the run, which need not exist yet.
        show: takes a PNG file, 1,632 pixels wide; called from another thread, except the last time.
        every: seconds between two looks.
    """
    stop = threading.Event()
    drawn: list[MetricRow] = []

    def draw() -> None:
        # Not there yet, or being replaced as a run resumes: the next look finds it.
        with suppress(GlpiError):
            rows = read_metrics(workdir / METRICS_FILE)
            if rows and rows != drawn:
                show(training_curves(rows, None, LIGHT))
                drawn[:] = rows

    def follow() -> None:
        while not stop.wait(every):
            draw()

    thread = threading.Thread(target=follow, name="live curves", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        draw()
