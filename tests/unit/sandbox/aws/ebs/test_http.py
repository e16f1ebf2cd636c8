"""HTTP by hand."""

import socket

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.sandbox.aws.ebs.http import HttpConnection, HttpResponse, ProtocolError


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield HttpConnection(ours), theirs


def test_requests_are_read_one_after_the_other(pair):
    connection, client = pair
    client.sendall(b"PUT /a?b=c HTTP/1.1\r\nContent-Length: 5\r\nX: y \r\n\r\nhelloGET / HTTP/1.1\r\n\r\n")
    head = connection.read_head()
    assert (head.method, head.path, head.query, head.headers["x"]) == ("PUT", "/a", "b=c", "y")
    assert bytes(connection.read_body(head)) == b"hello"
    head = connection.read_head()
    assert (head.method, bytes(connection.read_body(head))) == ("GET", b"")
    client.close()
    assert connection.read_head() is None


def test_body_is_asked_for_if_the_client_waits(pair):
    connection, client = pair
    client.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx")
    assert bytes(connection.read_body(connection.read_head())) == b"x"
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_body_that_ends_early_is_an_error(pair):
    connection, client = pair
    client.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell")
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError):
        connection.read_body(connection.read_head())


def test_answer_has_its_length(pair):
    connection, client = pair
    connection.send(HttpResponse(201, {"X": "y"}))
    assert client.recv(1000) == (
        b"HTTP/1.1 201 Created\r\nX: y\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


@hypothesis.given(st.binary(max_size=200), st.booleans())
def test_no_bytes_do_more_than_end_the_connection(data, has_end):
    ours, client = socket.socketpair()
    with ours, client:
        connection = HttpConnection(ours)
        client.sendall(b"GET / HTTP/1.1\r\n" + data + (b"\r\n\r\n" if has_end else b""))
        client.shutdown(socket.SHUT_WR)
        try:
            while head := connection.read_head():
                assert len(connection.read_body(head)) == head.length
        except ProtocolError:
            pass
