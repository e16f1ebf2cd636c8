import contextlib
import dataclasses
import datetime
import socket
import ssl
import threading
import time

import pytest
from fakes.scripted_server import answer, chunked, ok, refusal

from clouduploader import client as client_module
from clouduploader.client.endpoint import ServerEndpoint
from clouduploader.errors import (
    DeniedError,
    JobFileError,
    NetworkError,
    NoSuchJobError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
    UnavailableError,
    UsageError,
)
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.sandbox import certificates
from clouduploader.util import http1

JOB = Job(
    name="7", state=JobState.CREATED, user="o'brien & <sons>", target="ec2", filename="a.raw", size=5, details="w"
)
XML = job_xml.serialize(JOB)
DONE = ok(b'<status code="ok" />\n')
ENTRY = b'<directory>\n  <entry name="_log" size="53" mtime="1795361955" />\n</directory>\n'


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://obs", "http://obs"),
        ("http://obs.example.org:5452/", "http://obs.example.org:5452"),
        ("https://[::1]:443/behind/a/proxy/", "https://[::1]:443/behind/a/proxy"),
    ],
)
def test_url_of_a_server_is_taken(url, shown):
    assert client_module.JobServer(url).url == shown


@pytest.mark.parametrize(
    "url",
    [
        "", "obs", "obs:5452", "ftp://obs", "http://", "http://:5452", "http://obs:port", "http://obs:99999",
        "http://a b",
        "http://obs/?a=b", "http://obs/#a", "http://obs/a b", "http://obs/\xe4", "http://\xe4", "http://[::1", "http://a..b",
        "http://" + "a" * 64, "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_a_wrong_argument(url):
    with pytest.raises(UsageError):
        client_module.JobServer(url)


def test_password_in_a_url_is_refused_and_not_shown():
    with pytest.raises(UsageError) as caught:
        client_module.JobServer("http://tom:s3cret@obs")
    assert "s3cret" not in str(caught.value)


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
    (answer("302 x", b"", "Location: http://evil.example/"), UnavailableError, "sends us to http://evil.example/"),
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


def test_missing_page_without_a_job_is_no_job_server(make_server):
    server = make_server(answer("404 Not Found", b"<html>"))
    with pytest.raises(UnavailableError, match="Not Found"):
        client_module.JobServer(server.url).read_all()


CUTS = [1, *range(8, len(ok(XML)), 8), len(ok(XML)) - 1]  # bytes of an answer, wherever that may be


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (b"", NetworkError, "no answer"),
        *[(ok(XML)[:length], NetworkError, "in the middle of its answer") for length in CUTS],
        (b"SSH-2.0-OpenSSH_9.2\r\n", PlatformReplyError, "no HTTP server"),
        (b"HTTP/1.1 OK\r\n\r\n", PlatformReplyError, "no HTTP server"),
        (b"HTTP/9.9 100 x\r\n\r\n", PlatformReplyError, "no HTTP server"),
        (b"HTTP/1.1 100 x\r\n\r\n" * 1000, PlatformReplyError, "no HTTP server"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000, PlatformReplyError, "no HTTP server"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000, PlatformReplyError, "no HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<cloud", NetworkError, "in the middle of its answer"),
        (chunked(XML, is_whole=False), NetworkError, "in the middle of its answer"),
        (chunked(is_whole=False) + b"zz\r\n", PlatformReplyError, "no HTTP server"),
        (chunked(is_whole=False) + b"-5\r\nabcde\r\n", PlatformReplyError, "no HTTP server"),
        (chunked(is_whole=False) + b"f" * 40 + b"\r\nabcde", PlatformReplyError, "no HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc", PlatformReplyError, "no HTTP server"),
        (ok(XML.replace(b'"7"', b'"8"')), PlatformReplyError, "the job 8 instead of 7"),
        (ok(b"<html>hello</html>"), JobFileError, "the job 7 of "),
        (ok(XML.replace(b">5<", b">abc<")), JobFileError, "the size 'abc' is not a number"),
        (ok(b'<!DOCTYPE a [<!ENTITY b "c">]>' + XML), JobFileError, "a document type is declared"),
        (
            ok(b" " * (client_module.MAX_JOB_BYTES + 1)),
            PlatformReplyError,
            f"more than {client_module.MAX_JOB_BYTES} bytes",
        ),
    ],
)
def test_answer_that_makes_no_sense_is_an_error_of_ours(make_server, reply, error, message):
    server = make_server(reply)
    with pytest.raises(error) as caught:
        client_module.JobServer(server.url).read("7")
    assert type(caught.value) is error
    assert message in caught.value.message


BORDER = [
    (http1.MalformedResponseError("x"), PlatformReplyError),
    (http1.OversizedResponseError("x"), PlatformReplyError),
    (http1.TruncatedResponseError("x"), NetworkError),
    *[
        (kind(1, "x"), NetworkError)
        for kind in (OSError, ConnectionError, BrokenPipeError, ConnectionResetError, ConnectionRefusedError)
    ],
    *[
        (kind(1, "x"), NetworkError)
        for kind in (ssl.SSLError, ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLWantReadError)
    ],
    (TimeoutError("x"), NetworkError),
    (socket.herror(1, "x"), NetworkError),
    (socket.gaierror(socket.EAI_AGAIN, "x"), NetworkError),
    (socket.gaierror(socket.EAI_NONAME, "x"), UnavailableError),
]


