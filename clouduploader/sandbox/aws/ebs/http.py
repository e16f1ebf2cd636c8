"""HTTP/1.1 on one kept-alive connection, by hand: half a mebibyte a request wants no detours."""

import dataclasses
import http
import select
import socket
from collections.abc import Mapping

from clouduploader.sandbox.aws.disks import BLOCK_BYTES
from clouduploader.util.frozen import frozen

MAX_HEAD_BYTES = 65536
MAX_BODY_BYTES = 2 * BLOCK_BYTES  # more than a block, so that one that is too long can be told so
EVENT_HUNG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class ProtocolError(Exception):
    """What came is no HTTP that we could go on after."""


@frozen()
class RequestHead:
    """A request without its body.

    Attributes:
        method: See target.
        target: Path and query, as they came.
        headers: By lower-case name.
        length: Of the body in bytes.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    length: int

    @property
    def path(self) -> str:
        """As it came."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """As it came."""
        return self.target.partition("?")[2]


@frozen()
class HttpResponse:
    """What is sent back.

    Attributes:
        status: Of HTTP.
        headers: Besides those of every answer.
        body: See status.
    """

    status: int
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b"{}"


class HttpConnection:
    """One connection, for one thread.

    Args:
        sock: With TLS on it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._early = b""
        self._buffer = bytearray()

    def read_head(self) -> RequestHead | None:
        """Wait for the next request; None when the client is done.

        Raises:
            ProtocolError, OSError: It went wrong.
        """
        received = self._early
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > MAX_HEAD_BYTES:
                raise ProtocolError("the head is too long")
            more = self._sock.recv(MAX_HEAD_BYTES)
            if not more:
                return None
            received += more
        self._early = received[end + 4 :]
        return _parse_head(received[:end].decode("latin-1"))

    def read_body(self, head: RequestHead) -> memoryview:
        """Read what belongs to a head; valid until the next one is read.

        Raises:
            ProtocolError, OSError: It went wrong.
        """
        if head.headers.get("expect", "").lower() == "100-continue":
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._buffer) < head.length:
            self._buffer = bytearray(head.length)
        body = memoryview(self._buffer)[: head.length]
        position = min(head.length, len(self._early))
        body[:position] = self._early[:position]
        self._early = self._early[position:]
        while position < head.length:
            got = self._sock.recv_into(body[position:])
            if not got:
                raise ProtocolError("the body is cut off")
            position += got
        return body

    def send(self, answer: HttpResponse, *, share: float = 1) -> None:
        """Send an answer, or so much of it."""
        lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += ["Content-Type: application/json"] if "Content-Type" not in answer.headers else []
        lines += [f"Content-Length: {len(answer.body)}", "", ""]
        data = "\r\n".join(lines).encode("latin-1", "replace") + answer.body
        self._sock.sendall(data[: int(len(data) * share)])

    def wait_for_hang_up(self) -> None:
        """Do nothing until the other side has closed; what it sends stays unread."""
        poll = select.poll()
        poll.register(self._sock, EVENT_HUNG_UP)
        poll.poll()


def _parse_head(text: str) -> RequestHead:
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] != "HTTP/1.1":
        raise ProtocolError("no HTTP/1.1 request")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name in headers:
            raise ProtocolError("a header is malformed or twice there")
        headers[name] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise ProtocolError("the body has no length that we take")
    return RequestHead(words[0], words[1], headers, int(length))
