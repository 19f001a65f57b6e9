"""Progress: plain lines now and then without a terminal, a live bar with one."""

import io
import sys

import pytest
from rich.console import Console

from glpi_jax.core.progress import progress_bar


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def log_console():
    return Console(file=io.StringIO(), width=80)


def terminal_console(width=160):
    return Console(file=Terminal(), force_terminal=True, width=width, color_system=None)


def lines(console):
    return console.file.getvalue().splitlines()


def test_plain_lines_come_at_the_interval_and_once_at_the_end():
    console, clock = log_console(), Clock()
    with progress_bar(
        1000, unit="image", description="train", console=console, clock=clock, line_every=75
    ) as bar:
        for _ in range(1000):
            clock.now += 0.25
            bar.advance()
    assert lines(console) == [
        "train: 300/1000 images, 30%, 4 images/s, 0:02:55 left",
        "train: 600/1000 images, 60%, 4 images/s, 0:01:40 left",
        "train: 900/1000 images, 90%, 4 images/s, 0:00:25 left",
        "train: 1000/1000 images, 100%, 4 images/s, 0:04:10 elapsed",
    ]


def test_notes_are_shown_until_taken_away_and_long_lines_are_not_wrapped():
    console, clock = log_console(), Clock()
    with progress_bar(
        8, unit="step", description="train", console=console, clock=clock, line_every=1
    ) as bar:
        bar.note(loss=0.123456, srocc=0.9, epoch=3, a_name_that_needs_a_lot_of_room="[b]value[/b]")
        clock.now += 1
        bar.advance(2)
        bar.note(srocc=None, a_name_that_needs_a_lot_of_room=None)
        clock.now += 1
        bar.advance(2)
    assert lines(console) == [
        "train: 2/8 steps, 25%, -:--:-- left, loss 0.1235, srocc 0.9, epoch 3,"
        " a_name_that_needs_a_lot_of_room [b]value[/b]",
        "train: 4/8 steps, 50%, 2 steps/s, 0:00:02 left, loss 0.1235, epoch 3",
        "train: 4/8 steps, 50%, 2 steps/s, 0:00:02 left, loss 0.1235, epoch 3",
    ]


def test_work_done_earlier_and_the_first_count_do_not_enter_the_speed():
    console, clock = log_console(), Clock()
    with progress_bar(
        500, unit="image", description="train", initial=400, console=console, clock=clock
    ) as bar:
        clock.now += 100  # compilation
        bar.advance(20)
        assert "images/s" not in bar.line()
        clock.now += 4
        bar.advance(20)
        assert bar.line() == "train: 440/500 images, 88%, 5 images/s, 0:00:12 left"


def test_speed_follows_lately_and_survives_counts_far_apart():
    console, clock = log_console(), Clock()
    with progress_bar(
        9999, unit="image", description="x", console=console, clock=clock, line_every=1e9
    ) as bar:
        for seconds in [1.0] * 100 + [0.5] * 240:
            clock.now += seconds
            bar.advance()
        assert ", 2 images/s, " in bar.line()
        for _ in range(2):
            clock.now += 200
            bar.note(srocc=0.5)
            clock.now += 300
            bar.advance(2000)
        assert ", 4 images/s, 0:23:35 left, " in bar.line()


def test_a_total_that_is_known_later():
    console, clock = log_console(), Clock()
    with progress_bar(None, unit="crop", description="map", console=console, clock=clock) as bar:
        bar.set_total(4)
        bar.advance()
        clock.now += 2
        bar.advance()
        assert bar.line() == "map: 2/4 crops, 50%, 0.5 crops/s, 0:00:04 left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (60.4, "0:01:00"), (3725, "1:02:05"), (1e5, "1 day, 3:46:40")],
)
def test_durations(seconds, text):
    console, clock = log_console(), Clock()
    with progress_bar(1, unit="image", description="x", console=console, clock=clock) as bar:
        clock.now += seconds
        bar.advance()
        assert bar.line() == f"x: 1/1 images, 100%, {text} elapsed"


