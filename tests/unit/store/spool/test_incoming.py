"""Jobs that come from outside: created, and their images received."""

import dataclasses
import errno
import os
import resource
import signal
import stat

import pytest

from clouduploader.errors import CannotCreateError, ImageError, JobStateError, LocalIOError, NoSuchJobError
from clouduploader.model import job_xml
from clouduploader.model.job import Details, Job, JobState

WANTED = Job(
    name="", state=JobState.CREATED, user="tom", target="ec2", project="p", repository="r", package="k", arch="x86_64",
    filename="a.raw.xz", size=10,
)  # fmt: skip


def files(jobs):
    return {path.name for path in jobs.directory.iterdir()} - {"next", "done"}


def receive(jobs, name, image):
    with jobs.receive(name) as reception:
        reception.write(image)
        reception.finish()


def archived(jobs, name):
    job, is_archived = jobs.read(name)
    assert is_archived
    return job.state, job.details


def test_created_job_waits_for_its_image(make_spool):
    jobs = make_spool()
    job = jobs.create(WANTED, targetdata=b"{}")
    assert job.name == "1"
    assert jobs.read("1") == (job, False)
    assert job == dataclasses.replace(WANTED, name="1", details="waiting to receive image", created=job.created)
    assert jobs.data_path("1").read_bytes() == b"{}"
    assert stat.S_IMODE(jobs.data_path("1").stat().st_mode) == 0o600
    assert jobs.create(WANTED, targetdata=b"").name == "2"


def test_job_that_cannot_be_created_leaves_nothing(make_spool):
    jobs = make_spool()
    jobs.allocate()
    (jobs.directory / ".2.new").mkdir()  # where the job's file would be written
    with pytest.raises(CannotCreateError):
        jobs.create(WANTED, targetdata=b"{}")
    assert files(jobs) == {".2.new"}


def test_received_image_schedules_the_job_and_wakes_the_worker(make_spool):
    jobs = make_spool()
    fifo = jobs.directory.parent / "events" / "clouduploadworker" / ".ping"
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as worker:  # noqa: PTH123 a descriptor
        name = jobs.create(WANTED, targetdata=b"{}").name
        with jobs.receive(name) as reception:
            reception.write(b"01234")
            job, _ = jobs.read(name)
            assert (job.state, job.pid, job.details) == (JobState.RECEIVING, os.getpid(), Details.WAITING_FOR_IMAGE)
            assert files(jobs) == {name, f"{name}.data", f".{name}.file{os.getpid()}"}
            reception.write(b"56789")
            assert worker.read() in (b"", None)
            reception.finish()
        assert worker.read() == b"x"
    job, _ = jobs.read(name)
    assert (job.state, job.pid, job.details) == (JobState.SCHEDULED, None, None)
    assert jobs.file_path(name).read_bytes() == b"0123456789"
    assert stat.S_IMODE(jobs.file_path(name).stat().st_mode) == 0o640
    assert files(jobs) == {name, f"{name}.data", f"{name}.file"}


@pytest.mark.parametrize("image", [b"", b"012345678", b"01234567890"])
def test_image_of_another_size_fails_the_job(make_spool, image):
    jobs = make_spool()
    name = jobs.create(WANTED, targetdata=b"{}").name
    with pytest.raises(ImageError, match=f"size mismatch: {len(image)} != 10"):
        receive(jobs, name, image)
    assert archived(jobs, name) == (JobState.FAILED, f"size mismatch: {len(image)} != 10")
    assert files(jobs) == set()


def test_image_that_stops_coming_fails_the_job(make_spool):
    jobs = make_spool()
    name = jobs.create(WANTED, targetdata=b"{}").name
    with jobs.receive(name) as reception:
        reception.write(b"01234")
    assert archived(jobs, name) == (JobState.FAILED, "unexpected EOF")
    assert files(jobs) == set()


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.CREATED and not state.is_final])
def test_image_is_received_once(make_spool, make_job, state):
    jobs = make_spool()
    job = make_job(jobs, "1", state=state, pid=4711)
    with pytest.raises(JobStateError, match=str(state)):
        jobs.receive("1")
    assert jobs.read("1") == (job, False)
    assert files(jobs) == {"1"}


def test_image_of_a_killed_job_is_removed_and_its_end_kept(make_spool):
    jobs = make_spool()
    name = jobs.create(WANTED, targetdata=b"{}").name
    reception = jobs.receive(name)
    reception.write(b"0123456789")
    with jobs.lock(name) as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    with pytest.raises(NoSuchJobError):
        reception.finish()
    assert archived(jobs, name) == (JobState.FAILED, "killed")
    assert files(jobs) == set()


def test_image_that_does_not_fit_on_the_disk_fails_the_job(make_spool):
    jobs = make_spool()
    name = jobs.create(dataclasses.replace(WANTED, size=1 << 20), targetdata=b"{}").name
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
        with pytest.raises(LocalIOError) as caught:
            receive(jobs, name, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert archived(jobs, name) == (JobState.FAILED, caught.value.message)
    assert files(jobs) == set()


def test_image_that_cannot_be_scheduled_fails_the_job(make_spool):
    jobs = make_spool()
    name = jobs.create(WANTED, targetdata=b"{}").name
    jobs.file_path(name).mkdir()  # in the way, and can't be removed as a file is
    with pytest.raises(LocalIOError):
        receive(jobs, name, b"0123456789")
    job = job_xml.parse(jobs.done_path(name).read_bytes())
    assert (job.state, job.details) == (JobState.FAILED, f"{jobs.file_path(name)} can't be written: Is a directory")
