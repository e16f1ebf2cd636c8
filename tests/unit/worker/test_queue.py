"""Which jobs there are to start, in which order."""

import collections
import os
import time

import pytest

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.worker import queue
from clouduploader.worker.settings import WorkerSettings


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def found(jobs):
    """A queue, with what it complained of."""
    found = queue.JobQueue(jobs, lambda *complaint: found.complaints.append(complaint))
    found.complaints = []
    return found


def write(jobs, name, user, state=JobState.SCHEDULED, **fields):
    """Write a record as all do: a new file takes the old one's place."""
    path = jobs.directory / f".{name}.test"
    path.write_bytes(job_xml.serialize(Job(name=name, user=user, state=state, **fields)))
    path.replace(jobs.job_path(name))


def names(found, is_served=lambda _user: False):
    return [record.job.name for record in found.startable(is_served)]


def test_jobs_of_all_users_come_in_the_order_of_their_numbers(jobs, found):
    for name, user in (("10", "ann"), ("9", "bob"), ("2", "ann"), ("1", "tom"), ("07", "bob"), ("7", "bob")):
        write(jobs, name, user)
    write(jobs, "3", None, JobState.WAITING, try_=2)
    found.refresh(None)
    assert names(found) == ["1", "2", "3", "07", "7", "9", "10"]
    assert [record.job.name for record in found.waiting()] == ["3"]


def test_jobs_of_a_user_at_the_limit_are_left_out_from_then_on(jobs, found):
    for number in range(20):
        write(jobs, str(number), ("ann", "bob")[number % 2])
    found.refresh(None)
    given = collections.Counter()
    taken = []
    for record in found.startable(lambda user: given[user] == 2):
        given[record.job.user] += 1
        taken.append(record.job.name)
    assert taken == ["0", "1", "2", "3"]
    assert names(found, lambda user: user == "ann") == [str(number) for number in range(1, 20, 2)]


def test_job_that_changes_while_the_queue_is_gone_through_is_passed_once(jobs, found):
    for name in ("1", "2", "3"):
        write(jobs, name, "ann")
    found.refresh(None)
    seen = []
    for record in found.startable(lambda _user: False):
        seen.append(record.job.name)
        write(jobs, record.job.name, "ann", JobState.UPLOADING, pid=1)
        found.refresh([record.job.name])
    assert seen == ["1", "2", "3"]
    assert (names(found), sorted(found.uploading())) == ([], ["1", "2", "3"])


def test_record_that_cannot_be_read_now_stays_what_it_was(jobs, found):
    write(jobs, "1", "ann", JobState.UPLOADING, pid=1)
    found.refresh(None)
    path = jobs.job_path("1")
    record = path.read_bytes()
    path.unlink()
    path.mkdir()
    found.refresh(None)
    assert found.uploading() == ["1"]
    assert [name for name, _ in found.complaints] == ["1"]
    path.rmdir()
    path.write_bytes(record.replace(b"uploading", b"scheduled"))
    found.refresh(["1"])
    assert (found.uploading(), names(found)) == ([], ["1"])


YEARS = 5e8  # seconds; an early or late boot without NTP


def seconds_left(found, name):
    (due,) = (record.due(WorkerSettings(retry_seconds=100)) for record in found.waiting() if record.job.name == name)
    return due - time.monotonic()


@pytest.mark.parametrize(("age", "left"), [(0, 100), (40, 60), (YEARS, 100 - YEARS), (-YEARS, 100)])
def test_pause_of_an_earlier_worker_ends_in_time_whatever_the_clock_is(jobs, found, age, left):
    write(jobs, "1", "ann", JobState.WAITING, try_=2)
    os.utime(jobs.job_path("1"), (time.time() - age,) * 2)
    found.refresh(None)
    assert left - 30 < seconds_left(found, "1") <= left + 1


@pytest.mark.parametrize("age", [-YEARS, 0, YEARS])
@pytest.mark.parametrize("looked_at", [["1"], None])
def test_pause_that_begins_while_we_work_takes_its_time_whatever_the_clock_is(jobs, found, age, looked_at):
    """The clock may be set at that very moment, or be a file server's: else all tries may follow at once."""
    found.refresh(None)
    write(jobs, "1", "ann", JobState.WAITING, try_=2)
    os.utime(jobs.job_path("1"), (time.time() - age,) * 2)
    found.refresh(looked_at)
    assert 70 < seconds_left(found, "1") <= 100


def test_job_that_is_over_before_it_was_seen_to_wait_is_told_as_gone(jobs, found):
    write(jobs, "1", "ann", JobState.UPLOADING)
    write(jobs, "2", "ann", JobState.RECEIVING)
    found.refresh(None)
    for name in ("1", "2"):
        jobs.job_path(name).unlink()
    found.refresh(["1", "2"])
    assert found.take_gone() == {"1"}
    assert found.take_gone() == set()
