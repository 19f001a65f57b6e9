"""Databases on disk, read into one table: image, score, reference, distortion, level.

`load_database` reads the kinds in `READERS`, which each module describes in its `KINDS`:
`synthetic.py` and `authentic.py` hold the published databases, `generic.py` one's own and other
projects' label files, `prepared.py` what `glpi_jax.data.prepare` wrote, `saqt_labels.py`
photographs that are distorted as they are read (with its columns in `photographs.py`).
`check_database` opens every image besides.
"""

from glpi_jax.data.sources.check import CheckReport, check_database
from glpi_jax.data.sources.database import Database, Facts
from glpi_jax.data.sources.photographs import PhotographRows
from glpi_jax.data.sources.readers import READERS, load_database

__all__ = [
    "READERS",
    "CheckReport",
    "Database",
    "Facts",
    "PhotographRows",
    "check_database",
    "load_database",
]
