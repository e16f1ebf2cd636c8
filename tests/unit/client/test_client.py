import datetime
import time

import pytest
from fakes.scripted_server import answer, chunked, ok, refusal
from samples.server_job import JOB, XML

from clouduploader import client as client_module
from clouduploader.errors import (
    DeniedError,
    NetworkError,
    NoSuchJobError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
    UnavailableError,
)
from clouduploader.model.job import Job, JobState

ENTRY = b'<directory>\n  <entry name="_log" size="53" mtime="1795361955" />\n</directory>\n'


def test_job_is_created_by_its_skeleton_with_the_target_data_in_hex(make_server):
    server = make_server(ok(XML))
    given = Job(name="", state=JobState.CREATED, user="o'brien & <sons>", target="ec2", project="", size=5)

    assert client_module.JobServer(f"{server.url}/prefix").create(given, targetdata=b'{"a":"\xc3\xa4"}') == JOB

    (request,) = server.requests
    assert request.line == "POST /prefix/cloudupload"
    assert request.headers["Content-Type"] == "text/xml"  # as a form, OBS's server would not look at it
    assert b"<details>7b2261223a22c3a4227d</details>" in request.body
    assert b"<user>o'brien &amp; &lt;sons&gt;</user>" in request.body
    assert b"<project></project>" in request.body


def test_job_is_read(make_server):
    server = make_server(ok(XML))
    assert client_module.JobServer(server.url).read("7") == JOB
    assert server.requests[0].line == "GET /cloudupload/7"


@pytest.mark.parametrize("name", ["", "next", "../7", "7/_log", "7?cmd=kill", "-1", "٣"])
@pytest.mark.parametrize("ask", ["read", "kill", "log_facts"])
def test_name_that_is_no_number_is_not_asked_for(make_server, name, ask):
    server = make_server()
    with pytest.raises(NoSuchJobError):
        getattr(client_module.JobServer(server.url), ask)(name)
    assert server.requests == []


REFUSALS = [
    (refusal("404 no such job", "no such job"), NoSuchJobError, "there is no job 7 at "),
    (refusal("400 x", "unknown parameter: 'x'"), PlatformReplyError, "refused: unknown parameter: 'x' (HTTP 400)"),
    (refusal("401 x", "who are you?"), DeniedError, "who are you?"),
    (refusal("403 x", "not you"), DeniedError, "not you"),
    (refusal("500 x", "access denied by $ipaccess rules"), DeniedError, "access denied by $ipaccess rules"),
    (refusal("500 x", "Too many open files"), TransientError, "Too many open files"),
    (refusal("507 x", "disk full"), TransientError, "disk full"),
    (refusal("429 x", "slowly"), ThrottledError, "slowly"),
    (answer("418 I'm a teapot", b"<html>"), PlatformReplyError, "refused: I'm a teapot (HTTP 418)"),
    (answer("400 ", b""), PlatformReplyError, "refused: no reason given (HTTP 400)"),
    (refusal("400 x", "a\n\x85b " + "c" * 999), PlatformReplyError, "refused: a b " + "c" * 296 + "... (HTTP 400)"),
    (answer("302 x", b"", "Location: http://evil.example/"), UnavailableError, "redirects to http://evil.example/"),
    (answer("204 x", b""), PlatformReplyError, "(HTTP 204)"),
]


@pytest.mark.parametrize(("reply", "error", "message"), REFUSALS)
def test_refusal_is_one_line_with_the_servers_summary(make_server, reply, error, message):
    server = make_server(reply)
    with pytest.raises(error) as caught:
        client_module.JobServer(server.url).read("7")
    assert type(caught.value) is error
    assert message in caught.value.message
    assert caught.value.message.isprintable()
    assert len(server.requests) == 1  # no redirect is followed


