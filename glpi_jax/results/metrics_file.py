"""`metrics.csv`: one value a row, `step,epoch,name,value`; training writes it, reports read it."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import NamedTuple

from glpi_jax.core.errors import GlpiError

METRICS_FILE = "metrics.csv"
HEADER = ["step", "epoch", "name", "value"]


class MetricRow(NamedTuple):
    """One scalar: its step and epoch (both from 0), its name such as `train/loss`, its value."""

    step: int
    epoch: int
    name: str
    value: float


def read_metrics(path: str | os.PathLike[str]) -> list[MetricRow]:
    """Read a `metrics.csv`, in file order.

    A last line without its newline, torn by an interruption, is left out.

    Raises:
        GlpiError: the file is missing, has other columns, or a row does not parse.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise GlpiError(f"{path} is missing: train into this folder first.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise GlpiError(f"{path} cannot be read: {error}.") from error
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return []
    reader = csv.reader(io.StringIO(whole))
    if next(reader) != HEADER:
        raise GlpiError(f"{path} does not begin with '{','.join(HEADER)}': move it away.")
    rows = []
    for cells in reader:
        try:
            step, epoch, name, value = cells
            rows.append(MetricRow(int(step), int(epoch), name, float(value)))
        except ValueError as error:
            raise GlpiError(
                f"{path} line {reader.line_num} is not 'step,epoch,name,value': {cells}."
                " Repair or remove that line."
            ) from error
    return rows
