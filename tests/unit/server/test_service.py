"""The life of a server: its settings, its log, its end."""

import io
import os
import re
import subprocess
import sys
import threading

import pytest
from fakes.waiting import wait_for

from clouduploader.jobs import expire
from clouduploader.model.job import Details, JobState
from clouduploader.server import service, settings
from clouduploader.store import config
from clouduploader.util import cancel, service_log


def lines_of(server, event, job=None):
    """The lines of a server's log about an event."""
    mark = f" event={event}" + (f" job={job} " if job else " ")
    return [line for line in server.log.getvalue().splitlines() if mark in f"{line} "]


def look_when_scheduled(server, jobs, name, seen):
    """Note whether the log says so at the first moment at which the job is."""
    while jobs.read(name)[0].state is not JobState.SCHEDULED:
        pass
    seen[name] = bool(lines_of(server, "scheduled", name))


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
    assert f"client=127.0.0.1 role=backend method=PUT path=/cloudupload/{name} status=200" in put
    server.ask("POST", f"/cloudupload/{name}?cmd=kill")
    (_,) = lines_of(server, "killed", name)


def test_log_tells_that_a_job_is_scheduled_before_it_can_be_started(serve, make_spool):
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
    for path in ("/metrics", "/api/v1/jobs"):
        assert server.ask("GET", path)[0] == "200 OK"
    assert lines_of(server, "request") == []
    server.ask("GET", "/api/v1/jobs/1")
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


def test_service_ends_when_its_expiry_of_old_jobs_fails(make_spool, make_job, tmp_path, monkeypatch):
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
