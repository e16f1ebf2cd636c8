import pytest
from fakes.scripted_server import chunked, ok
from samples.server_job import XML

from clouduploader import client as client_module
from clouduploader.client.connection import ConnectionOwner
from clouduploader.errors import (
    JobFileError,
    NetworkError,
    PlatformReplyError,
)

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


class Connection:
    is_closed = False

    def close(self):
        self.is_closed = True


def test_connection_that_comes_after_the_close_is_closed_and_not_kept():
    owner, first, late = ConnectionOwner(), Connection(), Connection()
    owner.take(first)
    assert not first.is_closed
    owner.close()
    with pytest.raises(ConnectionAbortedError):
        owner.take(late)
    assert (first.is_closed, late.is_closed) == (True, True)
    assert owner.connection is first
