import datetime

import pytest

from clouduploader.plugin import visibility

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)


def entry_of(age_seconds):
    return {"what": "made", "time": (NOW - datetime.timedelta(seconds=age_seconds)).isoformat()}


@pytest.mark.parametrize(
    ("age", "left"), [(0, 120), (0.5, 119.5), (119, 1), (120, 0), (1e9, 0), (-1, 120), (-1e6, 120)]
)
def test_absence_says_nothing_for_two_minutes_whatever_the_clock_says(age, left):
    assert visibility.seconds_left(entry_of(age), NOW) == left


@pytest.mark.parametrize("entry", [{}, {"time": None}, {"time": "yesterday"}, {"time": "2026-11-28T12:00:00"}])
def test_absence_of_a_thing_of_unknown_age_is_believed(entry):
    assert visibility.time_of(entry) is None
    assert visibility.seconds_left(entry, NOW) == 0


def test_age_is_counted_from_now():
    entry = {"time": datetime.datetime.now(datetime.UTC).isoformat()}
    assert 0 < visibility.seconds_left(entry) <= visibility.UNSEEN_SECONDS
