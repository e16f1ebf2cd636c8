"""A job's log by the API: ranges of it, and events while it grows."""

import contextlib
import datetime
import json
import threading

import pytest

from clouduploader.model.job import JobState
from clouduploader.server import housekeeping
from clouduploader.server.api import job_log
from clouduploader.store.tokens import Role, TokenStore

LOG = b"one\ntwo\nthree\n"


@pytest.fixture
def jobs(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, log=LOG, details="no")
    make_job(jobs, "2", state=JobState.UPLOADING, log=b"one\nhalf")
    make_job(jobs, "3", state=JobState.FAILED)
    return jobs


@pytest.fixture
def server(serve, jobs):
    return serve(jobs)


def events(data):
    """Return kind, id and data of each event."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines["event"], int(lines["id"]), json.loads(lines["data"])))
    return found


@pytest.mark.parametrize("path", ["/api/v1/jobs/2/log/events", "/cloudupload/2/_log"])
def test_follower_is_gone_after_the_token(path, serve, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(housekeeping, "ENDED_SECONDS", 0.05)
    server = serve(jobs, allow="none", clients="127.0.0.1")
    store = TokenStore(tmp_path / "etc" / "cloudupload")
    now = datetime.datetime.now(datetime.UTC)
    (_, kept), (revoked, lost) = [store.create("a", Role.ADMIN, note="", expires=None, now=now) for _ in range(2)]
    with server.connect() as client, server.connect() as other:
        for one, text in ((client, lost), (other, kept)):
            head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {text}\r\n\r\n"
            one.sendall(head.encode())
            assert one.recv(100).startswith(b"HTTP/1.1 200 ")
        store.remove(revoked.id)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(65_536):
                pass
        with jobs.open_log("2") as log:
            log.write(b" more\n")
        while b"more" not in (data := other.recv(65_536)):
            assert data


RANGES = [
    (None, "200", LOG, None),
    ("bytes=4-6", "206", b"two", "4-6/14"),
    ("bytes=4-", "206", LOG[4:], "4-13/14"),
    ("bytes=-6", "206", LOG[-6:], "8-13/14"),
    ("bytes=4-99", "206", LOG[4:], "4-13/14"),
    ("bytes=14-", "416", None, "*/14"),
    ("bytes=x", "416", None, "*/14"),
    ("bytes=6-4", "416", None, "*/14"),
]


def test_log_is_sent_by_ranges(server):
    for wanted, status, part, place in RANGES:
        headers = {"Range": wanted} if wanted else {}
        found, lines, body = server.ask("GET", "/api/v1/jobs/1/log", **headers)
        assert found.startswith(status)
        assert (f"Content-Range: bytes {place}" in lines) == (place is not None)
        assert part in (None, body)


def test_head_tells_how_long_a_log_is(server):
    status, lines, body = server.ask("HEAD", "/api/v1/jobs/1/log")
    assert (status, body) == ("200 OK", b"")
    assert "Content-Length: 14" in lines


def test_job_without_a_log_has_none(server):
    assert server.ask("GET", "/api/v1/jobs/3/log")[0] == "404 Not Found"
    assert events(server.ask("GET", "/api/v1/jobs/3/log/events")[2])[-1][0] == "end"


def test_events_end_with_the_job_and_go_on_behind_an_id(server):
    whole = events(server.ask("GET", "/api/v1/jobs/1/log/events")[2])
    end = ("end", 14, {"state": "failed", "details": "no", "progress": None})
    assert whole == [("log", 14, {"text": LOG.decode()}), end]
    assert events(server.ask("GET", "/api/v1/jobs/1/log/events", Last_Event_ID="4")[2]) == [
        ("log", 14, {"text": "two\nthree\n"}), end
    ]  # fmt: skip
    assert server.ask("GET", "/api/v1/jobs/1/log/events", Last_Event_ID="-1")[0] == "400 Bad Request"


def test_events_begin_anew_with_a_log_that_is_shorter(server):
    found = events(server.ask("GET", "/api/v1/jobs/1/log/events", Last_Event_ID="99")[2])
    assert [(kind, place) for kind, place, _ in found] == [("restart", 0), ("log", 14), ("end", 14)]


def test_lines_are_sent_whole_while_a_job_runs(server, jobs, make_job):
    found = []
    follower = threading.Thread(target=lambda: found.append(server.ask("GET", "/api/v1/jobs/2/log/events")[2]))
    with server.connect() as client:
        client.sendall(b"GET /api/v1/jobs/2/log/events HTTP/1.1\r\nHost: obs\r\n\r\n")
        data = b""
        while b"event: job" not in data:
            data += client.recv(65_536)
        assert b'"one\\n"' in data
        assert b"half" not in data
        follower.start()
        with jobs.log_path("2").open("ab") as log:
            log.write(b" and half\nlast")
        server.ask("POST", "/api/v1/jobs/2/kill", b"")
        follower.join()
    told = events(found[0])
    assert "".join(data["text"] for kind, _, data in told if kind == "log") == "one\nhalf and half\nlast"
    assert told[-1] == ("end", 22, {"state": "failed", "details": "killed", "progress": None})


def test_line_of_any_length_is_sent(server, jobs):
    (jobs.done_log_path("1")).write_bytes(b"x" * 200_000)
    told = events(server.ask("GET", "/api/v1/jobs/1/log/events")[2])
    assert sum(len(data["text"]) for kind, _, data in told if kind == "log") == 200_000


def test_quiet_follower_is_kept_alive(server, monkeypatch):
    monkeypatch.setattr(job_log, "ALIVE_SECONDS", 0.05)
    with server.connect() as client:
        client.sendall(b"GET /api/v1/jobs/2/log/events HTTP/1.1\r\nHost: obs\r\n\r\n")
        data = b""
        while data.count(b": alive") < 2:
            data += client.recv(65_536)
        assert b"event: log" in data
