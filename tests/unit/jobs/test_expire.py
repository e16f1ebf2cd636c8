"""What grows old in a spool: failed, removed, or left alone."""

import os
import subprocess
import sys
import time

import pytest

from clouduploader.errors import LocalIOError
from clouduploader.jobs import expire as jobs_expire
from clouduploader.model.job import Details, JobState
from clouduploader.store import journal

LONG_AGO = 1_700_000_000


class Clock:
    """A clock for `Patience`, that goes when it is told to."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def expire(jobs, *, meanwhile=lambda: None, **kept):
    """Look, and look again when more than the hour is over; return names and details of what failed in the end."""
    clock = Clock()
    waits = jobs_expire.WaitTimes(clock)
    jobs_expire.expire(jobs, seconds=3600, waits=waits, **kept)
    clock.seconds += 3601
    meanwhile()
    return jobs_expire.expire(jobs, seconds=3600, waits=waits, **kept)


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


def failed(jobs, **options):
    return [job.name for job in expire(jobs, **options)]


def test_job_whose_image_never_comes_fails(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.CREATED, data=b"{}")
    (jobs.directory / ".1.file99").write_bytes(b"x")  # half begun, by a server that died before it could say so
    found = expire(jobs, meanwhile=lambda: make_job(jobs, "2", state=JobState.CREATED, data=b"{}"))
    assert found == [jobs_expire.ExpiredJob("1", "no image came within 3600 seconds")]
    assert end(jobs, "1") == (JobState.FAILED, "no image came within 3600 seconds")
    assert names(jobs) == {"2", "2.data", ".1.file99"}  # which is nobody's only now


def test_clock_that_is_set_fails_no_job_and_empties_no_archive(make_spool, make_job):
    """As after a sleep, and after a restart: what is old by its time stamps may have come a moment ago."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.CREATED, data=b"{}")
    make_job(jobs, "2", state=JobState.RECEIVING, pid=os.getppid())
    part = jobs.directory / f".2.file{os.getppid()}"
    part.write_bytes(b"begun")
    (jobs.directory / "3.data").write_bytes(b"about to be a job")
    age(*jobs.directory.iterdir())
    clock = Clock()
    waits = jobs_expire.WaitTimes(clock)
    for _ in range(3):
        clock.seconds += 1000
        assert jobs_expire.expire(jobs, seconds=3600, waits=waits) == []
    assert names(jobs) == {"1", "1.data", "2", part.name, "3.data"}


def test_time_begins_anew_with_each_piece_of_the_image(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getppid())
    part = jobs.directory / f".1.file{os.getppid()}"
    part.write_bytes(b"begun")
    age(part)
    assert failed(jobs, meanwhile=lambda: part.write_bytes(b"begun, and more")) == []
    assert failed(jobs) == ["1"]


def test_time_that_passes_is_told_from_a_clock_that_is_set():
    clock, wall_clock = Clock(), Clock()
    waits = jobs_expire.WaitTimes(clock, wall_clock)
    clock.seconds += 10
    wall_clock.seconds += 3600
    assert waits.now() == 1010
    waits.waited("a", 1)
    waits.waited("b", 1)
    waits.forget_others()
    clock.seconds += 5
    assert waits.waited("a", 1) == 5
    waits.forget_others()
    assert waits.waited("b", 1) == 0  # was not asked for, and is another one now


def test_clock_that_was_ahead_at_the_start_and_is_mended_is_believed_from_then_on():
    clock, wall_clock = Clock(), Clock()
    wall_clock.seconds = 5e9
    waits = jobs_expire.WaitTimes(clock, wall_clock)
    wall_clock.seconds = 4e9
    clock.seconds += 10
    assert waits.now() == 4e9
    wall_clock.seconds = 6e9
    assert waits.now() == 5e9 + 10


