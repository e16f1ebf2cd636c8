"""A spool that a cluster has worked on, and that one host's worker works on now."""

import json
import time

import pytest
from fakes.waiting import wait_for

from clouduploader.model.job import JobState
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState

KEY = "0123456789abcdef" * 2
CLAIMED = {"state": LeaseState.CLAIMED, "host": "h1", "claim": "0" * 64, "journal": "k"}


def write_lease(bench, name="1", **fields):
    fields = {"attempt": 3, "queue": "uploads", "since": time.time(), **fields}
    leases.write(bench.jobs, name, LeaseRecord(**fields))


@pytest.mark.parametrize("state", [LeaseState.PUBLISHED, LeaseState.FREE])
def test_job_that_no_host_has_is_started_at_once(bench, state):
    bench.write_uploader("echo done > $6")
    bench.schedule("1")
    write_lease(bench, state=state)
    bench.start()
    assert bench.wait_for_end("1").state is JobState.SUCCEEDED
    assert not bench.jobs.lease_path("1").exists()


def test_job_of_a_host_is_started_when_that_has_lost_its_lease(bench):
    bench.write_uploader("echo done > $6")
    bench.schedule("1", state=JobState.UPLOADING)
    bench.schedule("2")
    write_lease(bench, **CLAIMED, seconds=2)
    began = time.monotonic()
    bench.start()
    bench.wait_for_end("2")
    assert bench.job("1").state is JobState.UPLOADING or time.monotonic() - began >= 2
    assert bench.wait_for_end("1").state is JobState.SUCCEEDED
    assert time.monotonic() - began >= 2
    bench.wait_for_event("lost", "1")
    assert not bench.jobs.lease_path("1").exists()


def test_worker_that_is_restarted_leaves_a_job_to_its_host_again(bench):
    bench.write_uploader("exit 1")
    bench.schedule("1", state=JobState.UPLOADING)
    write_lease(bench, **CLAIMED, seconds=600)
    for _ in range(2):
        bench.start()
        assert bench.wait_for_event("adopted", None) == "hosts of a cluster may still work on: 1"
        bench.stop()
        assert bench.job("1").state is JobState.UPLOADING
    assert [kind for kind, job, _ in bench.events if job == "1"] == []


def test_clean_up_after_a_job_that_was_killed_waits_for_its_host(bench):
    bench.write_uploader("exit 1")
    bench.write_own("exit 0")
    bench.schedule("1", state=JobState.UPLOADING)
    write_lease(bench, **CLAIMED, seconds=1)
    began = time.monotonic()
    bench.start()
    with bench.jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    bench.wait_for_event("cleaned", "1")
    assert time.monotonic() - began >= 1
    wait_for(lambda: not bench.jobs.is_cleanup_pending("1"))
    assert not bench.jobs.lease_path("1").exists()


def write_journal(bench, *entries):
    """Let the log of job 1 tell of a journal with these entries."""
    journal = bench.jobs.directory / "journal" / KEY
    journal.mkdir(parents=True)
    (journal / "journal").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    bench.jobs.log_path("1").write_text(f"Journal: {KEY}\n")


BEGUN = ({"what": "begin", "job": "1"}, {"what": "made", "kind": "snapshot", "id": "s-1", "region": "here"})


@pytest.mark.parametrize("is_begun", [True, False])
def test_what_a_try_left_is_cleaned_up_if_the_job_is_killed_before_the_next(bench, is_begun):
    bench.write_uploader("exit 1")
    bench.write_own("exit 0")
    bench.schedule("1", state=JobState.WAITING, try_=9)
    bench.schedule("2", state=JobState.WAITING, try_=9)
    write_journal(bench, *(BEGUN if is_begun else BEGUN[:1]), {"what": "end", "outcome": "failed"})
    bench.start()
    for name in ("1", "2"):
        with bench.jobs.lock(name) as locked:
            locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    if is_begun:
        bench.wait_for_event("cleaned", "1")
    bench.stop()
    assert [job for kind, job, _ in bench.events if kind == "cleaned"] == ["1"] * is_begun


def test_what_a_lost_host_left_of_a_job_that_was_killed_since_is_cleaned_up(bench):
    bench.write_uploader("exit 1")
    bench.write_own("exit 0")
    bench.schedule("1")
    write_journal(bench, *BEGUN)
    write_lease(bench, state=LeaseState.FREE, takeovers=1)
    with bench.jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    bench.start()
    bench.wait_for_event("cleaned", "1")


def test_upload_of_a_lost_host_that_was_over_by_its_journal_has_succeeded(bench):
    bench.write_uploader("exit 1")
    bench.schedule("1", state=JobState.UPLOADING)
    write_journal(bench, BEGUN[0], {"what": "end", "outcome": "succeeded", "result": "image-1"})
    write_lease(bench, **CLAIMED, seconds=0)
    bench.start()
    job = bench.wait_for_end("1")
    assert (job.state, job.details) == (JobState.SUCCEEDED, "image-1")


def test_lease_that_is_damaged_is_told_and_one_of_no_job_is_removed(bench):
    bench.jobs.lease_path("1").write_text("{")
    bench.jobs.lease_path("2").write_text("{")
    bench.write_uploader("echo done > $6")
    bench.schedule("1")
    bench.start()
    assert "is damaged" in bench.wait_for_event("trouble", "1")
    bench.wait_for_end("1")
    write_lease(bench, "3", state=LeaseState.FREE)
    bench.stop()
    bench.start()
    assert not bench.jobs.lease_path("3").exists()
