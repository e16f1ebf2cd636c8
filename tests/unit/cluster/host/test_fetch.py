"""Images that a host fetches: over connections that break, from elsewhere, and what is no image of the job."""

import contextlib
import errno
import hashlib
import os
import random
import resource
import signal
import socket
import threading
import time
import types

import pytest
from fakes.authority import Authority
from fakes.scripted_server import ScriptedServer, refusal

from clouduploader.client.cluster import Claim, ClusterServer, LeaseLostError
from clouduploader.cluster.host import fetch
from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    NetworkError,
    PlatformReplyError,
    StoppedError,
    TransientError,
)
from clouduploader.util.arrival import Arrival, ArrivalWriter
from clouduploader.util.cancel import Cancel
from clouduploader.util.certificates import ClientTls

IMAGE = random.Random(7).randbytes(3_000_001)  # noqa: S311 no secret
SHA256 = hashlib.sha256(IMAGE).hexdigest()
SIZE = len(IMAGE)
CLAIM = Claim("7", 2, "c" * 32)
TOKEN = "the-token"
PATH = f"GET /api/v1/cluster/jobs/7/image?attempt=2&claim={'c' * 32}"


def whole(image=IMAGE, etag=SHA256, *, sent=None):
    """An answer with all of an image, or one that breaks off after so many bytes."""
    head = f'HTTP/1.1 200 OK\r\nETag: "{etag}"\r\nContent-Length: {len(image)}\r\n\r\n'
    return head.encode() + image[:sent]


def rest(start, image=IMAGE, etag=SHA256, *, sent=None):
    """An answer with an image from a byte on, or one that breaks off after so many of these bytes."""
    span = f"bytes {start}-{len(image) - 1}/{len(image)}"
    head = f'HTTP/1.1 206 P\r\nETag: "{etag}"\r\nContent-Range: {span}\r\nContent-Length: {len(image) - start}\r\n\r\n'
    return head.encode() + image[start:][:sent]


def redirect(url, status=307):
    return f"HTTP/1.1 {status} R\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.fixture
