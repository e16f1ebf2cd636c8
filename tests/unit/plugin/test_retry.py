import signal

import pytest

from clouduploader.errors import PlatformReplyError, StoppedError, TransientError
from clouduploader.plugin import retry
from clouduploader.plugin.testing import FakeClock
from clouduploader.util.cancel import Cancel


@pytest.fixture
def waiting():
    return {"cancel": Cancel(), "clock": FakeClock()}


def make_call(*outcomes):
    """A call that raises or returns these, one at a time, the last one for ever."""
    left = list(outcomes)

    def call():
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call


def test_call_is_made_again_while_another_try_may_help(waiting):
    assert retry.retry(make_call(TransientError("busy"), TransientError("busy"), "done"), **waiting) == "done"
    assert 2 <= waiting["clock"].now <= 4


def test_final_answer_is_not_asked_for_again(waiting):
    with pytest.raises(PlatformReplyError):
        retry.retry(make_call(PlatformReplyError("no"), "done"), **waiting)
    assert waiting["clock"].now == 0


@pytest.mark.parametrize("seconds", [0, 0.5, 10, 600])
def test_last_try_is_when_the_time_is_over(waiting, seconds):
    with pytest.raises(TransientError):
        retry.retry(make_call(TransientError("busy")), seconds=seconds, **waiting)
    assert waiting["clock"].now == pytest.approx(seconds)


def test_what_may_pass_is_the_caller_s_to_say(waiting):
    call = make_call(PlatformReplyError("not yet"), "done")
    assert retry.retry(call, may_pass=lambda exc: exc.message == "not yet", **waiting) == "done"


@pytest.mark.parametrize("seconds", [0, 0.5, 3, 100])
def test_absence_is_believed_after_the_time_and_a_last_look(waiting, seconds):
    looks = []
    assert retry.look_until(lambda: looks.append(waiting["clock"].now), seconds, **waiting) is None
    assert looks[0] == 0
    assert looks[-1] == pytest.approx(seconds, abs=retry.SHORTEST_PAUSE_SECONDS)


def test_cancellation_ends_all_waiting_within_a_second(waiting):
    class Clock(FakeClock):
        def sleep(self, seconds):
            assert seconds <= 1
            super().sleep(seconds)
            waiting["cancel"].request(signal.SIGTERM)

    waiting["clock"] = Clock()
    with pytest.raises(StoppedError):
        retry.retry(make_call(TransientError("busy")), **waiting)
    with pytest.raises(StoppedError):
        retry.look_until(lambda: None, 100, **waiting)


def test_pauses_grow_to_a_bound_and_differ_from_host_to_host():
    found = [seconds for seconds, _ in zip(retry.pauses(), range(20), strict=False)]
    assert found[0] < 1.5
    assert all(
        retry.LONGEST_PAUSE_SECONDS * (1 - retry.JITTER) <= seconds <= retry.LONGEST_PAUSE_SECONDS * (1 + retry.JITTER)
        for seconds in found[-5:]
    )
    assert len(set(found)) == 20
