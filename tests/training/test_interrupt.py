import signal
import threading

import pytest

from glpi_jax.training.interrupt import interrupt_between_steps


def test_interrupt_waits_for_the_check():
    done = []

    def train():
        with interrupt_between_steps() as check:
            check()
            signal.raise_signal(signal.SIGINT)
            done.append("rest of the step")
            check()
            done.append("next step")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["rest of the step"]


def test_second_interrupt_is_immediate():
    done = []

    def train():
        with interrupt_between_steps():
            signal.raise_signal(signal.SIGINT)
            done.append("first")
            signal.raise_signal(signal.SIGINT)
            done.append("second")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["first"]


def test_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_between_steps():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_hold_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with interrupt_between_steps() as check:
            check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