@pytest.mark.parametrize(("error", "kind"), BORDER, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_whatever_http_and_sockets_raise_is_an_error_of_ours(error, kind):
    with pytest.raises(kind) as caught, ServerEndpoint("http://obs.example.org:5452").errors():
        raise error
    assert type(caught.value) is kind
    assert "http://obs.example.org:5452" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (chunked(XML)[:-2], b"A: %s\r\n" % (b"b" * 9999)),  # trailers
        (chunked(is_whole=False), b"1;%s\r\nx\r\n" % (b"b" * 9999)),  # chunks of a byte
    ],
)
def test_answer_without_an_end_is_left(make_server, begin, more):
    def run(connection, _reader):
        connection.sendall(begin)
        while True:
            connection.sendall(more)

    with pytest.raises(PlatformReplyError, match="no HTTP server"):
        client_module.JobServer(make_server(run).url).read("7")


def test_server_that_is_not_there_is_worth_another_try(make_server):
    server = make_server()
    server.close()
    with pytest.raises(NetworkError, match="Connection refused"):
        client_module.JobServer(server.url).read("7")


def test_server_that_does_not_answer_is_worth_another_try(make_server, monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.05)
    server = make_server(lambda connection, reader: reader.read())
    with pytest.raises(NetworkError, match="in time"):
        client_module.JobServer(server.url).read("7")


@pytest.fixture
def tls(tmp_path):
    """A context of a server, and the certificate of its authority."""
    ca_path, server_path = tmp_path / "ca", tmp_path / "server"
    certificates.make(ca_path, server_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_path)
    return context, ca_path


def test_certificate_must_be_trusted(make_server, tls, monkeypatch):
    context, ca_path = tls
    server = make_server(ok(XML), context=context)
    with pytest.raises(UnavailableError, match="is not to be trusted: ") as caught:
        client_module.JobServer(server.url).read("7")
    assert "SSL_CERT_FILE" in caught.value.hint

    monkeypatch.setenv("SSL_CERT_FILE", str(ca_path))
    assert client_module.JobServer(server.url).read("7") == JOB
    assert len(server.requests) == 1


def test_image_goes_over_tls_too(make_server, tls, monkeypatch):
    context, ca_path = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_path))
    got = []
    server = make_server(ok(XML), take(got), context=context)
    send(server)
    assert got == [b"image"]


def take(got, *, leave=b"HTTP/1.1 100 continue\r\n\r\n", reply=DONE):
    """An answer that says `leave`, takes five bytes, and says `reply`."""

    def run(connection, reader):
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):  # nothing comes unasked
            reader.read(1)
        connection.settimeout(20)
        connection.sendall(leave)
        with connection.makefile("rb") as body:
            got.append(body.read(5))
        connection.sendall(reply)

    return run


def send(server, *pieces):
    with client_module.JobServer(server.url).receive("7") as transfer:
        for piece in pieces or (b"im", memoryview(b"age")):
            transfer.write(piece)
        transfer.finish()


@pytest.mark.parametrize(
    "leave",
    [
        b"HTTP/1.1 100 continue\r\n\r\n",  # OBS's
        b"HTTP/1.1 100 Continue\r\nServer: x\r\n\r\n",
        b"HTTP/1.0 100 \r\n\r\n",
    ],
)
def test_image_is_sent_when_it_is_asked_for(make_server, leave):
    got = []
    server = make_server(ok(XML), take(got, leave=leave))

    send(server)

    assert got == [b"image"]
    request = server.requests[1]
    assert request.line == "PUT /cloudupload/7"
    assert (request.headers["Content-Length"], request.headers["Expect"]) == ("5", "100-continue")
    assert request.headers["Content-Type"] == "application/octet-stream"


def test_image_is_sent_to_a_server_that_does_not_know_how_to_ask(make_server, monkeypatch):
    monkeypatch.setattr("clouduploader.client.transfer.CONTINUE_SECONDS", 0.2)
    got = []
    server = make_server(ok(XML), take(got, leave=b""))
    send(server)
    assert got == [b"image"]


def test_image_that_is_not_wanted_is_not_sent_and_its_job_is_killed(make_server):
    left = []

    def refuse(connection, reader):
        connection.sendall(refusal("507 x", "the disk is full"))
        left.append(reader.read())

    server = make_server(ok(XML), refuse, DONE)

    with pytest.raises(TransientError, match=r"refused: the disk is full \(HTTP 507\)"):
        send(server)

    server.close()
    assert left == [b""]
    assert server.requests[2].line == "POST /cloudupload/7?cmd=kill"


