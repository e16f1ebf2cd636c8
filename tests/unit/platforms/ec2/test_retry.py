import itertools
import signal

import pytest
from fakes.direct_aws import hang_up, refusal

from clouduploader.errors import DeniedError, NetworkError, StoppedError
from clouduploader.platforms.ec2 import boto, retry
from clouduploader.util.cancel import Cancel


@pytest.fixture
def clock():
    """Seconds that only sleeping moves."""
    return [0.0]


@pytest.fixture
def times(clock):
    """The arguments that all functions of the module take."""
    return {
        "cancel": Cancel(),
        "sleep": lambda seconds: clock.__setitem__(0, clock[0] + seconds),
        "clock": lambda: clock[0],
    }


@pytest.fixture
def make_call():
    """A factory of a call that meets these faults in turn, and then succeeds."""

    def make(faults):
        left = iter(faults)

        def call():
            with boto.translated("region x"):
                fault = next(left, None)
                if fault:
                    raise fault
            return "done"

        return call

    return make


def test_pauses_grow_and_stay():
    assert list(itertools.islice(retry.pauses(), 7)) == [1, 2, 4, 8, 15, 15, 15]


@pytest.mark.parametrize(
    "fault",
    [hang_up(), *(refusal("CreateTags", code) for code in ("RequestLimitExceeded", "InvalidSnapshot.NotFound"))],
)
def test_call_is_made_until_it_is_answered(make_call, times, clock, fault):
    assert retry.patiently(make_call([fault] * 5), **times) == "done"
    assert clock == [1 + 2 + 4 + 8 + 15]


def test_call_is_not_made_for_ever(make_call, times, clock):
    with pytest.raises(NetworkError):
        retry.patiently(make_call([hang_up()] * 99), **times)
    assert retry.PATIENCE_SECONDS <= clock[0] <= retry.PATIENCE_SECONDS + retry.LONGEST_PAUSE_SECONDS


def test_refusal_for_good_is_told_at_once(make_call, times, clock):
    with pytest.raises(DeniedError):
        retry.patiently(make_call([refusal("CreateTags", "UnauthorizedOperation")]), **times)
    assert clock == [0]


def test_thing_is_looked_for_until_it_shows(times, clock):
    assert retry.until_seen(lambda: "it" if clock[0] > 20 else None, 100, **times) == "it"
    assert 20 < clock[0] <= 35


@pytest.mark.parametrize("seconds", [0, 0.5, 3, 100])
def test_absence_is_believed_after_the_time_and_a_last_look(times, clock, seconds):
    looks = []
    assert retry.until_seen(lambda: looks.append(clock[0]), seconds, **times) is None
    assert looks[0] == 0
    assert looks[-1] == clock[0] == seconds


def test_stop_ends_all_waiting(make_call, times):
    def request_stop(_seconds):
        times["cancel"].request(signal.SIGTERM)

    times["sleep"] = request_stop
    with pytest.raises(StoppedError):
        retry.patiently(make_call([hang_up()] * 9), **times)
    with pytest.raises(StoppedError):
        retry.until_seen(lambda: None, 100, **times)
