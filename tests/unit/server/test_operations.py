"""Numbers, health and logs of the service, asked over HTTP."""

import fcntl
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clouduploader import client as client_module
from clouduploader.jobs import expire
from clouduploader.model.job import Details, JobState
from clouduploader.server import job_counter, metrics, operations, page, routes, service, settings
from clouduploader.store import config
from clouduploader.util import cancel, service_log

SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")


def wait_for(is_true):
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def samples(body):
    """The samples of Prometheus's text by name and labels."""
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {(found[1], found[2] or ""): float(found[3]) for found in map(SAMPLE.fullmatch, lines)}


def lines_of(server, event, job=None):
    """The lines of a server's log about an event."""
    mark = f" event={event}" + (f" job={job} " if job else " ")
    return [line for line in server.log.getvalue().splitlines() if mark in f"{line} "]


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


def test_readme_names_every_number(make_spool):
    counted = metrics.Metrics(job_counter.JobCounter(make_spool()), transfers=lambda: 0, free_bytes=lambda: 0)
    known = set(re.findall(r"^# TYPE (clouduploader_\w+)", counted.render(received_bytes=0).decode(), re.MULTILINE))
    readme = (Path(__file__).parents[3] / "README.rst").read_text("utf-8")
    assert set(re.findall(r"^``(clouduploader_\w+)``", readme, re.MULTILINE)) == known


def test_strange_methods_are_one_number(serve, make_spool):
    server = serve(make_spool())
    for method in ("OPTIONS", "TRACE"):
        server.ask(method, "/")
    found = samples(server.ask("GET", "/metrics")[2])
    assert found["clouduploader_request_seconds_count", 'method="other",status="501"'] == 2


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


def test_metrics_without_spool_are_an_error_and_no_lie(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs)
    jobs.directory.rename(jobs.directory.with_name("elsewhere"))
    status, _, body = server.ask("GET", "/metrics")
    assert status.startswith("400")
    assert b"there is no spool" in body


def test_health_is_good_only_with_spool_room_and_worker(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs, keep_free="1")
    status, headers, body = server.ask("GET", "/healthz")
    assert status.startswith("503")
    assert "Content-Type: application/json" in headers
    checks = json.loads(body)["checks"]
    assert (checks["spool"], checks["disk"]) == ("ok", "ok")
    assert checks["worker"] == "no worker looks after the spool"
    assert list(jobs.directory.iterdir()) == []


def test_health_tells_of_a_full_disk_and_a_lost_spool(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs, keep_free="1000000T")
    assert "are to be kept free" in json.loads(server.ask("GET", "/healthz")[2])["checks"]["disk"]
    jobs.directory.rename(jobs.directory.with_name("elsewhere"))
    checks = json.loads(server.ask("GET", "/healthz")[2])["checks"]
    assert checks["spool"] == "cloudupload can't be written: No such file or directory"


def test_settings_are_read_again_and_those_that_are_wrong_are_not_taken(serve, make_spool):
    server = serve(make_spool(), keep_free="1")

    def read_again(**section):
        count = len(lines_of(server, "settings"))
        server.section.update(section)
        server.source.request_reload()
        wait_for(lambda: len(lines_of(server, "settings")) > count)
        return lines_of(server, "settings")[-1].partition(" text=")[2]

    name = server.create(size=1)
    assert read_again(keep_free="1000000T") == '"the server\'s were read again"'
    assert "are kept free" in server.ask("PUT", f"/cloudupload/{name}", b"a")[0]
    assert "keep_free" in read_again(keep_free="no number", allow="192.0.2.0/24")
    assert server.ask("GET", "/")[0] == "200 OK"
    assert "listens on 127.0.0.1:0 until it is restarted" in read_again(keep_free="1", listen="[::1]:1")
    assert server.ask("GET", "/")[0] == "403 access denied for 127.0.0.1"


