"""A process that has to end says so to what runs in it."""

import math
import os
import signal
import time
from collections.abc import Iterator

import pytest

from esen_flows import stopping


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    yield
    stopping.ALLOCATION.deadline, stopping.ALLOCATION.requested = None, False


def test_no_end_is_known() -> None:
    assert stopping.seconds_left() == math.inf
    assert not stopping.is_stopping()
    stopping.raise_if_stopping()


def test_a_deadline_in_the_future_is_counted_down_and_then_over() -> None:
    stopping.ALLOCATION.deadline = time.monotonic() + 100
    assert 90 < stopping.seconds_left() <= 100
    assert not stopping.is_stopping()
    stopping.ALLOCATION.deadline = time.monotonic() - 1
    with pytest.raises(stopping.Stopped):
        stopping.raise_if_stopping()


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_signals_ask_and_do_not_kill(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stopping.stopping_by_signals():
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stopping.is_stopping()
    assert signal.getsignal(number) == before


def test_it_is_no_error_that_code_which_handles_errors_would_catch() -> None:
    assert not issubclass(stopping.Stopped, Exception)
