"""The commands that look after jobs, when a server has these and not a spool."""

import types

import pytest
from fakes.scripted_server import chunked, ok, refusal

from clouduploader import client
from clouduploader.errors import MissingFileError, NoSuchJobError, TransientError
from clouduploader.jobs import inspect, kill, log
from clouduploader.jobs import list as jobs_list
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import CloudObject

DONE = ok(b'<status code="ok" />\n')
NO_LOG = refusal("400 x", "/srv/obs/cloudupload/7.log: No such file or directory")
LOG = b"Start uploading image a.raw.\nPhase: upload\nCreated instance i-1 in here.\nlast\xff"


def record(name, state, **fields):
    return job_xml.serialize(Job(name=name, state=state, **fields))


def job(state, **fields):
    """The answer for job 7."""
    return ok(record("7", state, **fields))


def entry(size):
    """The answer for the facts of a log."""
    return ok(b'<directory>\n  <entry name="_log" size="%d" mtime="1795361955" />\n</directory>\n' % size)


def listed(*records):
    return ok(b"<clouduploadjoblist>\n" + b"".join(records) + b"</clouduploadjoblist>\n")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(log, "SERVER_POLL_SECONDS", 0.01)


RECORDS = (
    record("1", JobState.SUCCEEDED, user="ann"),
    record("10", JobState.UPLOADING),
    record("11", JobState.SCHEDULED, user="ann"),
    b'<clouduploadjob name="12"><state>failed</state><size>abc</size></clouduploadjob>\n',
    record("2", JobState.FAILED),
)


@pytest.mark.parametrize(
    ("query", "total", "expected"),
    [
        ({}, 5, ["12", "11", "10", "2", "1"]),
        ({"users": ["ann"]}, 5, ["11", "1"]),
        ({"is_running": True}, 3, ["12", "11", "10"]),
        ({"is_running": True, "users": ["ann"]}, 3, ["11"]),
    ],
)
def test_jobs_of_a_server_are_listed_as_those_of_a_spool(make_server, query, total, expected):
    server = client.JobServer(make_server(listed(*RECORDS)).url)
    listing = jobs_list.list_at_server(server, jobs_list.JobQuery(**query))
    assert listing.total == total
    entries = list(listing.entries)
    assert [entry.name for entry in entries] == expected
    assert [entry.name for entry in entries if entry.is_archived] == [name for name in expected if name in ("1", "2")]
    assert [entry.name for entry in entries if entry.damage] == [name for name in expected if name == "12"]


def test_job_of_a_server_is_inspected_as_far_as_it_tells(make_server):
    created = 1795361942
    server = make_server(job(JobState.UPLOADING, created=created, pid=5), entry(len(LOG)), chunked(LOG))

    found = inspect.inspect_at_server(client.JobServer(server.url), "7", lines=2)

    assert (found.job.pid, found.is_archived, found.damage) == (5, False, None)
    assert found.created.timestamp() == created
    unknown = (
        found.paths,
        found.pids,
        found.ownership,
        found.image_bytes,
        found.ended,
        found.journal,
        found.log.is_held,
    )
    assert unknown == (None,) * 7
    assert found.log.size_bytes == len(LOG)
    assert found.log.last_lines == ("Created instance i-1 in here.", "last\ufffd")
    assert (found.log.reading.phase, found.log.reading.objects) == ("upload", (CloudObject("instance", "i-1", "here"),))
    assert server.requests[-1].line == f"GET /cloudupload/7/_log?start=0&end={len(LOG)}&nostream=1"


def test_damaged_job_of_a_server_without_a_log_is_inspected(make_server):
    server = make_server(ok(b"<clouduploadjob name='7'/>"), NO_LOG)
    found = inspect.inspect_at_server(client.JobServer(server.url), "7", lines=2)
    assert (found.job, found.log, found.is_archived) == (None, None, False)
    assert "no 'state'" in found.damage