def test_log_tells_of_jobs_whose_clients_left(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs)
    target = "/cloudupload?size=1&project=x&repository=x&package=x&arch=x&user=x&target=x&filename=x"
    for _ in range(20):
        with server.connect() as client:
            client.sendall(f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert server.create()
    wait_for(lambda: all(lines_of(server, "created", name) for name in jobs.running_names()))


def test_log_tells_of_what_is_no_request(serve, make_spool):
    server = serve(make_spool())
    server.send(b"BREW event=scheduled HTTP/1.1\r\n\r\n")
    (line,) = lines_of(server, "info")
    assert line.endswith(' text="malformed request from 127.0.0.1: BadHttpMethod"')


def test_log_has_one_line_a_request_and_a_change(serve, make_spool):
    server = serve(make_spool())
    name = server.create(size=3, user="to\x85m &quot;x&quot;")
    server.ask("PUT", f"/cloudupload/{name}", b"abc")
    (created,) = lines_of(server, "created", name)
    assert r'user="to\u0085m \"x\"" target=ec2 size=3' in created
    (_,) = lines_of(server, "receiving", name)
    (scheduled,) = lines_of(server, "scheduled", name)
    assert re.search(r"^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .* bytes=3 seconds=\d+\.\d{3}$", scheduled)
    posted, put = lines_of(server, "request", name)
    assert "method=POST path=/cloudupload status=200" in posted
    assert f"client=127.0.0.1 method=PUT path=/cloudupload/{name} status=200" in put
    server.ask("POST", f"/cloudupload/{name}?cmd=kill")
    (_,) = lines_of(server, "killed", name)


def test_log_tells_that_a_job_is_scheduled_before_anybody_can_start_it(serve, make_spool):
    """A worker that sees the record then, woken by the kernel, writes its own line after it."""
    jobs = make_spool()
    server = serve(jobs)
    seen = {}
    for _ in range(10):
        name = server.create(size=3)
        watcher = threading.Thread(target=look_when_scheduled, args=(server, jobs, name, seen))
        watcher.start()
        server.ask("PUT", f"/cloudupload/{name}", b"abc")
        watcher.join()
    assert seen == dict.fromkeys(seen, True)
    assert len(seen) == 10


def look_when_scheduled(server, jobs, name, seen):
    """Note whether the log says so at the first moment at which the job is."""
    while jobs.read(name)[0].state is not JobState.SCHEDULED:
        pass
    seen[name] = bool(lines_of(server, "scheduled", name))


def test_log_and_job_say_the_same_of_an_image_that_did_not_come(serve, make_spool, make_job):
    jobs = make_spool()
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=child.pid)
    server = serve(jobs)
    wait_for(lambda: lines_of(server, "failed", "1"))
    left, killed = server.create(size=10), server.create(size=10)
    for name in (left, killed):
        with server.connect() as client:
            client.sendall(f"PUT /cloudupload/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".encode())
            wait_for(lambda name=name: jobs.read(name)[0].state is JobState.RECEIVING)
            if name == killed:
                server.ask("POST", f"/cloudupload/{name}?cmd=kill")
                wait_for(lambda: lines_of(server, "failed", killed))
        wait_for(lambda name=name: lines_of(server, "failed", name))
    for name in ("1", left, killed):
        (line,) = lines_of(server, "failed", name)
        details = jobs.read(name)[0].details
        assert f'details="{details}"' in line or f"details={details}" in line
    assert {jobs.read(name)[0].details for name in ("1", left, killed)} == {expire.DEAD, Details.CUT_OFF, "killed"}


def test_log_tells_why_an_image_was_not_taken(serve, make_spool):
    server = serve(make_spool())
    name = server.create(size=3)
    server.ask("PUT", f"/cloudupload/{name}", b"abcd")
    (failed,) = lines_of(server, "failed", name)
    assert 'details="size mismatch: 4 != 3"' in failed


def test_log_has_of_what_is_polled_only_the_trouble(serve, make_spool):
    jobs = make_spool()
    server = serve(jobs)
    for path in ("/metrics", "/ui/jobs"):
        assert server.ask("GET", path)[0] == "200 OK"
    assert lines_of(server, "request") == []
    server.ask("GET", "/ui/jobs/1")
    server.ask("GET", "/healthz")
    assert [line.rpartition(" status=")[2][:3] for line in lines_of(server, "request")] == ["404", "503"]