def test_job_that_was_archived_by_a_clock_without_battery_is_kept(make_spool, make_job, tmp_path):
    jobs = make_spool()
    for name, moment in (("1", 3600), ("2", LONG_AGO)):
        make_job(jobs, name, state=JobState.FAILED)
        os.utime(jobs.done_path(name), (moment, moment))
    limits = {"now": time.time(), "state_dir": tmp_path}
    assert jobs_expire.prune(jobs, **limits, max_days=30, max_jobs=None) == ["2"]
    assert jobs_expire.prune(jobs, **limits, max_days=30, max_jobs=0) == ["1"]


def test_job_of_a_server_that_died_fails_at_once(make_spool, make_job, dead_pid):
    jobs = make_spool()
    for name, pid in (("1", dead_pid), ("2", os.getppid()), ("3", os.getpid())):
        make_job(jobs, name, state=JobState.RECEIVING, data=b"{}", pid=pid)
        (jobs.directory / f".{name}.file{pid}").write_bytes(b"begun")
    # 3 has our pid and is not ours: the server before us had the same one
    found = jobs_expire.expire(jobs, seconds=3600, waits=jobs_expire.WaitTimes())
    assert found == [jobs_expire.ExpiredJob("1", jobs_expire.DEAD), jobs_expire.ExpiredJob("3", jobs_expire.DEAD)]
    assert end(jobs, "1") == end(jobs, "3") == (JobState.FAILED, jobs_expire.DEAD)
    assert names(jobs) == {"2", "2.data", f".2.file{os.getppid()}"}


def test_job_of_a_process_that_can_not_be_fails(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=10**17)
    jobs_expire.expire(jobs, seconds=3600, waits=jobs_expire.WaitTimes())
    assert end(jobs, "1") == (JobState.FAILED, jobs_expire.DEAD)


def test_job_whose_image_stopped_growing_fails(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getppid())
    (jobs.directory / f".1.file{os.getppid()}").write_bytes(b"begun")
    assert failed(jobs) == ["1"]
    assert end(jobs, "1") == (JobState.FAILED, Details.CUT_OFF)
    assert names(jobs) == set()


def test_job_that_we_receive_is_left_alone(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getpid())
    part = jobs.directory / f".1.file{os.getpid()}"
    part.write_bytes(b"begun")
    assert failed(jobs, own={"1"}) == []
    assert part.exists()


