import dataclasses
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import CannotCreateError, ClouduploaderError, JobFileError, LocalIOError
from clouduploader.model.job import Job, JobState
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState

CLAIMED = LeaseRecord(
    attempt=3,
    state=LeaseState.CLAIMED,
    queue="uploads",
    host="h1",
    claim="0" * 64,
    since=1.5,
    seconds=30,
    beat_seconds=5,
    takeovers=2,
    journal="f" * 32,
    log_start=7,
    sha256="1" * 64,
    identity=(1, 2, 3),
)
PUBLISHED = LeaseRecord(attempt=1, state=LeaseState.PUBLISHED, queue="uploads", since=1.0)


@pytest.mark.parametrize("record", [CLAIMED, PUBLISHED])
def test_lease_is_read_as_it_was_written(make_spool, record):
    jobs = make_spool()
    assert leases.read(jobs, "42") is None
    leases.write(jobs, "42", record)
    assert leases.read(jobs, "42") == record
    assert jobs.lease_path("42").stat().st_mode & 0o777 == 0o640
    assert jobs.leased_names() == ["42"]
    for _ in range(2):
        leases.remove(jobs, "42")
    assert list(jobs.directory.iterdir()) == []


def test_lease_of_an_earlier_version_has_the_shortest_beats(make_spool):
    jobs = make_spool()
    leases.write(jobs, "42", CLAIMED)
    document = json.loads(jobs.lease_path("42").read_bytes())
    del document["beat_seconds"]
    jobs.lease_path("42").write_text(json.dumps(document))
    assert leases.read(jobs, "42") == dataclasses.replace(CLAIMED, beat_seconds=1)


def test_job_has_the_host_of_its_lease_while_it_is_uploaded(make_spool):
    jobs, job = make_spool(), Job(name="42", state=JobState.UPLOADING)
    assert leases.with_host(jobs, job) is job
    leases.write(jobs, "42", PUBLISHED)
    assert leases.with_host(jobs, job) is job
    leases.write(jobs, "42", CLAIMED)
    found = leases.with_host(jobs, job)
    assert (found.host, found.attempt, found.since) == ("h1", 3, 1)
    assert leases.with_host(jobs, job.ended(JobState.FAILED, "no")).host is None
    jobs.lease_path("42").write_bytes(b"{")
    assert leases.with_host(jobs, job) is job


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.binary(max_size=30) | st.dictionaries(st.sampled_from([*vars(CLAIMED)]), JSON).map(
    lambda changes: json.dumps(dataclasses.asdict(CLAIMED) | changes).encode()
))  # fmt: skip
def test_damaged_lease_is_an_error_of_ours(tmp_path_factory, data):
    jobs = leases.SpoolPaths(tmp_path_factory.getbasetemp())
    jobs.lease_path("42").write_bytes(data)
    try:
        found = leases.read(jobs, "42")
    except JobFileError:
        return
    leases.write(jobs, "42", found)
    assert leases.read(jobs, "42") == found


def test_lease_that_cannot_be_reached_is_an_error(make_spool):
    jobs = make_spool()
    jobs.lease_path("42").mkdir()
    with pytest.raises(LocalIOError):
        leases.read(jobs, "42")
    for change in (lambda: leases.write(jobs, "42", PUBLISHED), lambda: leases.remove(jobs, "42")):
        with pytest.raises(CannotCreateError):
            change()
    with pytest.raises(ClouduploaderError):
        leases.write(leases.SpoolPaths(jobs.directory / "gone"), "42", PUBLISHED)
