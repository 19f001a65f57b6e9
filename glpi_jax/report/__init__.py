"""Reports: a page about one run, and pages and tables that compare runs and benchmarks.

A page is one self-contained HTML file. It needs no network and no script: plots and thumbnails are
embedded, plots in a light and a dark version between which the reader's system chooses.
"""

from glpi_jax.report.tables import (
    benchmark_markdown,
    results_markdown,
    rounds_markdown,
)
from glpi_jax.report.write import (
    MARKDOWN_FILE,
    REPORT_FILE,
    TEX_FILE,
    write_benchmark_report,
    write_comparison,
    write_report,
)

__all__ = [
    "MARKDOWN_FILE",
    "REPORT_FILE",
    "TEX_FILE",
    "benchmark_markdown",
    "results_markdown",
    "rounds_markdown",
    "write_benchmark_report",
    "write_comparison",
    "write_report",
]
