import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clouduploader.errors import StoppedError, TransientError
from clouduploader.util import deadline
from clouduploader.util.cancel import Cancel


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


def test_call_without_a_thread_is_an_error_that_may_pass(no_threads):
    with pytest.raises(TransientError, match="no thread can be started"):
        deadline.within(60, lambda: 42)


def test_stop_leaves_a_call_only_a_moment(stuck, monkeypatch):
    monkeypatch.setattr(deadline, "STOPPING_SECONDS", 0.01)
    cancel = Cancel()
    threading.Timer(0.05, cancel.request, [signal.SIGTERM]).start()
    with pytest.raises(deadline.OverdueError):
        deadline.within(10_000, stuck, cancel)
    assert cancel.is_requested


def test_call_after_a_stop_has_its_moment():
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    assert deadline.within(60, lambda: time.sleep(0.3) or "removed", cancel) == "removed"


def test_signal_where_work_may_be_left_leaves_it_at_once(stuck):
    cancel = Cancel()
    before = signal.signal(signal.SIGTERM, lambda number, _frame: cancel.request(number))
    try:
        threading.Timer(0.05, signal.raise_signal, [signal.SIGTERM]).start()
        with pytest.raises(StoppedError), cancel.interruptible():
            deadline.within(10_000, stuck, cancel)
    finally:
        signal.signal(signal.SIGTERM, before)


STUBBORN = "trap '' TERM; echo $$ >pids; sleep 60 & echo $! >>pids; wait"
"""A program that does not end when it is asked to, and one that it has started."""


@pytest.fixture
def start(tmp_path):
    """Start such a program, and wait for its end. `start.is_gone()` tells whether nothing is left of it."""
    started = []

    def run():
        process = subprocess.Popen(["/bin/sh", "-c", STUBBORN], cwd=tmp_path)
        try:
            process.communicate()
        finally:
            started.append(process)

    def pids():
        path = tmp_path / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    run.has_begun = lambda: len(pids()) == 2
    run.is_gone = lambda: len(pids()) == 2 and not any(is_running(pid) for pid in pids())
    yield run
    for pid in pids():
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def signal_once(has_begun, send):
    """Send a signal to this thread as soon as something has begun."""

    def wait():
        while not has_begun():
            time.sleep(0.01)
        send()

    threading.Thread(target=wait, daemon=True).start()


def test_programs_of_a_call_that_is_overdue_are_ended(start, monkeypatch):
    monkeypatch.setattr(deadline, "GRACE_SECONDS", 0.1)
    cancel = Cancel()
    monkeypatch.setattr(deadline, "STOPPING_SECONDS", 0.0)
    signal_once(start.has_begun, lambda: cancel.request(signal.SIGTERM))
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(deadline.OverdueError):
            deadline.within(10_000, start, cancel)
        assert start.is_gone()
        assert is_running(other.pid)
        other.kill()


@pytest.fixture
def deadly_signals():
    """Lets signals do what they do to a program that has not asked for them."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("call", [lambda work: deadline.within(10_000, work), deadline.until_left])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("deadly_signals")
def test_signal_that_would_end_us_ends_the_programs_first(start, monkeypatch, call, number):
    monkeypatch.setattr(deadline, "GRACE_SECONDS", 0.1)
    signal_once(start.has_begun, lambda: os.kill(os.getpid(), number))
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(SystemExit) as caught:
            call(start)
        assert caught.value.code == 128 + number
        assert start.is_gone()
        assert is_running(other.pid)
        other.kill()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_call_until_it_is_left_gives_what_it_returned():
    assert deadline.until_left(lambda: subprocess.run([sys.executable, "-c", ""], check=False).returncode) == 0
