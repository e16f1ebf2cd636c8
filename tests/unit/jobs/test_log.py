import io
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouduploader.errors import JobFileError, MissingFileError, NoSuchJobError
from clouduploader.jobs import log as jobs_log
from clouduploader.model.job import JobState


def read(jobs, name, **options):
    pieces = []
    end = jobs_log.follow_log(jobs, name, write=pieces.append, **options)
    return b"".join(pieces), end


@pytest.fixture
def follow():
    """Return a function that follows a log in another thread, and gives what came and how it ended."""
    threads = []

    def start(jobs, name, **options):
        pieces, ends = [], []

        def run():
            ends.append(jobs_log.follow_log(jobs, name, write=pieces.append, is_following=True, **options))

        thread = threading.Thread(target=run)
        threads.append(thread)
        thread.start()

        def finish():
            thread.join(20)
            assert not thread.is_alive()
            return b"".join(pieces), ends[0]

        return pieces, finish

    yield start
    for thread in threads:
        thread.join(20)


def archive(jobs, name, state, details):
    with jobs.lock(name) as locked:
        locked.archive(locked.job.ended(state, details))


def test_log_is_given_byte_for_byte(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", log=b"a\xff\x1b[31m\r\nlast")
    make_job(jobs, "2", state=JobState.FAILED, log=b"")
    data, end = read(jobs, "1")
    assert data == b"a\xff\x1b[31m\r\nlast"
    assert (end.job.state, end.is_archived) == (JobState.UPLOADING, False)
    data, end = read(jobs, "2")
    assert data == b""
    assert (end.job.state, end.is_archived) == (JobState.FAILED, True)


def test_jobs_without_a_log_are_named(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    make_job(jobs, "2", state=JobState.FAILED)
    jobs.job_path("3").touch()
    with pytest.raises(MissingFileError, match="no log yet"):
        read(jobs, "1")
    with pytest.raises(MissingFileError, match=r"no log$"):
        read(jobs, "2")
    data, end = read(jobs, "2", is_following=True)
    assert (data, end.job.state) == (b"", JobState.FAILED)
    with pytest.raises(JobFileError):
        read(jobs, "3")
    with pytest.raises(NoSuchJobError):
        read(jobs, "4")


@given(st.lists(st.sampled_from([b"", b"a", b"bb" * 40_000])), st.integers(0, 6), st.booleans())
def test_last_lines_begin_where_they_do(lines, count, is_ended):
    data = b"\n".join(lines) + (b"\n" if is_ended else b"")
    offset = jobs_log.last_lines_offset(io.BytesIO(data), count)
    whole = data.split(b"\n")
    if whole[-1] == b"":
        whole.pop()
    wanted = whole[-count:] if count else []
    rest = data[offset:].split(b"\n")
    if rest[-1] == b"":
        rest.pop()
    assert rest == wanted


def test_log_is_followed_into_the_archive(make_spool, make_job, follow, wait_for):
    jobs = make_spool()
    make_job(jobs, "1", log=b"")
    pieces, finish = follow(jobs, "1")
    with jobs.log_path("1").open("ab", buffering=0) as log:
        log.write(b"one\n")
        wait_for(lambda: b"".join(pieces) == b"one\n")
        log.write(b"two\n")
        archive(jobs, "1", JobState.SUCCEEDED, "ami-1")
    data, end = finish()
    assert data == b"one\ntwo\n"
    assert end.is_archived
    assert end.job.details == "ami-1"


def test_log_that_comes_later_is_waited_for(make_spool, make_job, follow):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SCHEDULED)
    _, finish = follow(jobs, "1")
    time.sleep(2 * jobs_log.POLL_SECONDS)
    jobs.log_path("1").write_bytes(b"line\n")
    archive(jobs, "1", JobState.FAILED, "no")
    assert finish()[0] == b"line\n"


def test_log_that_is_replaced_is_followed_in_its_place(make_spool, make_job, follow, wait_for):
    jobs = make_spool()
    make_job(jobs, "1")
    with jobs.open_log("1") as old:
        old.write(b"old\n")
        pieces, finish = follow(jobs, "1")
        wait_for(lambda: pieces)
        with jobs.open_log("1") as new:
            old.write(b"end of old\n")
            new.write(b"new\n")
            archive(jobs, "1", JobState.FAILED, "no")
    assert finish()[0] == b"old\nend of old\nnew\n"


def test_log_of_a_killed_job_is_followed_until_the_uploader_is_gone(make_spool, make_job, follow, wait_for):
    jobs = make_spool()
    make_job(jobs, "1")
    with jobs.open_log("1") as log:
        log.write(b"before\n")
        pieces, finish = follow(jobs, "1", lines=1)
        wait_for(lambda: pieces)
        archive(jobs, "1", JobState.FAILED, "killed")
        log.write(b"cleaned up\n")
        wait_for(lambda: len(pieces) == 2)
        log.write(b"all of it\n")
    data, end = finish()
    assert data == b"before\ncleaned up\nall of it\n"
    assert end.job.details == "killed"


def test_child_that_keeps_the_log_open_does_not_hold_up_the_end(make_spool, make_job, follow):
    jobs = make_spool()
    make_job(jobs, "1")
    with jobs.open_log("1"):
        _, finish = follow(jobs, "1")
        archive(jobs, "1", JobState.SUCCEEDED, "ami-1")
        assert finish()[1].job.details == "ami-1"