def test_yes_before_the_image_is_nonsense(make_server):
    server = make_server(ok(XML), DONE, DONE)
    with pytest.raises(PlatformReplyError, match="a yes to an image that it has not got"):
        send(server)


def test_refusal_of_an_image_that_is_there_is_the_servers(make_server):
    server = make_server(ok(XML), take([], reply=refusal("400 x", "size mismatch: 4 != 5")))
    with pytest.raises(PlatformReplyError, match="size mismatch: 4 != 5"):
        send(server)


def test_refusal_on_the_way_is_the_servers(make_server):
    def refuse(connection, reader):
        connection.sendall(b"HTTP/1.1 100 continue\r\n\r\n")
        reader.read(1)
        connection.sendall(refusal("400 x", "no more"))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20) and not server.requests[2:]:  # a close would make TCP throw the refusal away
            if reader.peek(1) == b"":
                break

    xml = XML.replace(b">5<", b">%d<" % (64 << 20))
    server = make_server(ok(xml), refuse)
    with pytest.raises(PlatformReplyError, match="no more"):
        send(server, *[bytes(1 << 20)] * 64)


def test_broken_transfer_says_what_becomes_of_the_job(make_server):
    def hang_up(connection, reader):
        connection.sendall(b"HTTP/1.1 100 continue\r\n\r\n")
        reader.read(1)

    server = make_server(ok(XML.replace(b">5<", b">%d<" % (64 << 20))), hang_up)
    with pytest.raises(NetworkError, match="broke while the image of job 7 was sent") as caught:
        send(server, *[bytes(1 << 20)] * 64)
    assert "unexpected EOF" in caught.value.hint


def now(state, **fields):
    return ok(job_xml.serialize(dataclasses.replace(JOB, state=state, **fields)))


@pytest.mark.parametrize("later", [now(JobState.RECEIVING), b""])
def test_transfer_that_is_not_confirmed_says_where_to_look(make_server, later):
    server = make_server(ok(XML), take([], reply=b""), later)
    with pytest.raises(NetworkError, match="job 7 has got all of its image, but ") as caught:
        send(server)
    assert f"inspect --server {server.url} 7" in caught.value.hint


@pytest.mark.parametrize("state", [JobState.SCHEDULED, JobState.UPLOADING, JobState.SUCCEEDED])
def test_transfer_that_is_not_confirmed_is_no_failure_if_the_image_has_arrived(make_server, state):
    server = make_server(ok(XML), take([], reply=b""), now(state))
    send(server)
    assert server.requests[2].line == "GET /cloudupload/7"


def test_transfer_that_is_not_confirmed_and_failed_is_worth_another_try(make_server):
    server = make_server(ok(XML), take([], reply=b""), now(JobState.FAILED, details="unexpected\nEOF"))
    with pytest.raises(NetworkError, match="job 7 has failed: unexpected EOF") as caught:
        send(server)
    assert caught.value.hint == "Submit the image again."


@pytest.mark.parametrize("pieces", [(b"ima",), (b"image", b"s")])
def test_image_of_another_size_than_the_servers_is_not_taken_for_the_jobs(make_server, pieces):
    def run(connection, reader):
        connection.sendall(b"HTTP/1.1 100 continue\r\n\r\n")
        reader.read()

    server = make_server(ok(XML), run)
    with pytest.raises(PlatformReplyError, match="a job for an image of 5 bytes, which is not ours"):
        send(server, *pieces)


def test_transfer_that_is_left_is_a_hang_up(make_server):
    got = []

    def run(connection, reader):
        connection.sendall(b"HTTP/1.1 100 continue\r\n\r\n")
        got.append(reader.read())

    server = make_server(ok(XML), run)
    with contextlib.suppress(KeyError), client_module.JobServer(server.url).receive("7") as transfer:
        transfer.write(b"im")
        raise KeyError
    server.close()
    assert got == [b"im"]


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


@pytest.fixture
def drip():
    """A factory of an answer that comes byte by byte, and does not end before the test does."""
    is_over = threading.Event()

    def make(reply, *, quickly=0):
        def say(connection, _reader):
            connection.sendall(reply[:quickly])
            for byte in reply[quickly:]:
                if is_over.wait(0.1):
                    return
                connection.sendall(bytes([byte]))

        return say

    yield make
    is_over.set()


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
    with pytest.raises(NetworkError, match="was at its answer for more than"):
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


def test_answer_to_an_image_ends_however_slowly_it_comes(make_server, monkeypatch, drip):
    monkeypatch.setattr("clouduploader.client.transfer.FINISH_SECONDS", 0.2)
    monkeypatch.setattr("clouduploader.client.transfer.HEAD_SECONDS", 0.2)

    def take(connection, reader):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        reader.read(5)
        drip(ok(b""))(connection, reader)

    server = make_server(ok(XML), take, ok(XML))
    with client_module.JobServer(server.url).receive("7") as transfer:
        transfer.write(b"image")
        with pytest.raises(NetworkError, match=r"has got all of its image, but .* was at its answer for more than"):
            transfer.finish()
