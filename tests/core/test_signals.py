import signal
import threading

import pytest

from glpi_jax.core.signals import stop_between_steps


def test_interrupt_waits_for_the_check():
    done = []

    def train():
        with stop_between_steps() as stop:
            stop.raise_if_interrupted()
            signal.raise_signal(signal.SIGINT)
            done.append("rest of the step")
            stop.raise_if_interrupted()
            done.append("next step")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["rest of the step"]


def test_second_interrupt_is_immediate():
    done = []

    def train():
        with stop_between_steps():
            signal.raise_signal(signal.SIGINT)
            done.append("first")
            signal.raise_signal(signal.SIGINT)
            done.append("second")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["first"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with stop_between_steps():
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before


def test_sigterm_is_held_back_and_may_come_twice():
    with stop_between_steps() as stop:
        assert not stop.save_and_end()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.save_and_end()
        stop.raise_if_interrupted()  # that is for Ctrl-C


def test_other_threads_hold_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with stop_between_steps() as stop:
            stop.raise_if_interrupted()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
