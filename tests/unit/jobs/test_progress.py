import os

import pytest

from clouduploader.jobs import progress as jobs_progress
from clouduploader.model.job import JobState
from clouduploader.plugin import BytesMoved, PhaseStarted


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def note(jobs, make_job, clock):
    return jobs_progress.ProgressNote(jobs, make_job(jobs, "1", pid=os.getpgrp()), clock)


def progress(jobs):
    return jobs.read("1")[0].progress


def test_progress_is_noted_every_few_seconds(jobs, note, clock):
    note(PhaseStarted("upload"))
    note(BytesMoved(10, 200))
    assert progress(jobs) is None
    clock.now = 5
    note(BytesMoved(51, 200))
    assert progress(jobs) == 25
    clock.now = 9
    note(BytesMoved(150, 200))
    assert progress(jobs) == 25
    clock.now = 10
    note(BytesMoved(201, 200))
    assert progress(jobs) == 100
    assert jobs.read("1")[0].state is JobState.UPLOADING


def test_unknown_total_is_no_progress(jobs, note, clock):
    clock.now = 5
    note(BytesMoved(10, None))
    note(BytesMoved(0, 0))
    assert progress(jobs) is None


def test_success_makes_it_complete_if_anything_was_noted(jobs, note, clock):
    note.complete()
    assert progress(jobs) is None
    clock.now = 5
    note(BytesMoved(1, 2))
    note.complete()
    assert progress(jobs) == 100


@pytest.mark.parametrize("fields", [{"pid": 1}, {"pid": None}, {"state": JobState.WAITING, "pid": None}])
def test_record_that_is_not_ours_is_left_alone(jobs, note, clock, make_job, fields):
    make_job(jobs, "1", **fields)
    before = jobs.job_path("1").read_bytes()
    clock.now = 5
    note(BytesMoved(1, 2))
    assert jobs.job_path("1").read_bytes() == before


def test_job_that_is_locked_or_gone_is_no_error(jobs, note, clock):
    clock.now = 5
    with jobs.lock("1"):
        note(BytesMoved(1, 2))
    assert progress(jobs) is None
    jobs.job_path("1").unlink()
    clock.now = 10
    note(BytesMoved(1, 2))
    assert jobs.running_names() == []
