import contextlib
import dataclasses
import socket

import pytest
from fakes.scripted_server import ok, refusal
from samples.server_job import JOB, XML

from clouduploader import client as client_module
from clouduploader.errors import (
    NetworkError,
    PlatformReplyError,
    TransientError,
)
from clouduploader.model import job_xml
from clouduploader.model.job import JobState

DONE = ok(b'<status code="ok" />\n')


def test_image_goes_over_tls_too(make_server, authority, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    got = []
    server = make_server(ok(XML), take(got), context=authority.server_context())
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


def test_answer_to_an_image_ends_however_slowly_it_comes(make_server, monkeypatch, drip):
    for name in ("FINISH_SECONDS", "HEAD_SECONDS", "LAST_WORDS_SECONDS"):
        monkeypatch.setattr(f"clouduploader.client.transfer.{name}", 0.2)

    def take(connection, reader):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        reader.read(5)
        drip(ok(b""))(connection, reader)

    server = make_server(ok(XML), take, ok(XML))
    with client_module.JobServer(server.url).receive("7") as transfer:
        transfer.write(b"image")
        with pytest.raises(NetworkError, match=r"has got all of its image, but .* did not complete its answer within"):
            transfer.finish()