def test_place_of_a_redirect_is_shown_without_what_may_be_a_signature(make_server):
    server = make_server(answer("303 x", b"", "Location: https://store.example/7?X-Amz-Signature=made-up"))
    with pytest.raises(UnavailableError, match=r"redirects to https://store.example/7$"):
        client_module.JobServer(server.url).read("7")


def test_missing_page_without_a_job_is_no_job_server(make_server):
    server = make_server(answer("404 Not Found", b"<html>"))
    with pytest.raises(UnavailableError, match="Not Found"):
        client_module.JobServer(server.url).read_all()


def test_server_that_does_not_answer_is_worth_another_try(make_server, monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.05)
    server = make_server(lambda connection, reader: reader.read())
    with pytest.raises(NetworkError, match="in time"):
        client_module.JobServer(server.url).read("7")


def test_all_jobs_are_read_with_those_that_are_wrong(make_server):
    wrong = XML.replace(b'"7"', b'"8"').replace(b">5<", b">abc<")
    server = make_server(ok(b"<clouduploadjoblist>\n" + XML + wrong + b"</clouduploadjoblist>\n"))
    found = client_module.JobServer(server.url).read_all()
    assert found["7"] == JOB
    assert "'abc'" in found["8"].message
    assert server.requests[0].line == "GET /cloudupload"


@pytest.mark.parametrize("body", [b"<html/>", b"<clouduploadjoblist>", XML, b""])
def test_what_is_no_list_is_nonsense(make_server, body):
    server = make_server(ok(body))
    with pytest.raises(PlatformReplyError, match="answers with no list of jobs"):
        client_module.JobServer(server.url).read_all()


def test_log_facts_are_read(make_server):
    server = make_server(ok(ENTRY), ok(ENTRY.replace(b"1795361955", b"9" * 30)))
    facts = client_module.JobServer(server.url).log_facts("7")
    assert facts == client_module.LogFacts(53, datetime.datetime(2026, 11, 22, 15, 39, 15, tzinfo=datetime.UTC))
    assert client_module.JobServer(server.url).log_facts("7").changed is None
    assert server.requests[0].line == "GET /cloudupload/7/_log?view=entry"


@pytest.mark.parametrize("body", [b"", b"<directory/>", ENTRY.replace(b"53", b"x"), b"<html/>"])
def test_log_facts_that_make_no_sense_are_nonsense(make_server, body):
    server = make_server(ok(body))
    with pytest.raises(PlatformReplyError, match="no directory entry"):
        client_module.JobServer(server.url).log_facts("7")


def workers(text):
    return ok(b"<workerstatus>\n  <partition>\n    " + text + b"\n  </partition>\n</workerstatus>\n")


def test_worker_of_a_server_is_asked_for(make_server):
    """The answers are OBS's, with BSXML.pm's attributes."""
    server = make_server(
        workers(b'<daemon type="clouduploadworker" state="running" starttime="1795361955" />'),
        workers(b'<daemon type="clouduploadworker" state="dead" />'),
    )
    assert [client_module.JobServer(server.url).has_worker() for _ in range(2)] == [True, False]
    assert server.requests[0].line == "GET /workerstatus?arch=clouduploadworker"


@pytest.mark.parametrize(
    "reply", [ok(b""), ok(b"<html/>"), workers(b""), workers(b'<daemon type="srcserver" state="dead" />')]
)
def test_server_that_says_nothing_of_its_worker_makes_no_sense(make_server, reply):
    with pytest.raises(PlatformReplyError):
        client_module.JobServer(make_server(reply).url).has_worker()


def test_log_that_is_not_there_has_no_facts(make_server):
    server = make_server(refusal("400 x", "/srv/7.log: No such file or directory"), refusal("404 x", "no such job"))
    assert client_module.JobServer(server.url).log_facts("7") is None
    with pytest.raises(NoSuchJobError):
        client_module.JobServer(server.url).log_facts("7")


