"""Jobs counted by state."""

from clouduploader.model.job import JobState
from clouduploader.server import job_counter


def test_job_counter_sees_what_changed(make_spool, make_job):
    jobs = make_spool()
    counter = job_counter.JobCounter(jobs)
    assert counter.count().queued_since is None
    make_job(jobs, "1", state=JobState.SCHEDULED)
    make_job(jobs, "2", state=JobState.FAILED, details="a")
    first = counter.count()
    assert (first.states[JobState.SCHEDULED], first.states[JobState.FAILED]) == (1, 1)
    assert first.queued_since == jobs.job_path("1").stat().st_mtime
    with jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.SUCCEEDED, None))
    jobs.rewrite_archived(jobs.read_archived("2").ended(JobState.SUCCEEDED, "after all"))
    second = counter.count()
    assert (second.states[JobState.SUCCEEDED], second.states[JobState.FAILED]) == (2, 0)
    assert second.queued_since is None
