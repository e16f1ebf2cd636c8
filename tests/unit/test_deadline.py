import signal
import threading
import time

import pytest

from clouduploader import deadline
from clouduploader.errors import StoppedError
from clouduploader.stop import Stop


@pytest.fixture
def stuck():
    """A call that does not return before the test is over."""
    is_over = threading.Event()
    yield is_over.wait
    is_over.set()


def test_call_in_time_gives_what_it_returned():
    assert deadline.within(60, lambda: 42) == 42


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("of the call"), SystemExit(3), StopIteration()])
def test_error_of_the_call_is_raised_as_it_is(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        deadline.within(60, fail)
    assert caught.value is error


def test_call_that_does_not_return_is_left_behind(stuck):
    with pytest.raises(deadline.OverdueError):
        deadline.within(0.01, stuck)


def test_stop_leaves_a_call_only_a_moment(stuck, monkeypatch):
    monkeypatch.setattr(deadline, "STOPPING_SECONDS", 0.01)
    stop = Stop()
    threading.Timer(0.05, stop.request, [signal.SIGTERM]).start()
    with pytest.raises(deadline.OverdueError):
        deadline.within(10_000, stuck, stop)
    assert stop.is_requested


def test_call_after_a_stop_has_its_moment():
    stop = Stop()
    stop.request(signal.SIGTERM)
    assert deadline.within(60, lambda: time.sleep(0.3) or "removed", stop) == "removed"


def test_signal_where_work_may_be_left_leaves_it_at_once(stuck):
    stop = Stop()
    before = signal.signal(signal.SIGTERM, lambda number, _frame: stop.request(number))
    try:
        threading.Timer(0.05, signal.raise_signal, [signal.SIGTERM]).start()
        with pytest.raises(StoppedError), stop.interruptible():
            deadline.within(10_000, stuck, stop)
    finally:
        signal.signal(signal.SIGTERM, before)