def serve(monkeypatch):
    """Start servers, each with answers of its own."""
    monkeypatch.setattr(fetch, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(fetch, "LAST_PAUSE_SECONDS", 0.001)
    with contextlib.ExitStack() as stack:

        def start(*answers, context=None):
            server = ScriptedServer(answers, context)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def fetched(tmp_path):
    """Fetch the image from a server; return the bytes that came."""

    def call(server, *, size=SIZE, cancel=None, tls=None):
        path = tmp_path / "7.file"
        asked = ClusterServer(server.url, TOKEN, tls=tls)
        with ArrivalWriter() as arrival:
            fetch.fetch(asked, CLAIM, path, size=size, sha256=SHA256, cancel=cancel or Cancel(), arrival=arrival)
        return path.read_bytes()

    return call


def ranges(server):
    return [(request.headers.get("Range"), request.headers.get("If-Range")) for request in server.requests]


def test_image_comes_whole(serve, fetched):
    server = serve(whole())
    assert fetched(server) == IMAGE
    assert [request.line for request in server.requests] == [PATH]
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert ranges(server) == [(None, None)]


def test_connection_that_breaks_is_gone_on_with(serve, fetched):
    server = serve(whole(sent=1_000_000), b"", refusal("503 x", "busy"), rest(1_000_000, sent=5), rest(1_000_005))
    assert fetched(server) == IMAGE
    assert ranges(server) == [
        (None, None),
        *[("bytes=1000000-", f'"{SHA256}"')] * 3,
        ("bytes=1000005-", f'"{SHA256}"'),
    ]


def test_server_without_ranges_sends_all_again(serve, fetched):
    server = serve(whole(sent=1_000_000), whole())
    assert fetched(server) == IMAGE


def test_silent_connection_is_given_up(serve, fetched, monkeypatch):
    monkeypatch.setattr("clouduploader.client.image.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("clouduploader.client.image.TICK_SECONDS", 0.01)

    def stall(connection, _reader):
        connection.sendall(whole(sent=100))
        connection.recv(1)  # until the client hangs up

    assert fetched(serve(stall, rest(100))) == IMAGE


def test_fetch_without_any_new_byte_ends(serve, fetched, monkeypatch):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.0)
    with pytest.raises(NetworkError, match="hung up"):
        fetched(serve(whole(sent=100), rest(100, sent=0), rest(100)))


@pytest.mark.parametrize("status", ["409 x", "404 x"])
def test_lease_that_is_lost_ends_the_fetch(serve, fetched, status):
    with pytest.raises(LeaseLostError):
        fetched(serve(whole(sent=100), refusal(status, "attempt 2 is not the newest")))


def test_cancelled_fetch_ends_while_nothing_comes(serve, fetched):
    cancel = Cancel()

    def stall(connection, _reader):
        connection.sendall(whole(sent=100))
        cancel.request(signal.SIGTERM)
        connection.recv(1)

    with pytest.raises(StoppedError):
        fetched(serve(stall), cancel=cancel)


@pytest.mark.parametrize("begin", ["", "HTTP/1.1 200 OK\r\nA: ", "HTTP/1.1 503 x\r\nContent-Length: 60000\r\n\r\n"])
def test_cancelled_fetch_ends_while_a_server_dribbles(serve, fetched, monkeypatch, begin):
    monkeypatch.setattr("clouduploader.util.deadline.STOPPING_SECONDS", 0.05)
    cancel = Cancel()

    def dribble(connection, _reader):
        connection.sendall(begin.encode())
        cancel.request(signal.SIGTERM)
        while begin:  # until the client hangs up
            connection.sendall(b"b")
            time.sleep(0.01)
        connection.recv(1)

    with pytest.raises(StoppedError):
        fetched(serve(dribble), cancel=cancel)


def test_cancelled_fetch_does_not_wait_for_a_handshake(fetched, monkeypatch):
    monkeypatch.setattr("clouduploader.util.deadline.STOPPING_SECONDS", 0.05)
    cancel = Cancel()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        cancel.request(signal.SIGTERM)
        with pytest.raises(StoppedError):
            fetched(types.SimpleNamespace(url=url), cancel=cancel)


def test_cancelled_fetch_ends_during_a_pause(serve, fetched, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE_SECONDS", 60.0)
    cancel = Cancel()

    def end(_connection, _reader):
        cancel.request(signal.SIGTERM)

    with pytest.raises(StoppedError):
        fetched(serve(end), cancel=cancel)


@pytest.mark.parametrize(
    "answers",
    [
        [whole(etag="another")],
        [whole(IMAGE[1:])],
        [whole(sent=9), rest(9, etag="another")],
        [whole(sent=9), rest(9, IMAGE + b"x")],
        [whole(sent=9), rest(8)],
    ],
    ids=["etag", "size", "etag-of-the-rest", "size-of-the-rest", "other-bytes"],
)
def test_another_image_is_refused(serve, fetched, answers):
    with pytest.raises(PlatformReplyError, match="the server has another image"):
        fetched(serve(*answers))


def test_wrong_bytes_are_refused(serve, fetched):
    with pytest.raises(PlatformReplyError, match="the server has another image"):
        fetched(serve(whole(bytes(len(IMAGE)))))


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 206 P\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 206 P\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 206 P\r\nContent-Range: bytes 0-8/9\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_answer_that_is_no_image_is_refused(serve, fetched, head):
    with pytest.raises(PlatformReplyError, match="answers with"):
        fetched(serve(head.encode()))


# --- elsewhere


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_followed_without_token_and_claim(serve, fetched, status):
    store = serve(whole(etag="other"))
    assert fetched(serve(redirect(f"{store.url}/bucket/7?X-Amz-Signature=s", status))) == IMAGE
    assert store.requests[0].line == "GET /bucket/7?X-Amz-Signature=s"
    assert not {"Authorization", "Cookie", "Referer"} & set(store.requests[0].headers)


def test_redirect_at_the_same_server_keeps_the_token(serve, fetched):
    server = serve(redirect("/elsewhere?x=1"), whole())
    assert fetched(server) == IMAGE
    assert server.requests[1].line == "GET /elsewhere?x=1"
    assert server.requests[1].headers["Authorization"] == f"Bearer {TOKEN}"


def test_break_elsewhere_is_gone_on_with_by_a_new_redirect(serve, fetched):
    store = serve(whole(etag="other", sent=1000), rest(1000, etag="other"))
    server = serve(redirect(f"{store.url}/1"), redirect(f"{store.url}/2"))
    assert fetched(server) == IMAGE
    assert [request.line for request in store.requests] == ["GET /1", "GET /2"]
    assert ranges(store) == [(None, None), ("bytes=1000-", None)]


def test_tls_elsewhere_is_checked_by_the_same_authority(serve, fetched, tmp_path):
    authority = Authority(tmp_path / "pki")
    store = serve(whole(), context=authority.server_context())
    server = serve(redirect(f"{store.url}/1"), context=authority.server_context(name="server"))
    assert fetched(server, tls=ClientTls(ca=authority.path)) == IMAGE


BAD_PLACES = ["", "ftp://127.0.0.1/x", "http://192.0.2.1/x", "http://u:p@127.0.0.1/x", "http://127.0.0.1:99999/x", "/ä"]


@pytest.mark.parametrize("place", BAD_PLACES)
def test_bad_redirect_leads_back_to_the_server(serve, fetched, place):
    server = serve(redirect(place), whole())
    assert fetched(server) == IMAGE
    assert server.requests[1].line == f"{PATH}&direct=true"


def test_store_that_fails_is_made_good_by_the_server(serve, fetched):
    """From the byte on that came from the store."""
    store = serve(whole(etag="other", sent=1000), refusal("403 x", "expired"))
    server = serve(redirect(f"{store.url}/1"), redirect(f"{store.url}/1"), rest(1000))
    assert fetched(server) == IMAGE
    assert [request.line for request in server.requests] == [PATH, PATH, f"{PATH}&direct=true"]


@pytest.mark.parametrize("answer", [whole(bytes(len(IMAGE))), whole(IMAGE[1:])], ids=["digest", "size"])
def test_another_image_elsewhere_is_fetched_from_the_server(serve, fetched, answer):
    store = serve(answer)
    server = serve(redirect(f"{store.url}/1"), whole())
    assert fetched(server) == IMAGE
    assert ranges(server) == [(None, None), (None, None)]


def test_wrong_bytes_of_a_broken_store_are_fetched_anew(serve, fetched):
    """The server has sent the rest; which bytes are wrong is not known."""
    store = serve(whole(bytes(len(IMAGE)), sent=1000), b"")
    server = serve(redirect(store.url), redirect(store.url), rest(1000), whole())
    assert fetched(server) == IMAGE


def test_connection_that_breaks_after_wrong_bytes_is_gone_on_with(serve, fetched, monkeypatch):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.0)
    store = serve(whole(bytes(len(IMAGE))))
    server = serve(redirect(store.url), whole(sent=1000), rest(1000))
    assert fetched(server) == IMAGE


def test_other_version_elsewhere_is_not_mixed_in(serve, fetched):
    store = serve(whole(etag="first", sent=1000), rest(1000, etag="second"))
    server = serve(redirect(store.url), redirect(store.url), rest(1000))
    assert fetched(server) == IMAGE


def test_endless_redirects_lead_back_to_the_server(serve, fetched):
    server = serve(*[redirect("/again")] * 6, whole())
    assert fetched(server) == IMAGE
    assert server.requests[-1].line == f"{PATH}&direct=true"


def test_unreachable_store_leads_back_to_the_server(serve, fetched):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    assert fetched(serve(redirect(place), whole())) == IMAGE


# --- the disk


def test_image_without_room_is_refused_before_it_comes(serve, fetched):
    server = serve()
    with pytest.raises(CannotCreateError, match="there is no room for an image of 1152921504606846976 bytes"):
        fetched(server, size=1 << 60)
    assert server.requests == []


def test_disk_that_becomes_full_is_told(serve, fetched):
    """By the limit of a file's size, which is told in the same way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(CannotCreateError, match=os.strerror(errno.EFBIG)):
            fetched(serve(whole()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# --- read while it comes


class Reader:
    """What a reader could read when each request came.

    Args:
        arrival: The writer's side.
    """

    def __init__(self, arrival):
        cancel = Cancel()
        cancel.request(signal.SIGTERM)  # no wait
        self._arrival = Arrival(os.dup(arrival.descriptor), cancel)

    def has(self, start, end):
        try:
            self._arrival.wait(start, end)
        except StoppedError:
            return False
        return True

    def has_all(self):
        try:
            return bool(self._arrival.wait_for_all())
        except StoppedError:
            return False


@pytest.fixture
def read(tmp_path):
    """Fetch the image; return a reader, and what went wrong."""

    def call(server):
        path = tmp_path / "7.file"
        with ArrivalWriter() as arrival:
            reader, error = Reader(arrival), None
            asked = ClusterServer(server.url, TOKEN)
            try:
                fetch.fetch(asked, CLAIM, path, size=SIZE, sha256=SHA256, cancel=Cancel(), arrival=arrival)
            except ClouduploaderError as exc:
                error = exc
            return reader, error

    return call


def test_image_that_came_can_be_read_and_is_right(serve, read, tmp_path):
    reader, error = read(serve(whole()))
    assert error is None
    assert reader.has_all()
    assert (tmp_path / "7.file").read_bytes() == IMAGE


def test_what_came_of_a_wrong_image_can_be_read_and_is_never_whole(serve, read):
    reader, error = read(serve(whole(IMAGE[:-1] + b"x")))
    assert isinstance(error, PlatformReplyError)
    assert reader.has(0, SIZE)
    with pytest.raises(TransientError):
        Arrival(reader._arrival._descriptor, Cancel()).wait_for_all()


def test_what_an_object_store_sends_is_read_only_when_it_was_compared(serve, read):
    store = serve(whole(bytes(SIZE)))
    reader, error = read(serve(redirect(store.url), whole(bytes(SIZE))))
    assert isinstance(error, PlatformReplyError)
    assert reader.has(0, SIZE)  # of the server
    store = serve(whole(bytes(SIZE), sent=SIZE - 1), *[b""] * 3)
    server = serve(redirect(store.url), whole(IMAGE, etag="other"))
    reader, error = read(server)
    assert error
    assert not reader.has(0, 1)


def test_end_of_a_large_image_comes_first(serve, read, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "MIN_BYTES", SIZE)
    monkeypatch.setattr(fetch, "END_BYTES", 1000)
    server = serve(rest(SIZE - 1000), whole(sent=50_000), refusal("409 X", "no"))
    reader, error = read(server)
    assert isinstance(error, LeaseLostError)
    assert ranges(server)[0] == (f"bytes={SIZE - 1000}-", f'"{SHA256}"')
    assert reader.has(SIZE - 1000, SIZE)
    assert reader.has(0, 50_000)
    assert not reader.has(0, SIZE)
    assert (tmp_path / "7.file").read_bytes()[-1000:] == IMAGE[-1000:]


def test_end_that_was_told_of_is_not_what_a_store_sends(serve, read, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "MIN_BYTES", SIZE)
    monkeypatch.setattr(fetch, "END_BYTES", 1000)
    store = serve(whole(IMAGE[:-1000] + bytes(1000)))
    reader, error = read(serve(rest(SIZE - 1000), redirect(store.url)))
    assert error is None
    assert reader.has_all()
    assert (tmp_path / "7.file").read_bytes() == IMAGE


@pytest.mark.parametrize("answer", [whole(), whole(etag="other"), rest(SIZE - 1000, etag="other"), b""])
def test_image_comes_also_where_its_end_does_not(serve, read, monkeypatch, tmp_path, answer):
    monkeypatch.setattr(fetch, "MIN_BYTES", SIZE)
    monkeypatch.setattr(fetch, "END_BYTES", 1000)
    reader, error = read(serve(answer, whole()))
    assert error is None
    assert reader.has_all()
    assert (tmp_path / "7.file").read_bytes() == IMAGE


def background(server, path, arrival, errors):
    asked = ClusterServer(server.url, TOKEN)
    return fetch.BackgroundFetch(asked, CLAIM, path, size=SIZE, sha256=SHA256, arrival=arrival, on_error=errors.append)


def test_fetch_beside_an_upload_begins_with_the_first_bytes(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE_SECONDS", 60.0)
    errors = []
    with ArrivalWriter() as arrival:
        with background(serve(whole(sent=1000)), tmp_path / "7.file", arrival, errors) as fetching:
            fetching.wait_begun(Cancel())
            assert Reader(arrival).has(0, 1000)
        with pytest.raises(TransientError):
            Arrival(arrival.descriptor, Cancel()).wait_for_all()
    assert errors == []


def test_fetch_that_fails_before_it_begins_says_why(serve, tmp_path):
    errors = []
    server = serve(refusal("409 X", "no"))
    with (
        ArrivalWriter() as arrival,
        background(server, tmp_path / "7.file", arrival, errors) as fetching,
        pytest.raises(LeaseLostError),
    ):
        fetching.wait_begun(Cancel())
    assert len(errors) == 1


def test_wait_for_the_beginning_can_be_cancelled(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE_SECONDS", 60.0)
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    with (
        ArrivalWriter() as arrival,
        background(serve(b""), tmp_path / "7.file", arrival, []) as fetching,
        pytest.raises(StoppedError),
    ):
        fetching.wait_begun(cancel)


def test_upload_does_not_wait_for_a_fetch_that_has_ended(serve, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    with (
        ArrivalWriter() as arrival,
        background(serve(whole()), tmp_path / "7\0file", arrival, []) as fetching,  # a ValueError, as a bug gives one
        pytest.raises(TransientError, match="has ended"),
    ):
        fetching.wait_begun(Cancel())
    assert ended
