"""A process that has to end tells the work that runs in it."""

import math
import os
import signal
import threading
import time

import pytest

from esen_flows import stopping
from esen_flows.stopping import Allocation, allocated


def test_no_end_is_known() -> None:
    assert stopping.seconds_left() == math.inf
    assert not stopping.is_stopping()
    stopping.raise_if_stopping()


def test_a_deadline_in_the_future_is_counted_down_and_then_over() -> None:
    with allocated(Allocation(deadline=time.monotonic() + 100)):
        assert 90 < stopping.seconds_left() <= 100
        assert not stopping.is_stopping()
    with allocated(Allocation(deadline=time.monotonic() - 1)), pytest.raises(stopping.Stopped):
        stopping.raise_if_stopping()
    assert not stopping.is_stopping()


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_signals_request_the_end_and_do_not_kill(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with allocated(Allocation()) as allocation, stopping.handling(stopping.SIGNALS, allocation.request_stop):
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stopping.is_stopping()
    assert signal.getsignal(number) == before


def test_a_signal_to_a_part_of_the_work_is_one_to_the_whole() -> None:
    whole, part = Allocation(), Allocation()
    with stopping.handling(stopping.SIGNALS, whole.request_stop):
        with stopping.handling((signal.SIGTERM, signal.SIGINT), part.request_stop):
            os.kill(os.getpid(), signal.SIGINT)  # which the outer block does not handle
            time.sleep(0.01)
            assert (part.requested, whole.requested) == (True, False)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert whole.requested


def test_a_thread_can_request_the_end_but_not_handle_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    handlers: list[object] = []

    def work() -> None:
        with stopping.handling(stopping.SIGNALS, allocation.request_stop):
            handlers.append(signal.getsignal(signal.SIGTERM))
        allocation.request_stop()

    with allocated(Allocation()) as allocation:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert stopping.is_stopping()
    assert handlers == [before]


def test_it_is_not_an_error_that_code_which_handles_errors_would_catch() -> None:
    assert not issubclass(stopping.Stopped, Exception)