@pytest.mark.parametrize("secret", ["?token=secret", "?user=secret&x=secret"])
def test_log_has_no_query_and_no_body(serve, make_spool, secret):
    server = serve(make_spool())
    server.ask("POST", f"/cloudupload{secret}", b'{"key": "secret"}', X_Secret="secret")
    (line,) = lines_of(server, "request")
    assert "secret" not in server.log.getvalue()
    assert "status=400" in line


def test_a_line_break_from_outside_begins_no_line(serve, make_spool):
    server = serve(make_spool())
    server.ask("GET", "/cloudupload/%0Aevent=killed%20job=1%0A/_log")
    (line,) = server.log.getvalue().splitlines()[-1:]
    assert r'path="/cloudupload/\nevent=killed job=1\n/_log"' in line


def test_routes_are_for_reading_and_not_those_of_obs(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", log=b"begun")
    server = serve(jobs)
    obs = {route.path for route in routes.ROUTES}
    for route in (*operations.ROUTES, *page.ROUTES):
        assert route.path not in obs
        path = route.path.replace("$job", "1")
        assert server.ask("POST", path, b"")[0] == f"400 unknown request  POST {path}"
        status, _, body = server.ask("HEAD", path)
        assert status[:3] in ("200", "503")
        assert body == b""


def test_nobody_else_may_read(serve, make_spool):
    server = serve(make_spool(), allow="10.0.0.0/8")
    for route in (*operations.ROUTES, *page.ROUTES):
        assert server.ask("GET", route.path)[0].startswith("403")


@pytest.mark.parametrize(
    "headers",
    [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "http://evil.test"}, {"Origin": "null"},
     {"Origin": "http://obs"}, {"Sec_Fetch_Site": "same-origin"}],
)  # fmt: skip
def test_page_can_not_kill_wherever_it_says_that_it_comes_from(serve, make_spool, headers):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create()
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, _, _ = server.ask("POST", f"/cloudupload/{name}", b"cmd=kill", **form, **headers)
    assert status.startswith("403 ")
    assert jobs.read(name)[0].state is JobState.CREATED
    assert server.ask("GET", "/ui/jobs", **headers)[0] == "200 OK"
    status, _, _ = server.ask("POST", f"/cloudupload/{name}", b"cmd=kill", **form)
    assert status.startswith("200 ")


def test_service_ends_when_nobody_sees_to_old_jobs_any_more(make_spool, make_job, tmp_path, monkeypatch):
    """A fault in housekeeping is told, and the service started again, rather than jobs left lying for ever."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=os.getppid())
    monkeypatch.setattr(os, "kill", lambda _pid, _number: 1 / 0)
    loaded = config.load(home=tmp_path, spool=jobs.directory, environment={})
    source = settings.SettingsSource(lambda: settings.load({"listen": "127.0.0.1:0"}, loaded.path))
    with pytest.raises(ZeroDivisionError):
        service.run(
            loaded, source, cancel=cancel.Cancel(), announce=str, log=service_log.ServiceLog(io.StringIO()), worker=None
        )


def test_worker_of_obs_is_found_where_the_settings_say(make_spool, serve, tmp_path):
    jobs = make_spool()
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)
    (home / "clouduploader.conf").write_text(f"[worker]\nobs_lock = {tmp_path}/elsewhere.lock\n")
    server = serve(jobs)
    client = client_module.JobServer("http://{}:{}".format(*server.address))
    assert b'type="clouduploadworker" state="dead"' in server.ask("GET", "/workerstatus")[2]
    assert not client.has_worker()
    with (tmp_path / "elsewhere.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert b'type="clouduploadworker" state="running"' in server.ask("GET", "/workerstatus")[2]
        assert client.has_worker()
        assert json.loads(server.ask("GET", "/healthz")[2])["checks"]["worker"] == "ok"