def test_job_that_we_begin_to_receive_meanwhile_is_left_alone(make_spool, make_job):
    """Which are ours is asked after the job was seen to be received, and not before the spool was read."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getpid())

    class Own(frozenset):
        def __contains__(self, name):
            return jobs.read(name)[0].state is JobState.RECEIVING  # as if it had begun just before this

    assert failed(jobs, own=Own()) == []
    assert jobs.read("1")[0].state is JobState.RECEIVING


def test_other_states_never_expire(make_spool, make_job):
    jobs = make_spool()
    states = (JobState.SCHEDULED, JobState.UPLOADING, JobState.WAITING)
    for number, state in enumerate(states, 1):
        make_job(jobs, str(number), state=state, image=b"x", data=b"{}")
    before = names(jobs)
    assert failed(jobs) == []
    assert names(jobs) == before


def test_trouble_with_one_job_leaves_none_of_the_others_lying(make_spool, make_job):
    jobs = make_spool()
    for name in ("1", "2", "3"):
        make_job(jobs, name, state=JobState.CREATED)
    jobs.data_path("2").mkdir()  # can't be removed as a file is
    with pytest.raises(LocalIOError, match=r"2\.data"):
        expire(jobs)
    assert end(jobs, "1")[0] is end(jobs, "3")[0] is JobState.FAILED


def test_damaged_job_is_left_alone(make_spool, make_job):
    jobs = make_spool()
    jobs.job_path("1").write_bytes(b"<clouduploadjob")
    make_job(jobs, "2", state=JobState.CREATED)
    assert failed(jobs) == ["2"]
    assert jobs.job_path("1").read_bytes() == b"<clouduploadjob"


def test_lease_of_a_killed_job_stays_as_long_as_a_host_has_it(make_spool):
    jobs = make_spool()
    for name in ("7", "8"):
        jobs.lease_path(name).touch()
    expire(jobs, leased={"8"})
    assert names(jobs) == {".8.lease"}


def test_parts_of_no_job_are_removed_once_they_are_old(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "7", state=JobState.SCHEDULED, data=b"{}", image=b"x")
    others = ("next", "notes", "5.datax", "6.log", ".5.log.new", ".7.new")
    parts = ("1.data", "2.file", ".3.file99", ".1.data.new", ".2.new", ".next.new", ".next.new.99", ".2.lease")
    for name in (*parts, "..2.lease.new", *others):
        (jobs.directory / name).write_bytes(b"x")
    young = ("4.data", ".4.new")
    expire(jobs, meanwhile=lambda: [(jobs.directory / name).write_bytes(b"x") for name in young])
    assert names(jobs) == {"7", "7.data", "7.file", *young, *others}


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
    state_dir = jobs.directory / "journal"
    removed = jobs_expire.prune(jobs, now=time.time(), max_days=days, max_jobs=count, state_dir=state_dir)
    kept = set(kept.split())
    assert {path.name for path in jobs.done_dir.iterdir()} == kept | {f"{name}.log" for name in kept}
    assert set(removed) | kept == {"1", "2", "3", "10", "11"}
    assert names(jobs) == {"4", "4.log"}


def test_journals_go_with_the_archived_jobs(make_spool, make_job):
    jobs = make_spool()
    state_dir = jobs.directory / "journal"
    for name in ("1", "2", "3", "none"):
        key = f"{len(name)}{name:0>31}".replace("none", "000a")
        with journal.open_journal(state_dir, key) as opened:
            opened.write("begin", job=None if name == "none" else name)
            opened.end(journal.AttemptOutcome.SUCCEEDED)
        if name != "none":
            make_job(jobs, name, state=JobState.SUCCEEDED, log=b"")
    age(state_dir / f"{1}{'1':0>31}" / "journal", state_dir / f"{4}{'000a':0>31}" / "journal")
    assert jobs_expire.prune(jobs, now=time.time(), max_days=None, max_jobs=2, state_dir=state_dir) == ["1"]
    jobs_left = {(found.state.began or {}).get("job") for found in journal.read_all(state_dir)}
    assert jobs_left == {"2", "3"}


def test_journals_stay_as_long_as_nothing_is_pruned(make_spool, make_job):
    jobs = make_spool()
    state_dir = jobs.directory / "journal"
    with journal.open_journal(state_dir, "0" * 32) as opened:
        opened.end(journal.AttemptOutcome.SUCCEEDED)
    age(state_dir / ("0" * 32) / "journal")
    for limits in ({"max_days": None, "max_jobs": None}, {"max_days": None, "max_jobs": 9}):
        jobs_expire.prune(jobs, now=time.time(), **limits, state_dir=state_dir)
        assert journal.read(state_dir, "0" * 32)


def test_job_after_which_a_clean_up_is_owed_is_not_pruned(make_spool, make_job):
    jobs = make_spool()
    for name in ("1", "2"):
        make_job(jobs, name, state=JobState.FAILED)
        age(jobs.done_path(name))
    jobs.mark_cleanup_pending("1")
    state_dir = jobs.directory / "journal"
    assert jobs_expire.prune(jobs, now=time.time(), max_days=1, max_jobs=None, state_dir=state_dir) == ["2"]


def test_job_that_a_host_has_is_not_pruned(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED)
    jobs.lease_path("1").touch()
    wanted = {"now": time.time(), "max_days": None, "max_jobs": 0, "state_dir": jobs.directory / "journal"}
    assert jobs_expire.prune(jobs, **wanted) == []
    jobs.lease_path("1").unlink()
    assert jobs_expire.prune(jobs, **wanted) == ["1"]


def test_job_that_is_just_archived_is_not_pruned(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.UPLOADING)
    make_job(jobs, "1", state=JobState.FAILED)
    age(jobs.done_path("1"))
    state_dir = jobs.directory / "journal"
    assert jobs_expire.prune(jobs, now=time.time(), max_days=1, max_jobs=1, state_dir=state_dir) == []
    assert jobs.done_path("1").exists()
