"""Generators that read ahead by threads: closed in the middle, they wait for none of these.

The garbage collector may close one in a thread that is about to start; to join a thread there is a
deadlock.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from glpi_jax.data import loader
from glpi_jax.data.crops import Crops
from glpi_jax.data.images import Decoded
from glpi_jax.data.preprocessing import ASSUMED
from glpi_jax.saqt import features
from glpi_jax.scoring import reading

PIXELS = np.zeros((40, 40, 3), np.uint8)
FILES = [str(number) for number in range(100)]


def crops_of_a_database(monkeypatch: pytest.MonkeyPatch, read: Callable[[str], None]) -> Any:
    class Database:
        images = FILES

    def image_loader(*_: Any, **__: Any) -> Callable[[int], np.ndarray]:
        def load(row: int) -> np.ndarray:
            read(FILES[row])
            return PIXELS

        return load

    monkeypatch.setattr(loader, "ImageLoader", image_loader)
    return loader.evaluation_crops(
        Database(),  # type: ignore[arg-type]
        range(100),
        crop=32,
        crops=Crops(1),
        preprocessing=ASSUMED,
        threads=1,
    )


def sources_to_score(monkeypatch: pytest.MonkeyPatch, read: Callable[[str], None]) -> Any:
    def decode(source: str, *_: Any, **__: Any) -> Decoded:
        read(source)
        return Decoded(PIXELS, False)

    monkeypatch.setattr(reading, "_decode", decode)
    return reading.Reader(Crops(1), ASSUMED, side=32, ahead=1).read(FILES)


def photographs_to_match(monkeypatch: pytest.MonkeyPatch, read: Callable[[str], None]) -> Any:
    def read_image(path: str, **_: Any) -> np.ndarray:
        read(path)
        return PIXELS

    monkeypatch.setattr(features, "read_image", read_image)
    return features.read_photographs(FILES, max_pixels=None, threads=1)


@pytest.mark.parametrize("reader", [crops_of_a_database, sources_to_score, photographs_to_match])
def test_closing_waits_for_no_thread(
    reader: Callable[..., Iterator[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, may_end = threading.Event(), threading.Event()

    def read(name: str) -> None:
        if name != "0":
            reads.set()
            assert may_end.wait(60)

    generator: Any = reader(monkeypatch, read)
    try:
        next(generator)
        assert reads.wait(60)
        closing = threading.Thread(target=generator.close)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()
    finally:
        may_end.set()
