import contextlib
import signal
import socket
import struct
import threading

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ImageError, StoppedError
from clouduploader.image import nbd
from clouduploader.util.cancel import Cancel

GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
EXPORT = struct.pack(">QH", 1 << 20, 3)
DISK = bytes(range(256)) * 4096


def reply(cookie, data=b"", *, error=0, magic=0x67446698):
    return struct.pack(">IIQ", magic, error, cookie) + data


class Server:
    """A server in a thread, which answers as the function it is given says."""

    def __init__(self, connection, answer):
        self.requests = []
        self._connection = connection
        self._answer = answer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _take(self, size):
        data = b""
        while len(data) < size:
            piece = self._connection.recv(size - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def _run(self):
        with self._connection, contextlib.suppress(OSError):
            self._connection.sendall(GREETING)
            assert self._take(20) == struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0)
            self._connection.sendall(EXPORT)
            while True:
                magic, flags, kind, cookie, offset, size = struct.unpack(">IHHQQI", self._take(28))
                assert (magic, flags, kind) == (0x25609513, 0, 0)
                self.requests.append((offset, size))
                self._connection.sendall(self._answer(cookie, offset, size))

    def join(self):
        self._thread.join()


def right(cookie, offset, size):
    return reply(cookie, DISK[offset : offset + size])


@pytest.fixture
def make_client():
    """A factory of a client whose server answers as this function says; returns both."""
    made = []

    def make(answer, *, cancel=None):
        ours, theirs = socket.socketpair()
        server = Server(theirs, answer)
        made.append((ours, server))
        return nbd.NbdClient(ours, "a.qcow2", cancel or Cancel()), server

    yield make
    for ours, server in made:
        ours.close()
        server.join()


def read(client, offset, size):
    data = bytearray(size)
    client.read_into(offset, memoryview(data))
    return bytes(data)


def test_size_and_bytes_are_read(make_client):
    client, _ = make_client(right)
    assert client.size_bytes == 1 << 20
    assert read(client, 1000, 300000) == DISK[1000:301000]
    assert read(client, 0, 1) == DISK[:1]
    assert read(client, 5, 0) == b""


def test_large_read_is_asked_for_in_parts(make_client, monkeypatch):
    monkeypatch.setattr(nbd, "MAX_READ_BYTES", 1000)
    client, server = make_client(right)
    assert read(client, 10, 2500) == DISK[10:2510]
    assert server.requests == [(10, 1000), (1010, 1000), (2010, 500)]


def test_many_threads_get_what_they_asked_for(make_client):
    client, _ = make_client(right)
    wrong = []

    def work(number):
        wrong.extend(n for n in range(number, 1000, 4) if read(client, n * 1000, 700) != DISK[n * 1000 :][:700])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_refused_read_is_an_error_and_the_next_one_works(make_client):
    client, _ = make_client(lambda cookie, offset, size: reply(cookie, error=5) if offset else right(cookie, 0, size))
    with pytest.raises(ImageError, match=r"a\.qcow2 can't be read at byte 512 of the disk: it is damaged"):
        read(client, 512, 512)
    assert read(client, 0, 512) == DISK[:512]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda cookie, _, size: reply(cookie + 1, bytes(size)), "not one of NBD"),
        (lambda cookie, _, size: reply(cookie, bytes(size), magic=0x668E33EF), "not one of NBD"),
    ],
)
def test_answer_that_does_not_fit_breaks_the_connection_for_good(make_client, answer, words):
    client, server = make_client(answer)
    for _ in range(2):
        with pytest.raises(ImageError, match=words):
            read(client, 0, 512)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "said",
    [b"", GREETING[:10], b"SSH-2.0-OpenSSH_9.6\r\n", GREETING[:-1] + b"\0", GREETING, GREETING + EXPORT[:9]],
)
def test_server_that_says_something_else_is_an_error(said):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ImageError, match="can't be read by qemu-nbd"):
            nbd.NbdClient(ours, "a.qcow2", Cancel())


def test_server_that_hangs_up_in_an_answer_is_an_error():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GREETING + EXPORT + reply(1, b"abc"))
        theirs.shutdown(socket.SHUT_WR)
        client = nbd.NbdClient(ours, "a.qcow2", Cancel())
        for _ in range(2):
            with pytest.raises(ImageError, match="hung up"):
                read(client, 0, 512)


def test_server_that_is_gone_is_an_error():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GREETING + EXPORT)
        client = nbd.NbdClient(ours, "a.qcow2", Cancel())
        theirs.close()
        with pytest.raises(ImageError, match="can't be read by qemu-nbd"):
            read(client, 0, 512)


def test_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(nbd, "TIMEOUT_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ImageError, match="no answer within 0 seconds"):
        nbd.NbdClient(ours, "a.qcow2", Cancel())


def test_stop_ends_the_waiting_and_the_connection():
    cancel = Cancel()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(GREETING + EXPORT)
        client = nbd.NbdClient(ours, "a.qcow2", cancel)
        threading.Timer(0.1, cancel.request, [signal.SIGTERM]).start()
        with pytest.raises(StoppedError):
            read(client, 0, 512)
        with pytest.raises(ImageError, match="left unread"):
            read(client, 0, 512)


@hypothesis.given(
    st.binary(max_size=100), st.sampled_from([b"", GREETING, GREETING + EXPORT, GREETING + EXPORT + reply(1)])
)
def test_any_bytes_are_an_answer_or_an_error(said, before):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(before + said)
        theirs.shutdown(socket.SHUT_WR)
        try:
            client = nbd.NbdClient(ours, "a.qcow2", Cancel())
            assert len(read(client, 0, 50)) == 50
        except ImageError:
            return
        assert (before + said)[len(GREETING + EXPORT) :].startswith(reply(1))