def read(server, **options):
    pieces = []
    end = log.follow_at_server(client.JobServer(server.url), "7", write=pieces.append, **options)
    return b"".join(pieces), end


def test_log_of_a_server_is_what_is_there(make_server):
    server = make_server(job(JobState.UPLOADING), entry(3), chunked(b"a\xff\n"))
    data, end = read(server)
    assert (data, end.job.state, end.is_archived) == (b"a\xff\n", JobState.UPLOADING, False)


def test_empty_log_of_a_running_job_is_not_waited_for(make_server):
    data, end = read(make_server(job(JobState.UPLOADING), entry(0)))
    assert (data, end.job.state) == (b"", JobState.UPLOADING)


def test_last_lines_of_a_log_of_a_server_are_given(make_server):
    server = make_server(job(JobState.FAILED), entry(9), ok(b"one\ntwo\n3"), ok(b"two\n3"))
    data, end = read(server, lines=2)
    assert (data, end.is_archived) == (b"two\n3", True)
    assert server.requests[-1].line == "GET /cloudupload/7/_log?start=4&end=9&nostream=1"


@pytest.mark.parametrize(("state", "message"), [(JobState.CREATED, "no log yet"), (JobState.FAILED, "no log$")])
def test_job_of_a_server_without_a_log_says_so(make_server, state, message):
    with pytest.raises(MissingFileError, match=message):
        read(make_server(job(state), NO_LOG))


def test_log_of_a_server_is_followed_over_a_connection_that_breaks(make_server):
    server = make_server(
        job(JobState.SCHEDULED), NO_LOG,
        job(JobState.SCHEDULED), NO_LOG,
        job(JobState.UPLOADING), entry(3), chunked(b"one\n", b"two", is_whole=False),
        b"",  # it is restarted
        refusal("500 x", "not yet"),
        job(JobState.UPLOADING), entry(7), chunked(b"\n"),
        job(JobState.SUCCEEDED, details="ami-1"), entry(14), ok(b"three\n"),
    )  # fmt: skip

    data, end = read(server, is_following=True)

    assert data == b"one\ntwo\nthree\n"
    assert (end.job.details, end.is_archived) == ("ami-1", True)
    logs = [request.line for request in server.requests if "start" in request.line]
    assert logs == [f"GET /cloudupload/7/_log?start={start}" for start in (0, 7, 8)]


def test_followed_log_begins_with_the_last_lines(make_server):
    server = make_server(
        job(JobState.UPLOADING), entry(8), chunked(b"one\ntwo\n"),
        job(JobState.FAILED), entry(14), ok(b"two\nthree\n"),
    )  # fmt: skip
    assert read(server, is_following=True, lines=1)[0] == b"two\nthree\n"
    assert server.requests[-1].line == "GET /cloudupload/7/_log?start=4"


def test_log_that_another_one_took_the_place_of_is_followed_from_its_beginning(make_server):
    server = make_server(
        job(JobState.UPLOADING), entry(9),
        job(JobState.UPLOADING), entry(9), chunked(b"long line"),
        job(JobState.FAILED), entry(2), ok(b"b\n"),
    )  # fmt: skip
    assert read(server, is_following=True)[0] == b"long lineb\n"


def test_job_of_a_server_may_end_without_a_log(make_server):
    server = make_server(job(JobState.CREATED), NO_LOG, job(JobState.FAILED, details="unexpected EOF"), NO_LOG)
    data, end = read(server, is_following=True)
    assert (data, end.job.details) == (b"", "unexpected EOF")


def test_server_that_goes_away_while_a_log_is_followed_is_waited_for_so_long_and_no_longer(make_server, monkeypatch):
    monkeypatch.setattr(log, "PATIENCE_SECONDS", 0.1)
    server = make_server(job(JobState.UPLOADING), NO_LOG, *[refusal("503 x", "away")] * 1000)
    with pytest.raises(TransientError, match="away"):
        read(server, is_following=True)
    assert 3 < len(server.requests) < 1000


