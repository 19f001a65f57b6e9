"""Curves that follow a run: drawn as metrics come, and once more at the end."""

import threading

import pytest

from glpi_jax.report.live import live_curves
from glpi_jax.training.metric_writer import MetricWriter


def test_new_metrics_are_drawn_while_the_block_runs(tmp_path):
    drawn, came = [], threading.Event()

    def show(png):
        drawn.append((threading.current_thread().name, png))
        came.set()

    with live_curves(tmp_path / "run", show, every=0.01):
        assert not came.wait(0.05)  # there is nothing yet
        with MetricWriter(tmp_path / "run", 0) as writer:
            writer.write(1, 0, {"train/loss": 2.0, "train/learning_rate": 1e-3})
            assert came.wait(30)
            writer.write(2, 0, {"train/loss": 1.0, "train/learning_rate": 1e-3})
    threads, pictures = zip(*drawn, strict=True)
    assert threads[0] == "live curves"
    assert len(set(pictures)) == len(pictures) >= 2  # none was drawn twice
    assert all(png.startswith(b"\x89PNG") for png in pictures)


def test_the_last_picture_comes_though_the_run_fails(tmp_path):
    drawn = []

    def train():
        with MetricWriter(tmp_path, 0) as writer:
            writer.write(1, 0, {"train/loss": 2.0})
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"), live_curves(tmp_path, drawn.append):
        train()
    assert len(drawn) == 1
