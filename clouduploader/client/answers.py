"""The answers of a server as they come over the wire: what http.client reads of them, and what it must not."""

import http.client
import io
import re
import socket

MAX_LINE_BYTES = 1 << 16  # as http.client has it for all other lines
MAX_HEAD_BYTES = 101 * MAX_LINE_BYTES  # a hundred headers, as http.client has it, and the status line
MAX_INTERIM_ANSWERS = 8  # a server sends one, before an image; a hundred are a joke

_INTERIM = range(100, 200)


class _EndlessAnswerError(http.client.HTTPException):
    """A server says more than anybody can want to hear."""


class _Pushed(io.RawIOBase):
    """A socket's stream, with a line in front that was read from it already.

    It stands for the socket where http.client wants one, which asks it for its `makefile` only.

    Args:
        line: The line.
        stream: What follows.
        max_bytes: How much is read of that; None for all. A body may come in chunks and with trailers, and http.client
            reads such as are endless for ever.

    Attributes:
        is_at_end: Whether somebody wanted more than has come before the hang-up.
    """

    def __init__(self, line: bytes, stream: io.RawIOBase, max_bytes: int | None) -> None:
        self.is_at_end = False
        self._left_bytes = max_bytes
        self._line = line
        self._stream = stream

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override] # it is one, whatever typeshed says
        if not self._line:
            count = self._stream.readinto(buffer)
            self.is_at_end |= count == 0
            if self._left_bytes is not None:
                self._left_bytes -= count or 0
                if self._left_bytes < 0:
                    raise _EndlessAnswerError
            return count
        piece, self._line = self._line[: len(buffer)], self._line[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def read_head(sock: socket.socket, method: str, max_bytes: int | None) -> http.client.HTTPResponse:
    """Read the head of an answer, interim ones left out: http.client itself would read these for ever.

    Args:
        sock: From where.
        method: Of the request.
        max_bytes: Of the body; None for a log, which may grow as long as it likes.
    """
    stream = sock.makefile("rb", 0)
    line = status_line(stream)
    for _ in range(MAX_INTERIM_ANSWERS):
        if status_of(line) not in _INTERIM:
            return rest_of_head(stream, line, method, max_bytes)
        http.client.parse_headers(stream)
        line = status_line(stream)
    raise http.client.BadStatusLine(repr(line))


def rest_of_head(stream: io.RawIOBase, line: bytes, method: str, max_bytes: int | None) -> http.client.HTTPResponse:
    """Read the head of an answer whose first line was read already; for the arguments see `read_head`."""
    # twice the body, for a length stands before each chunk of it
    pushed = _Pushed(line, stream, None if max_bytes is None else MAX_HEAD_BYTES + 2 * max_bytes)
    response = http.client.HTTPResponse(pushed, method=method)  # type: ignore[arg-type] # see _Pushed
    response.begin()
    if pushed.is_at_end:  # http.client would take a head that was cut for one that has ended
        raise ConnectionResetError("in the middle of its answer")
    return response


def status_line(stream: io.RawIOBase) -> bytes:
    """Read the first line of an answer; see `status_of`."""
    line = stream.readline(MAX_LINE_BYTES)
    if not line:
        raise ConnectionResetError("no answer")
    if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        raise ConnectionResetError("in the middle of its answer")
    return line


def status_of(line: bytes) -> int:
    """The status in the first line of an answer."""
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", line)
    if not found:
        raise http.client.BadStatusLine(repr(line))
    return int(found[1])


def read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The body of an answer; if it is longer than is allowed, one byte more than that."""
    data = response.read(max_bytes + 1)
    if len(data) <= max_bytes:
        check_whole(response)
    return data


def check_whole(response: http.client.HTTPResponse) -> None:
    """Find out that a body was cut, which http.client does not tell who reads it in parts."""
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
