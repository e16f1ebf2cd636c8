import contextlib
import signal

import pytest

from clouduploader.errors import StoppedError
from clouduploader.stop import Stop


def test_stop_is_not_requested_at_first():
    stop = Stop()
    stop.raise_if_requested()
    assert not stop.is_requested


def test_request_outside_of_a_block_is_only_noted():
    stop = Stop()
    stop.request(signal.SIGTERM)
    assert stop.is_requested
    with pytest.raises(StoppedError) as caught:
        stop.raise_if_requested()
    assert caught.value.exit_code == 143


def test_first_signal_decides_the_exit_code():
    stop = Stop()
    stop.request(signal.SIGINT)
    stop.request(signal.SIGTERM)
    with pytest.raises(StoppedError, match="SIGINT") as caught:
        stop.raise_if_requested()
    assert caught.value.exit_code == 130


def test_request_leaves_an_interruptible_block_at_once():
    stop = Stop()
    steps = []
    with pytest.raises(StoppedError), stop.interruptible():  # noqa: PT012
        steps.append("before")
        stop.request(signal.SIGTERM)
        steps.append("after")
    assert steps == ["before"]


def test_second_request_does_not_interrupt_what_the_first_began():
    stop = Stop()
    cleaned = []
    with pytest.raises(StoppedError), stop.interruptible():  # noqa: PT012
        try:
            stop.request(signal.SIGTERM)
        finally:
            stop.request(signal.SIGTERM)
            cleaned.append(True)
    assert cleaned == [True]


def test_block_is_not_entered_after_a_request():
    stop = Stop()
    stop.request(signal.SIGTERM)
    entered = []
    with pytest.raises(StoppedError), stop.interruptible():
        entered.append(True)
    assert entered == []


def test_request_that_somebody_swallowed_is_seen_at_the_end_of_the_block():
    stop = Stop()
    with pytest.raises(StoppedError), stop.interruptible(), contextlib.suppress(StoppedError):
        stop.request(signal.SIGTERM)


def test_request_behind_an_interruptible_block_does_not_raise():
    stop = Stop()
    with stop.interruptible():
        pass
    stop.request(signal.SIGTERM)
    assert stop.is_requested


def test_error_of_the_block_goes_through():
    stop = Stop()
    with pytest.raises(KeyError), stop.interruptible():
        raise KeyError
    stop.request(signal.SIGTERM)  # the block is over: nothing is raised
    assert stop.is_requested
