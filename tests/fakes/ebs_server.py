"""A small PutSnapshotBlock on loopback that does what a test tells it, over real sockets, plain or TLS."""

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import socket
import threading

from clouduploader.model.disk import Block

BLOCK_BYTES = 524288


def checksum_of(block):
    """What x-amz-Checksum says of a block."""
    return base64.b64encode(hashlib.sha256(block).digest()).decode()


def make_block(number):
    """A block of its own content; 0 gives zeros."""
    return bytes([number % 256]) * BLOCK_BYTES


class Blocks:
    """A BlockSource of given blocks by index; counts what is read again."""

    def __init__(self, blocks, *, can_reread=True, error_at=None, error=None):
        self.can_reread = can_reread
        self.rereads = 0
        self._blocks = dict(sorted(blocks.items()))
        self._left = iter(self._blocks)
        self._given = 0
        self._lock = threading.Lock()
        self._error_at, self._error = error_at, error

    def next_into(self, buffer):
        with self._lock:
            index = next(self._left, None)
            self._given += index is not None
        if index is None:
            return None
        if index == self._error_at:
            raise self._error
        buffer[:] = self._blocks[index]
        return Block(index, not any(self._blocks[index][:1]))

    def reread_into(self, index, buffer):
        assert self.can_reread
        self.rereads += 1
        buffer[:] = self._blocks[index]

    def position(self):
        return self._given * BLOCK_BYTES


@dataclasses.dataclass
class Exchange:
    """One request, and how to answer it."""

    number: int  # of all requests to this server, from 1
    try_number: int  # of this block
    connection_number: int
    index: int
    path: str
    headers: dict
    sock: socket.socket
    reader: io.BufferedReader
    body: bytes | None = None

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, status, *, headers=(), body=b""):
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def confirm(self, **headers):
        self.answer(201, headers={"x-amz-Checksum": self.headers["x-amz-checksum"], **headers})

    def refuse(self, status, code, message="No.", reason=None, **headers):
        body = json.dumps({"message": message} | ({"Reason": reason} if reason else {})).encode()
        self.answer(status, headers={"x-amzn-ErrorType": code, **headers}, body=body)


class HangUp(Exception):
    """Raised by a plan to close the connection."""


class FakeEbs:
    """The server.

    Args:
        plan: Called with each Exchange once its body is there; answers it. None confirms.
        before_body: Called before the body is read, if given; returns whether that is all.
        context: For TLS.
        is_narrow: Whether the kernels take less than a block before it is read, as on a real line.
    """

    def __init__(self, plan=None, *, before_body=None, context=None, is_narrow=False):
        self._plan = plan or Exchange.confirm
        self._before_body = before_body
        self._context = context
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.exchanges = []
        self.connections = 0
        self.faults = []
        self._listener = socket.socket()
        if is_narrow:
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        scheme = "https" if context else "http"
        self.port = self._listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._socks = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def received(self):
        """The index of each request that came whole, in order."""
        return [one.index for one in self.exchanges if one.body is not None]

    @property
    def blocks(self):
        """The bytes of each block that came whole."""
        return {one.index: one.body for one in self.exchanges if one.body is not None}

    def close(self):
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        assert not self.faults, self.faults

    def wait(self):
        """Block until the test is over: for plans that never answer."""
        self._closing.wait()
        raise HangUp

    def _accept(self):
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            with self._lock:
                self._socks.add(sock)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain, connection_number):
        sock = plain
        try:
            if self._context:
                sock = self._context.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._socks.add(sock)
            with sock.makefile("rb") as reader:
                while self._exchange(sock, reader, connection_number):
                    pass
        except (OSError, HangUp):
            pass
        except Exception as exc:  # noqa: BLE001 the test shall see it
            self.faults.append(exc)
        finally:
            with self._lock:
                self._socks.discard(sock)
            sock.close()

    def _exchange(self, sock, reader, connection_number):
        first = reader.readline()
        if not first:
            return False
        method, path, _version = first.decode().split()
        headers = {}
        while (line := reader.readline().decode().rstrip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        assert method == "PUT"
        assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
        with self._lock:
            index = int(path.rpartition("/")[2])
            tries = sum(one.index == index for one in self.exchanges)
            exchange = Exchange(
                len(self.exchanges) + 1, tries + 1, connection_number, index, path, headers, sock, reader
            )
            self.exchanges.append(exchange)
        if self._before_body and self._before_body(exchange):
            return False
        body = reader.read(int(headers["content-length"]))
        if len(body) < BLOCK_BYTES:
            return False
        exchange.body = body
        assert headers["x-amz-checksum"] == checksum_of(body)
        self._plan(exchange)
        return True
