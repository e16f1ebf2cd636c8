"""What grows old in a spool: failed, removed, or left alone."""

import os
import subprocess
import sys

import pytest

from clouduploader.commands import tend_spool
from clouduploader.errors import LocalIOError
from clouduploader.job import Details, JobState

LONG_AGO = 1_700_000_000


@pytest.fixture(scope="module")
def dead_pid():
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def age(*paths):
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))


def names(jobs):
    return {path.name for path in jobs.directory.iterdir()} - {"done"}


def end(jobs, name):
    job, is_archived = jobs.read(name)
    assert is_archived
    return job.state, job.details


def test_job_whose_image_never_comes_fails(make_spool, make_job):
    jobs = make_spool()
    for name in ("1", "2"):
        make_job(jobs, name, state=JobState.CREATED, data=b"{}")
    half_begun = jobs.directory / ".1.file99"  # by a server that died before it could say so
    half_begun.write_bytes(b"x")
    age(jobs.job_path("1"), half_begun)
    assert tend_spool.expire(jobs, seconds=3600) == ["1"]
    assert end(jobs, "1") == (JobState.FAILED, "no image came within 3600 seconds")
    assert names(jobs) == {"2", "2.data"}


def test_job_of_a_server_that_died_fails_at_once(make_spool, make_job, dead_pid):
    jobs = make_spool()
    for name, pid in (("1", dead_pid), ("2", os.getppid()), ("3", os.getpid())):
        make_job(jobs, name, state=JobState.RECEIVING, data=b"{}", pid=pid)
        (jobs.directory / f".{name}.file{pid}").write_bytes(b"begun")
    # 3 has our pid and is not ours: the server before us had the same one
    assert tend_spool.expire(jobs, seconds=3600) == ["1", "3"]
    assert end(jobs, "1") == end(jobs, "3") == (JobState.FAILED, tend_spool.DEAD)
    assert names(jobs) == {"2", "2.data", f".2.file{os.getppid()}"}


def test_job_of_a_process_that_can_not_be_fails(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=10**17)
    assert tend_spool.expire(jobs, seconds=3600) == ["1"]
    assert end(jobs, "1") == (JobState.FAILED, tend_spool.DEAD)


def test_job_whose_image_stopped_growing_fails(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getppid())
    part = jobs.directory / f".1.file{os.getppid()}"
    part.write_bytes(b"begun")
    age(part)
    assert tend_spool.expire(jobs, seconds=3600) == ["1"]
    assert end(jobs, "1") == (JobState.FAILED, Details.CUT_OFF)
    assert names(jobs) == set()


def test_job_that_we_receive_is_left_alone(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getpid())
    part = jobs.directory / f".1.file{os.getpid()}"
    part.write_bytes(b"begun")
    age(part, jobs.job_path("1"))
    assert tend_spool.expire(jobs, seconds=3600, own={"1"}) == []
    assert part.exists()


def test_job_that_we_begin_to_receive_meanwhile_is_left_alone(make_spool, make_job):
    """Which are ours is asked after the job was seen to be received, and not before the spool was read."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getpid())

    class Own(frozenset):
        def __contains__(self, name):
            return jobs.read(name)[0].state is JobState.RECEIVING  # as if it had begun just before this

    assert tend_spool.expire(jobs, seconds=3600, own=Own()) == []
    assert jobs.read("1")[0].state is JobState.RECEIVING


def test_other_states_never_expire(make_spool, make_job):
    jobs = make_spool()
    states = (JobState.SCHEDULED, JobState.UPLOADING, JobState.WAITING)
    for number, state in enumerate(states, 1):
        make_job(jobs, str(number), state=state, image=b"x", data=b"{}")
    age(*jobs.directory.iterdir())
    before = names(jobs)
    assert tend_spool.expire(jobs, seconds=1) == []
    assert names(jobs) == before


def test_trouble_with_one_job_leaves_none_of_the_others_lying(make_spool, make_job):
    jobs = make_spool()
    for name in ("1", "2", "3"):
        make_job(jobs, name, state=JobState.CREATED)
        age(jobs.job_path(name))
    jobs.data_path("2").mkdir()  # can't be removed as a file is
    with pytest.raises(LocalIOError, match=r"2\.data"):
        tend_spool.expire(jobs, seconds=3600)
    assert end(jobs, "1")[0] is end(jobs, "3")[0] is JobState.FAILED


def test_damaged_job_is_left_alone(make_spool, make_job):
    jobs = make_spool()
    jobs.job_path("1").write_bytes(b"<clouduploadjob")
    make_job(jobs, "2", state=JobState.CREATED)
    age(jobs.job_path("1"), jobs.job_path("2"))
    assert tend_spool.expire(jobs, seconds=3600) == ["2"]
    assert jobs.job_path("1").read_bytes() == b"<clouduploadjob"


def test_parts_of_no_job_are_removed_once_they_are_old(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "7", state=JobState.SCHEDULED, data=b"{}", image=b"x")
    old = ("1.data", "2.file", ".3.file99", ".1.data.new", ".2.new", ".next.new", ".next.new.99")
    parts = [jobs.directory / name for name in (*old, "4.data", ".4.new")]
    for path in parts:
        path.write_bytes(b"x")
    others = [jobs.directory / name for name in ("next", "notes", "5.datax", "6.log", ".5.log.new", ".7.new")]
    for path in others:
        path.write_bytes(b"x")
    age(*parts[: len(old)], *others, *jobs.directory.glob("7*"))
    tend_spool.expire(jobs, seconds=3600)
    assert names(jobs) == {"7", "7.data", "7.file", "4.data", ".4.new", *(path.name for path in others)}


@pytest.mark.parametrize(
    ("days", "count", "kept"),
    [(None, None, "1 2 3 10 11"), (30, None, "3 11"), (None, 3, "3 10 11"), (30, 1, "11"), (None, 9, "1 2 3 10 11")],
)
def test_archive_is_pruned_by_age_and_count(make_spool, make_job, days, count, kept):
    jobs = make_spool()
    make_job(jobs, "4", state=JobState.UPLOADING, log=b"")
    for name in ("1", "2", "3", "10", "11"):
        make_job(jobs, name, state=JobState.FAILED, log=b"a log")
    for name in ("1", "2", "10"):
        age(jobs.done_path(name))
    removed = tend_spool.prune(jobs, max_days=days, max_jobs=count)
    kept = set(kept.split())
    assert {path.name for path in jobs.done_dir.iterdir()} == kept | {f"{name}.log" for name in kept}
    assert set(removed) | kept == {"1", "2", "3", "10", "11"}
    assert names(jobs) == {"4", "4.log"}


def test_job_that_is_just_archived_is_not_pruned(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.UPLOADING)
    make_job(jobs, "1", state=JobState.FAILED)
    age(jobs.done_path("1"))
    assert tend_spool.prune(jobs, max_days=1, max_jobs=1) == []
    assert jobs.done_path("1").exists()