def test_an_error_leaves_a_line_and_passes_through():
    console = log_console()

    def fail() -> None:
        with progress_bar(4, unit="image", description="score", console=console) as bar:
            bar.advance()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert lines(console) == ["score: 1/4 images, 25%, -:--:-- left"]


def test_leave_false_and_enabled_false_print_nothing():
    for options in [{"leave": False}, {"enabled": False}]:
        console = log_console()
        with progress_bar(2, unit="image", description="x", console=console, **options) as bar:
            bar.advance(2)
            bar.note(loss=1.0)
        assert console.file.getvalue() == ""


def test_nothing_to_do_is_not_an_error():
    console = log_console()
    with progress_bar(0, unit="image", description="x", console=console):
        pass
    assert lines(console) == ["x: 0/0 images, 0%, 0:00:00 elapsed"]


def test_a_line_above_the_bar_stays_whole(monkeypatch):
    for name, value in (("TERM", "xterm"), ("COLUMNS", "40")):
        monkeypatch.setenv(name, value)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Terminal())
    stderr = sys.stderr
    with progress_bar(2, unit="image", description="score"):
        print("a name" * 20)
    assert "a name" * 20 in stderr.getvalue()


def test_stderr_is_the_place_and_a_log_file_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as continuous integration sets it
    with progress_bar(2, unit="image", description="score") as bar:
        bar.advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "score: 2/2 images, 100%, 0:00:00 elapsed\n"


def test_the_live_bar_shows_count_speed_time_left_and_notes():
    console, clock = terminal_console(), Clock()
    with progress_bar(100, unit="image", description="[tr]", console=console, clock=clock) as bar:
        bar.advance(10)
        clock.now += 5
        bar.advance(10)
        bar.note(loss=0.25)
    text = console.file.getvalue()
    last = text[text.rfind("[tr]") :]
    assert "20/100" in last
    assert "2 images/s 0:00:40 left loss 0.25" in last


def test_live_bars_nest():
    console = terminal_console()
    with progress_bar(2, unit="epoch", description="train", console=console) as outer:
        for _ in range(2):
            with progress_bar(3, unit="image", description="validate", console=console) as inner:
                inner.advance(3)
            outer.advance()
    text = console.file.getvalue()
    assert "3/3" in text
    assert "2/2" in text[text.rfind("train") :]


@pytest.mark.parametrize("leave", [True, False])
def test_a_live_bar_stays_or_is_erased(leave):
    console = terminal_console()
    with progress_bar(1, unit="image", description="score", console=console, leave=leave) as bar:
        bar.advance()
    text = console.file.getvalue()
    erase_line = "\x1b[2K"
    assert (erase_line in text[text.rfind("score") :]) is not leave


def test_the_live_bar_leaves_results_for_a_file_alone(monkeypatch):
    results = io.StringIO()
    monkeypatch.setattr(sys, "stdout", results)
    console = terminal_console()
    with progress_bar(1, unit="image", description="score", console=console) as bar:
        print("a.png,3.2")
        bar.advance()
    assert results.getvalue() == "a.png,3.2\n"
    assert "a.png" not in console.file.getvalue()


def test_a_total_that_nobody_knows():
    console, clock = log_console(), Clock()
    with progress_bar(
        None, unit="image", description="score", console=console, clock=clock, line_every=4
    ) as bar:
        for _ in range(5):
            clock.now += 1
            bar.advance(2)
    assert lines(console) == [
        "score: 8/? images, 2 images/s, 0:00:04 elapsed",
        "score: 10/? images, 2 images/s, 0:00:05 elapsed",
    ]


def test_a_bar_without_a_total():
    console = terminal_console()
    with progress_bar(None, unit="image", description="score", console=console) as bar:
        bar.advance(3)
    assert "3/?" in console.file.getvalue()
