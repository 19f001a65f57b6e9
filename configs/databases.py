"""How each published database is read, in one place for all experiments; not one itself.

Resizes are the official code's: (height, width), which squashes landscape images, as it does.
"""

from ml_collections import ConfigDict

SYNTHETIC = ("live", "csiq", "tid2013", "kadid10k", "livemd")
AUTHENTIC = ("clive", "koniq10k", "bid", "spaq", "flive", "agiqa3k", "agiqa3k_alignment")

_RESIZE = {"livemd": (512, 384), "bid": (512, 384), "flive": (512, 512)}


def read(section: ConfigDict, name: str) -> None:
    """Fill a data section for a database.

    Raises:
        ValueError: an unknown name.
    """
    if name not in (*SYNTHETIC, *AUTHENTIC):
        raise ValueError(f"{name!r}: the databases are {', '.join((*SYNTHETIC, *AUTHENTIC))}")
    section.database = name
    section.resize = _RESIZE.get(name, ())