@pytest.fixture
def clock(monkeypatch):
    """What `follow_log` takes for the time, in seconds; only the test lets it pass."""
    clock = types.SimpleNamespace(now=0.0)
    fake = types.SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda _seconds: None)
    monkeypatch.setattr(log, "time", fake)
    return clock


def test_connection_that_breaks_after_an_hour_is_made_again_like_any_other(make_server, clock):
    def stream(connection, _reader):
        connection.sendall(chunked(b"a", is_whole=False))
        clock.now += 3600
        connection.sendall(b"1\r\nb\r\n")

    server = make_server(
        job(JobState.UPLOADING), entry(0),
        job(JobState.UPLOADING), entry(0), stream,
        job(JobState.SUCCEEDED), entry(5), ok(b"end"),
    )  # fmt: skip
    assert read(server, is_following=True)[0] == b"abend"


def test_log_that_says_nothing_for_hours_is_followed(make_server, clock, monkeypatch):
    monkeypatch.setattr(client, "QUIET_SECONDS", 0.05)

    def stream(connection, reader):
        clock.now += 60
        connection.sendall(chunked(is_whole=False))
        reader.read()

    turn = [job(JobState.UPLOADING), entry(0), stream]
    server = make_server(job(JobState.UPLOADING), entry(0), *turn * 5, job(JobState.SUCCEEDED), entry(3), ok(b"end"))
    assert read(server, is_following=True)[0] == b"end"


def test_log_that_is_refused_after_the_jobs_end_is_not_waited_for_for_ever(make_server, clock):
    def refuse(connection, _reader):
        clock.now += 50
        connection.sendall(refusal("500 x", "it can't be read"))

    over = [job(JobState.FAILED), refuse]
    server = make_server(job(JobState.UPLOADING), NO_LOG, *over * 10)
    with pytest.raises(TransientError, match="it can't be read"):
        read(server, is_following=True)
    assert len(server.requests) == 2 + 2 * 3


def test_what_is_refused_while_a_log_is_followed_is_an_error_at_once(make_server):
    server = make_server(job(JobState.UPLOADING), NO_LOG, refusal("404 x", "no such job"))
    with pytest.raises(NoSuchJobError):
        read(server, is_following=True)


def test_jobs_of_a_server_are_killed_by_it(make_server):
    server = make_server(
        job(JobState.UPLOADING), DONE, job(JobState.FAILED, details="killed"),
        refusal("404 x", "no such job"),
        ok(record("9", JobState.SUCCEEDED)),
        ok(record("10", JobState.UPLOADING)), DONE, ok(record("10", JobState.SUCCEEDED, details="ami-1")),
    )  # fmt: skip

    killed, unknown, finished, late = kill.kill_at_server(client.JobServer(server.url), ["7", "8", "9", "7", "10"])

    assert (killed.name, killed.state, killed.is_finished_before, killed.error) == ("7", JobState.FAILED, False, None)
    assert (killed.ownership, killed.remaining_pids, killed.clean_up) == (None, None, None)
    assert (unknown.name, unknown.state, type(unknown.error)) == ("8", None, NoSuchJobError)
    assert (finished.state, finished.is_finished_before) == (JobState.SUCCEEDED, True)
    assert (late.state, late.is_finished_before) == (JobState.SUCCEEDED, True)
    assert [request.line for request in server.requests if request.line.startswith("POST")] == [
        "POST /cloudupload/7?cmd=kill",
        "POST /cloudupload/10?cmd=kill",
    ]


def test_job_that_lives_on_after_a_kill_is_an_error(make_server):
    server = make_server(job(JobState.UPLOADING), DONE, job(JobState.UPLOADING))
    (outcome,) = kill.kill_at_server(client.JobServer(server.url), ["7"])
    assert "but it is uploading" in outcome.error.message
