import datetime

import pytest

from clouduploader.errors import NoSuchJobError
from clouduploader.jobs import inspect as jobs_inspect
from clouduploader.model.job import JobState
from clouduploader.plugin import CloudObject
from clouduploader.util.processes import Ownership

LOG = b"Start uploading image a.raw.xz.\nPhase: upload\nCreated instance i-1 in here.\nb\xff\x1b[31m\n"


def inspect(jobs, name, *, lines=10):
    return jobs_inspect.inspect_job(jobs, name, lines=lines, state_dir=jobs.directory / "journal")


def test_archived_job_is_told_in_full(make_spool, make_job):
    jobs = make_spool()
    job = make_job(jobs, "1", state=JobState.FAILED, details="killed", log=LOG, created=0)
    found = inspect(jobs, "1", lines=2)
    assert (found.job, found.damage, found.is_archived) == (job, None, True)
    assert found.created == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert found.ended.tzinfo is datetime.UTC
    assert found.paths == {"job": jobs.done_path("1"), "log": jobs.done_log_path("1")}
    assert (found.ownership, found.pids, found.image_bytes) == (None, (), None)
    assert found.log.size_bytes == len(LOG)
    assert found.log.last_lines == ("Created instance i-1 in here.", "b\ufffd\x1b[31m")
    assert found.log.reading.phase == "upload"
    assert found.log.reading.objects == (CloudObject("instance", "i-1", "here"),)
    assert not found.log.is_held


def test_running_job_is_told_with_its_processes(make_spool, start_uploader):
    jobs = make_spool()
    code = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nsay('child')"
    uploader = start_uploader(jobs, "1", code)
    found = inspect(jobs, "1")
    assert found.ownership is Ownership.WORKING
    assert uploader.pid in found.pids
    assert len(found.pids) == 2
    assert found.log.is_held
    assert found.image_bytes == 5
    assert set(found.paths) == {"job", "image", "data", "log", "directory"}
    assert found.ended is None


def test_stale_job_is_told_as_such(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", pid=2**22, log=b"")
    found = inspect(jobs, "1")
    assert (found.ownership, found.pids) == (Ownership.GONE, ())
    assert found.log.last_lines == ()
    assert not found.log.is_held


def test_job_that_waits_has_no_process_and_no_log(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SCHEDULED)
    found = inspect(jobs, "1")
    assert (found.ownership, found.pids, found.log) == (None, (), None)


def test_damaged_job_is_told_with_its_log(make_spool):
    jobs = make_spool()
    jobs.job_path("1").write_bytes(b"<clouduploadjob")
    jobs.log_path("1").write_bytes(b"line\n")
    found = inspect(jobs, "1")
    assert (found.job, found.is_archived) == (None, False)
    assert "is not XML" in found.damage
    assert set(found.paths) == {"job", "log"}
    assert found.log.last_lines == ("line",)


def test_time_that_is_none_is_left_out(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, created=10**17)
    assert inspect(jobs, "1").created is None


def test_unknown_job_is_an_error(make_spool):
    with pytest.raises(NoSuchJobError):
        inspect(make_spool(), "1")
