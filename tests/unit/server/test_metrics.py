"""The metrics of the service, asked over HTTP."""

import re

from clouduploader.cluster.dispatch.cluster import ClusterCount
from clouduploader.model.job import JobState
from clouduploader.server import job_counter, metrics
from clouduploader.worker.events import UploadEnd, WorkerEvent, WorkerEventKind

SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")


def samples(body):
    """The samples of Prometheus's text by name and labels."""
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {(found[1], found[2] or ""): float(found[3]) for found in map(SAMPLE.fullmatch, lines)}


def test_metrics_tell_of_spool_images_and_requests(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SUCCEEDED)
    make_job(jobs, "2", state=JobState.WAITING)
    make_job(jobs, "3", state=JobState.FAILED)
    (jobs.done_dir / "4").write_text("<no job")
    server = serve(jobs, keep_free="1")
    server.ask("PUT", f"/cloudupload/{server.create(size=10)}", b"0123456789")
    server.ask("PUT", f"/cloudupload/{server.create(size=10)}", b"012")
    status, headers, body = server.ask("GET", "/metrics")
    assert status.startswith("200")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in headers
    found = samples(body)
    states = {labels.split('"')[1]: value for (name, labels), value in found.items() if name == "clouduploader_jobs"}
    assert states == {
        "created": 0, "receiving": 0, "scheduled": 1, "uploading": 0, "waiting": 1, "succeeded": 1, "failed": 2,
    }  # fmt: skip
    assert found["clouduploader_jobs_damaged", ""] == 1
    assert found["clouduploader_received_bytes_total", ""] == 10
    assert found["clouduploader_transfers", ""] == 0
    assert found["clouduploader_spool_free_bytes", ""] > 0
    assert found["clouduploader_queue_age_seconds", ""] >= 0
    assert found["clouduploader_request_seconds_count", 'method="PUT",status="200"'] == 1
    assert found["clouduploader_request_seconds_count", 'method="PUT",status="400"'] == 1


def test_received_bytes_are_those_that_the_caller_counted(make_spool):
    """Counted by the thread that renders, images that end meanwhile were missing, or its sum failed."""
    counted = metrics.Metrics(job_counter.JobCounter(make_spool()), transfers=lambda: 0, free_bytes=lambda: 0)
    for total in (5, 7):
        assert samples(counted.render(received_bytes=total))["clouduploader_received_bytes_total", ""] == total


def test_uploads_are_counted_by_outcome_and_exit_code(make_spool):
    counted = metrics.Metrics(job_counter.JobCounter(make_spool()), transfers=lambda: 0, free_bytes=lambda: 0)
    counted.count_upload("succeeded", exit_code=0, seconds=11)
    counted.count_upload("failed", exit_code=77, seconds=2)
    counted.count_upload("waiting", exit_code=75, seconds=100)
    counted.count_upload("failed", exit_code=None, seconds=100_000)
    found = samples(counted.render(received_bytes=0))
    assert found["clouduploader_upload_seconds_count", 'outcome="succeeded"'] == 1
    assert found["clouduploader_upload_seconds_bucket", 'le="10.0",outcome="succeeded"'] == 0
    assert found["clouduploader_upload_seconds_bucket", 'le="30.0",outcome="succeeded"'] == 1
    assert found["clouduploader_upload_seconds_bucket", 'le="+Inf",outcome="failed"'] == 2
    failures = {labels: value for (name, labels), value in found.items() if name.endswith("failures_total")}
    assert failures == {'exit_code="77"': 1, 'exit_code="75"': 1, 'exit_code="unknown"': 1}


def test_strange_methods_are_one_number(serve, make_spool):
    server = serve(make_spool())
    for method in ("OPTIONS", "TRACE"):
        server.ask(method, "/")
    found = samples(server.ask("GET", "/metrics")[2])
    assert found["clouduploader_request_seconds_count", 'method="other",status="501"'] == 2


def test_metrics_without_spool_are_an_error_and_no_lie(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs)
    jobs.directory.rename(jobs.directory.with_name("elsewhere"))
    status, _, body = server.ask("GET", "/metrics")
    assert status.startswith("400")
    assert b"there is no spool" in body


def test_cluster_is_counted_and_so_are_its_events(make_spool):
    counts = [ClusterCount(hosts={"gone": 1, "working": 2}, slots=5, leases={"claimed": 3}, messages={"big": 4})]
    counted = metrics.Metrics(
        job_counter.JobCounter(make_spool()), transfers=lambda: 0, free_bytes=lambda: 0, cluster=lambda: counts[0]
    )
    for kind in (WorkerEventKind.PUBLISHED, WorkerEventKind.LOST, WorkerEventKind.PUBLISHED, WorkerEventKind.READY):
        counted.count_event(WorkerEvent(kind, "1", ""))
    counted.count_event(WorkerEvent(WorkerEventKind.SUCCEEDED, "1", "", UploadEnd(0, 11)))
    found = samples(counted.render(received_bytes=0))
    assert found["clouduploader_cluster_hosts", 'state="working"'] == 2
    assert found["clouduploader_cluster_slots", ""] == 5
    assert found["clouduploader_cluster_leases", 'state="claimed"'] == 3
    assert found["clouduploader_cluster_messages", 'queue="big"'] == 4
    assert found["clouduploader_cluster_published_total", ""] == 2
    assert found["clouduploader_cluster_takeovers_total", ""] == 1
    assert found["clouduploader_upload_seconds_count", 'outcome="succeeded"'] == 1


def test_without_a_cluster_nothing_is_said_of_one(make_spool):
    counted = metrics.Metrics(job_counter.JobCounter(make_spool()), transfers=lambda: 0, free_bytes=lambda: 0)
    counted.count_event(WorkerEvent(WorkerEventKind.LOST, "1", ""))
    assert b"cluster" not in counted.render(received_bytes=0)
