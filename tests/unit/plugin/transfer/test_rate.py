import bisect

import pytest

from clouduploader.plugin.transfer import rate


def run(limiter, *, seconds, start=0.0, late=0.0):
    """Take slots as fast as they come; returns the times of those that were taken."""
    now, taken = start, []
    while now < start + seconds:
        wait = limiter.take(now)
        if wait:
            now += wait + late
        else:
            taken.append(now)
    return taken


def busiest_second(times):
    return max(bisect.bisect_left(times, time + 1) - number for number, time in enumerate(times))


def test_slots_come_at_the_rate():
    taken = run(rate.RateLimiter(990, 0.0), seconds=3)
    assert len(taken) == pytest.approx(2970, rel=0.01)
    assert busiest_second(taken) <= 1000


def test_thread_that_is_a_little_late_loses_nothing():
    taken = run(rate.RateLimiter(990, 0.0), seconds=3, late=0.002)
    assert len(taken) == pytest.approx(2970, rel=0.02)
    assert busiest_second(taken) <= 1000


def test_thread_that_is_away_for_a_while_makes_up_for_it():
    limiter, taken = rate.RateLimiter(990, 0.0), []
    for tenth in range(0, 50, 2):
        taken += run(limiter, seconds=0.15, start=tenth / 10)  # and 50 ms with nothing
    assert len(taken) == pytest.approx(4950, rel=0.01)
    assert busiest_second(taken) <= 990


def test_pause_makes_no_rush():
    limiter = rate.RateLimiter(990, 0.0)
    taken = run(limiter, seconds=0.5) + run(limiter, seconds=1.5, start=10.0)
    assert busiest_second(taken) <= 1000


def test_throttling_lowers_the_rate_once_a_rush():
    limiter = rate.RateLimiter(1000, 0.0)
    for millisecond in range(900):
        limiter.throttled(millisecond / 1000)
    assert limiter.per_second == pytest.approx(700)
    limiter.throttled(1.0)
    assert limiter.per_second == pytest.approx(490)


def test_stall_lowers_the_rate_less():
    limiter = rate.RateLimiter(1000, 0.0)
    limiter.stalled(0.0)
    assert 700 < limiter.per_second < 1000


def test_rate_has_a_floor():
    limiter = rate.RateLimiter(1000, 0.0)
    for second in range(100):
        limiter.throttled(float(second))
    assert limiter.per_second == pytest.approx(10)


def test_rate_climbs_back_evenly():
    limiter = rate.RateLimiter(1000, 0.0)
    for second in range(3):
        limiter.throttled(float(second))
    lowest = limiter.per_second
    run(limiter, seconds=10, start=2.0)
    after_ten = limiter.per_second
    run(limiter, seconds=10, start=12.0)
    after_twenty = limiter.per_second
    assert after_ten - lowest == pytest.approx(1000 / 6, rel=0.02)
    assert after_twenty - after_ten == pytest.approx(1000 / 6, rel=0.02)
    run(limiter, seconds=60, start=22.0)
    assert limiter.per_second == 1000


def test_quota_that_others_use_too_is_shared():
    """The cloud allows 300 a second: the rate settles around it, with few refusals."""
    limiter = rate.RateLimiter(990, 0.0)
    now, allowed, refused, tokens, last = 0.0, 0, 0, 30.0, 0.0
    while now < 120:
        wait = limiter.take(now)
        if wait:
            now += wait
            continue
        tokens, last = min(30.0, tokens + (now - last) * 300), now
        if tokens >= 1:
            tokens, allowed = tokens - 1, allowed + 1
        else:
            refused += 1
            limiter.throttled(now)
    assert allowed > 120 * 300 * 0.75
    assert refused < allowed * 0.2


def test_window_begins_small_and_opens_fast():
    window = rate.Window(64)
    assert window.size == rate.FIRST_WINDOW
    window.confirmed(20)
    assert window.size == rate.FIRST_WINDOW + 20
    window.confirmed(1000)
    assert window.size == 64


def test_small_window_is_never_exceeded():
    window = rate.Window(3)
    window.confirmed(10)
    assert window.size == 3


def open_window():
    window = rate.Window(64)
    window.confirmed(64)
    return window


def test_single_stalls_leave_the_window():
    window = open_window()
    for number in range(20):
        window.stalled(number * rate.CONGESTION_SECONDS / 2)
    assert window.size == 64


def test_stalls_that_pile_up_halve_it():
    window = open_window()
    for _ in range(rate.CONGESTION_STALLS):
        window.stalled(1.0)
    assert window.size == 32
    for _ in range(20 * rate.CONGESTION_STALLS):
        window.stalled(2.0)
    assert window.size == 1


def test_halved_window_grows_by_one_a_window():
    window = open_window()
    for _ in range(rate.CONGESTION_STALLS):
        window.stalled(1.0)
    for _ in range(33):
        window.confirmed(1)
    assert window.size == 33
    for _ in range(64 * 64):
        window.confirmed(1)
    assert window.size == 64
