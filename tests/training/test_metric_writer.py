"""Scalars on disk: complete, without duplicates after a resume, readable by TensorBoard."""

import math
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from glpi_jax.core.errors import GlpiError
from glpi_jax.results.metrics_file import METRICS_FILE, MetricRow, read_metrics
from glpi_jax.training.metric_writer import TENSORBOARD_FOLDER, MetricWriter


def events(workdir):
    """Read every TensorBoard event: records of length u64, crc u32, payload, crc u32."""
    found = []
    for path in sorted((workdir / TENSORBOARD_FOLDER).iterdir()):
        data, position = path.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)
            found.append(Event.FromString(data[position + 12 : position + 12 + length]))
            position += 16 + length
    return found


def scalars(workdir):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(workdir)
        for value in event.summary.value
    ]


def test_a_run_writes_long_rows_and_tensorboard_scalars(tmp_path):
    workdir = tmp_path / "new" / "run"
    with MetricWriter(workdir, 0) as writer:
        writer.write(1, 0, {"train/loss": 0.5, "train/learning_rate": 1e-5})
        writer.write(2, 1, {"validation/srocc": 0.25})
    assert (workdir / METRICS_FILE).read_text() == (
        "step,epoch,name,value\n"
        "1,0,train/loss,0.5\n"
        "1,0,train/learning_rate,1e-05\n"
        "2,1,validation/srocc,0.25\n"
    )
    assert scalars(workdir) == [
        (1, "train/loss", 0.5),
        (1, "train/learning_rate", pytest.approx(1e-5)),
        (2, "validation/srocc", 0.25),
    ]


def test_values_survive_exactly_and_rows_are_on_disk_at_once(tmp_path):
    values = {"third": 1 / 3, "tiny": 5e-324, "large": 1e308, "a,b": -0.0, "inf": math.inf}
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(7, 3, values)
        read = read_metrics(tmp_path / METRICS_FILE)
    assert read == [MetricRow(7, 3, name, value) for name, value in values.items()]


def test_undefined_leaves_no_row_and_nan_is_kept(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(1, 0, {"validation/srocc": None, "train/loss": math.nan})
    (row,) = read_metrics(tmp_path / METRICS_FILE)
    assert row.name == "train/loss"
    assert math.isnan(row.value)


def test_resume_drops_the_rows_that_will_be_written_again(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        for step in range(1, 8):
            writer.write(step, 0, {"train/loss": float(step)})
    with MetricWriter(tmp_path, 4) as writer:
        for step in range(5, 9):
            writer.write(step, 0, {"train/loss": float(-step)})
    rows = read_metrics(tmp_path / METRICS_FILE)
    assert [(row.step, row.value) for row in rows] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, -5.0), (6, -6.0), (7, -7.0), (8, -8.0),
    ]  # fmt: skip
    assert len(list((tmp_path / TENSORBOARD_FOLDER).iterdir())) == 2
    # TensorBoard hides what came before a START at this step or later.
    starts = [event.step for event in events(tmp_path) if event.session_log.status]
    assert SessionLog.START == 1
    assert starts == [1, 5]
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_fresh_start_drops_everything_of_an_earlier_run(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        writer.write(1, 0, {"train/loss": 1.0})
    with MetricWriter(tmp_path, 0):
        pass
    assert read_metrics(tmp_path / METRICS_FILE) == []


def test_a_torn_last_line_is_left_out_on_reading_and_on_resume(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text("step,epoch,name,value\n3,0,train/loss,0.5\n4,0,train/loss,0.")
    assert read_metrics(path) == [MetricRow(3, 0, "train/loss", 0.5)]
    with MetricWriter(tmp_path, 4) as writer:
        writer.write(5, 0, {"train/loss": 0.25})
    assert [row.step for row in read_metrics(path)] == [3, 5]


@pytest.mark.parametrize("text", ["", "step,ep"])
def test_a_file_without_a_whole_line_is_empty(tmp_path, text):
    (tmp_path / METRICS_FILE).write_text(text)
    assert read_metrics(tmp_path / METRICS_FILE) == []


def test_steps_do_not_fall_back(tmp_path):
    with MetricWriter(tmp_path, 10) as writer:
        with pytest.raises(ValueError, match="step 10 is not after step 10"):
            writer.write(10, 0, {"train/loss": 1.0})
        writer.write(12, 0, {"train/loss": 1.0})
        writer.write(12, 0, {"validation/srocc": 1.0})
        with pytest.raises(ValueError, match="step 11 comes after step 12"):
            writer.write(11, 0, {"train/loss": 1.0})


def test_a_closed_writer_refuses_to_write(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(1, 0, {"train/loss": 1.0})


def test_other_processes_touch_no_file(tmp_path):
    workdir = tmp_path / "run"
    with MetricWriter(workdir, 0, enabled=False) as writer:
        writer.write(1, 0, {"train/loss": 1.0})
        writer.flush()
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step;name;value\n", "does not begin with 'step,epoch,name,value'"),
        ("step,epoch,name,value\n1,0,train/loss\n", "line 2 is not"),
        ("step,epoch,name,value\n1,0,a,0.5\none,0,b,0.5\n", "line 3 is not"),
        ("step,epoch,name,value\n1,0,a,much\n", "line 2 is not"),
    ],
)
def test_a_foreign_file_is_named_and_left_as_it_is(tmp_path, text, message):
    path = tmp_path / METRICS_FILE
    path.write_text(text)
    with pytest.raises(GlpiError, match=rf"metrics\.csv.*{message}"):
        MetricWriter(tmp_path, 0)
    assert path.read_text() == text


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(GlpiError, match=r"metrics\.csv is missing"):
        read_metrics(tmp_path / METRICS_FILE)
    (tmp_path / METRICS_FILE).write_bytes(b"\xff\xfe\n")
    with pytest.raises(GlpiError, match=r"metrics\.csv cannot be read"):
        read_metrics(tmp_path / METRICS_FILE)
