"""The threads of one transfer: waited for, or left behind where they wait for others."""

import threading

import pytest

from clouduploader.plugin.transfer.threads import NAME, ThreadGroup

PATIENCE_SECONDS = 30


def test_wait_ends_when_all_have_ended():
    threads = ThreadGroup()
    done = []
    for number in range(3):
        threads.start(lambda number=number: done.append(number))
    while not threads.wait(PATIENCE_SECONDS):
        pass
    assert sorted(done) == [0, 1, 2]
    threads.leave()


def test_wait_has_an_end():
    threads = ThreadGroup()
    gate = threading.Event()
    threads.start(gate.wait)
    assert not threads.wait(0.01)
    gate.set()
    threads.leave()
    assert threads.wait(0)


def test_error_of_a_thread_is_raised_by_wait():
    threads = ThreadGroup()

    def fail():
        raise ZeroDivisionError

    threads.start(fail)
    with pytest.raises(ZeroDivisionError):
        threads.wait(PATIENCE_SECONDS)


def test_thread_that_is_away_is_left_and_does_nothing_more():
    threads = ThreadGroup(leave_seconds=0.01)
    is_away, gate, done = threading.Event(), threading.Event(), []

    def work():
        with threads.away():
            is_away.set()
            gate.wait(PATIENCE_SECONDS)
        done.append("used what is gone")

    threads.start(work)
    (thread,) = [one for one in threading.enumerate() if one.name.startswith(NAME)]
    assert is_away.wait(PATIENCE_SECONDS)
    threads.leave()
    gate.set()
    thread.join(PATIENCE_SECONDS)
    assert (thread.is_alive(), done) == (False, [])


def test_thread_that_works_is_waited_for():
    threads = ThreadGroup(leave_seconds=0.01)
    gate, done = threading.Event(), []

    def work():
        gate.wait(PATIENCE_SECONDS)
        done.append("all")

    threads.start(work)
    threading.Timer(0.1, gate.set).start()
    threads.leave()
    assert done == ["all"]
