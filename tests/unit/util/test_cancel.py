import contextlib
import signal

import pytest

from clouduploader.errors import StoppedError
from clouduploader.util.cancel import Cancel


def test_stop_is_not_requested_at_first():
    cancel = Cancel()
    cancel.raise_if_requested()
    assert not cancel.is_requested


def test_request_outside_of_a_block_is_only_noted():
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    assert cancel.is_requested
    with pytest.raises(StoppedError) as caught:
        cancel.raise_if_requested()
    assert caught.value.exit_code == 143


def test_first_signal_decides_the_exit_code():
    cancel = Cancel()
    cancel.request(signal.SIGINT)
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError, match="SIGINT") as caught:
        cancel.raise_if_requested()
    assert caught.value.exit_code == 130


def test_request_leaves_an_interruptible_block_at_once():
    cancel = Cancel()
    steps = []
    with pytest.raises(StoppedError), cancel.interruptible():  # noqa: PT012
        steps.append("before")
        cancel.request(signal.SIGTERM)
        steps.append("after")
    assert steps == ["before"]


def test_second_request_does_not_interrupt_what_the_first_began():
    cancel = Cancel()
    cleaned = []
    with pytest.raises(StoppedError), cancel.interruptible():  # noqa: PT012
        try:
            cancel.request(signal.SIGTERM)
        finally:
            cancel.request(signal.SIGTERM)
            cleaned.append(True)
    assert cleaned == [True]


def test_block_is_not_entered_after_a_request():
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    entered = []
    with pytest.raises(StoppedError), cancel.interruptible():
        entered.append(True)
    assert entered == []


def test_request_that_somebody_swallowed_is_seen_at_the_end_of_the_block():
    cancel = Cancel()
    with pytest.raises(StoppedError), cancel.interruptible(), contextlib.suppress(StoppedError):
        cancel.request(signal.SIGTERM)


def test_request_behind_an_interruptible_block_does_not_raise():
    cancel = Cancel()
    with cancel.interruptible():
        pass
    cancel.request(signal.SIGTERM)
    assert cancel.is_requested


def test_error_of_the_block_goes_through():
    cancel = Cancel()
    with pytest.raises(KeyError), cancel.interruptible():
        raise KeyError
    cancel.request(signal.SIGTERM)  # the block is over: nothing is raised
    assert cancel.is_requested