@pytest.mark.parametrize("reply", [chunked(b"ab", b"c\xff"), ok(b"abc\xff")])
def test_log_is_read_as_it_comes(make_server, reply):
    server = make_server(reply, reply)
    client = client_module.JobServer(server.url)
    assert b"".join(client.log("7", start=2)) == b"abc\xff"
    assert b"".join(client.log("7", start=2, end=6)) == b"abc\xff"
    assert list(client.log("7", start=6, end=6)) == []
    assert [request.line for request in server.requests] == [
        "GET /cloudupload/7/_log?start=2",
        "GET /cloudupload/7/_log?start=2&end=6&nostream=1",
    ]


@pytest.mark.parametrize(
    "reply", [chunked(b"ab", b"c", is_whole=False), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_log_that_breaks_off_is_told_after_what_came(make_server, reply):
    server = make_server(reply)
    came = []
    with pytest.raises(NetworkError):
        came.extend(iter(client_module.JobServer(server.url).log("7", start=0)))
    assert b"".join(came) == b"abc"


def test_log_that_says_nothing_is_told(make_server, monkeypatch):
    monkeypatch.setattr(client_module, "QUIET_SECONDS", 0.05)

    def run(connection, reader):
        connection.sendall(chunked(b"ab", is_whole=False))
        reader.read()

    server = make_server(run)
    blocks = client_module.JobServer(server.url).log("7", start=0)
    assert next(blocks) == b"ab"
    with pytest.raises(NetworkError, match="in time"):
        next(blocks)


def test_log_is_fetched_into_a_file_and_no_more_of_it_than_was_asked_for(make_server, monkeypatch):
    server = make_server(chunked(b"abc"), chunked(b"abcd", b"efgh"))
    client = client_module.JobServer(server.url)
    with client.fetch_log("7", 3) as file:
        file.seek(0)
        assert file.read() == b"abc"
    with pytest.raises(PlatformReplyError, match="more of the log"):
        client.fetch_log("7", 3)
    monkeypatch.setattr(client_module, "MAX_LOG_BYTES", 2)
    with pytest.raises(PlatformReplyError, match="a log of 3 bytes"):
        client.fetch_log("7", 3)


@pytest.mark.parametrize(
    ("ask", "reply", "quickly"),
    [
        (lambda server: server.read("7"), ok(XML), 0),
        (lambda server: server.read("7"), ok(XML), 100),
        (lambda server: server.read_all(), ok(b"<directory>" + b" " * 10_000 + b"</directory>"), 90),
        (lambda server: server.kill("7"), refusal("400 x", "no" * 1000), 100),
        (lambda server: server.log_facts("7"), b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0),
        (lambda server: server.create(JOB, targetdata=b"{}"), ok(XML), 20),
        (lambda server: list(server.log("7", start=0)), chunked(b"a line\n"), 20),
        (lambda server: list(server.log("7", start=0, end=1000)), ok(b"x" * 1000), 100),
    ],
)
def test_exchange_ends_however_slowly_the_server_speaks(make_server, monkeypatch, drip, ask, reply, quickly):
    monkeypatch.setattr(client_module, "EXCHANGE_SECONDS", 0.5)
    monkeypatch.setattr(client_module, "SLOWEST_BYTES", 1 << 40)
    server = make_server(drip(reply, quickly=quickly))
    with pytest.raises(NetworkError, match="did not complete its answer within"):
        ask(client_module.JobServer(server.url))


def test_log_that_grows_is_followed_for_as_long_as_it_comes(make_server, monkeypatch):
    def say(connection, _reader):
        connection.sendall(chunked(is_whole=False))
        for _ in range(8):
            time.sleep(0.1)
            connection.sendall(b"2\r\nx\n\r\n")
        connection.sendall(b"0\r\n\r\n")

    monkeypatch.setattr(client_module, "EXCHANGE_SECONDS", 0.5)
    server = make_server(say)
    assert b"".join(client_module.JobServer(server.url).log("7", start=0)) == b"x\n" * 8
