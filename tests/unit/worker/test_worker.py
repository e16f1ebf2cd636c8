"""A spool that a cluster has worked on, and that one host's worker works on now."""

import time

import pytest
from fakes.waiting import wait_for

from clouduploader.model.job import JobState
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState

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
