"""Read an HTTP/1.1 response strictly: what comes from the network is hostile until it is understood. No I/O.

Source: RFC 9112. What it lets a client refuse is refused: lines that end without CR, folded header lines, transfer
encodings other than `chunked`, trailers.
"""

import re
from collections.abc import Mapping

from clouduploader.util.frozen import frozen

MAX_HEAD_BYTES = 16384  # of all heads of a response, interim ones included; the usual limit of servers and proxies
MAX_CHUNK_LINE_BYTES = 256  # a size has 16 digits at most; extensions are passed over
_HEAD = re.compile(  # possessive, so that no head takes long
    r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*+))?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\0\r\n]*+\r\n)*+)"
)
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class MalformedResponseError(Exception):
    """The bytes are no HTTP/1.1 response; says what is wrong with them."""


class TruncatedResponseError(MalformedResponseError):
    """The connection was closed before the end of the response."""


class OversizedResponseError(MalformedResponseError):
    """The body is longer than the caller takes."""


@frozen(kw_only=True)
class ResponseHead:
    """A response without its body.

    Attributes:
        status: 200 or more.
        reason: What the status line says behind it; "" if it says nothing.
        headers: By lower-case names; of several of one name the last.
    """

    status: int
    reason: str
    headers: Mapping[str, str]


class ResponseParser:
    """Take the bytes of one response in pieces of any size, and give back those of its body.

    Args:
        max_body_bytes: How long the body may be; None for any length.
        has_body: False for the response to a HEAD or a CONNECT, which ends with its head.

    Attributes:
        head: None until all of it has come.
        interim_statuses: Of the interim responses (1xx) before it, whose heads are dropped.
        is_complete: Whether the whole response has come.
    """

    def __init__(self, *, max_body_bytes: int | None, has_body: bool = True) -> None:
        self.head: ResponseHead | None = None
        self.interim_statuses: list[int] = []
        self.is_complete = False
        self._max_body_bytes = max_body_bytes
        self._has_body = has_body
        self._data = bytearray()  # not parsed yet
        self._head_bytes = 0
        self._body_bytes = 0
        self._is_persistent = False
        self._is_chunked = False
        self._left_bytes: int | None = 0  # of the body or of the chunk; None if the connection's end is the body's
        self._is_chunk_open = False  # whether the line end of a chunk is still to come
        self._is_last_chunk = False

    @property
    def has_begun(self) -> bool:
        """Whether a byte of the response has come."""
        return bool(self._data or self._head_bytes)

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is good for another request: the response is complete, and nothing came after it."""
        return self.is_complete and self._is_persistent and not self._data

    def feed(self, piece: bytes | memoryview) -> bytes:
        """Take some bytes.

        Returns:
            The bytes of the body in them, may be none.

        Raises:
            MalformedResponseError: They are not part of an HTTP/1.1 response.
            OversizedResponseError: The body is, or will be, too long.
        """
        self._data += piece
        while self.head is None:
            if not self._take_head():
                return b""
        if self.is_complete:
            return b""
        body = self._take_chunks() if self._is_chunked else self._take_plain()
        self._body_bytes += len(body)
        self._check_size(self._body_bytes)
        return body

    @property
    def plain_bytes(self) -> int:
        """How many bytes of a body that is not in chunks, and whose length is known, are to come."""
        return 0 if self.head is None or self._is_chunked else self._left_bytes or 0

    def skip(self, count: int) -> None:
        """Take note of so many of `plain_bytes` that came, and that the caller took past the parser."""
        self._body_bytes += count
        self._left_bytes = self.plain_bytes - count
        self.is_complete = not self._left_bytes

    def end(self) -> ResponseHead:
        """Take note that the connection was closed; return the head of the response that ended by that, or before.

        Raises:
            TruncatedResponseError: The response has not ended.
        """
        if self.head and not self._is_chunked and self._left_bytes is None:
            self.is_complete = True
        if not (self.head and self.is_complete):
            raise TruncatedResponseError(
                "it was cut off" if self.has_begun else "the connection was closed without one"
            )
        return self.head

    def _take_head(self) -> bool:
        """Take the next head, if all of it is there; drop an interim one."""
        end = self._data.find(b"\r\n\r\n")
        if self._head_bytes + (len(self._data) if end < 0 else end) > MAX_HEAD_BYTES:
            raise MalformedResponseError("its head is too long")
        if end < 0:
            if not b"HTTP/1.".startswith(self._data[:7]):
                raise MalformedResponseError("it is not HTTP/1.1")
            return False
        match = _HEAD.fullmatch(self._data[: end + 2].decode("latin-1"))
        del self._data[: end + 4]
        self._head_bytes += end + 4
        if not match:
            raise MalformedResponseError("its head is not that of HTTP/1.1")
        version, status, reason, lines = match.groups()
        if int(status) < 200:
            self.interim_statuses.append(int(status))
            return True
        pairs = [line.split(":", 1) for line in lines.split("\r\n")[:-1]]
        headers = {name.lower(): value.strip(" \t") for name, value in pairs}
        self.head = ResponseHead(status=int(status), reason=(reason or "").strip(), headers=headers)
        self._is_persistent = version == "1" and "close" not in _tokens(headers, "connection")
        lengths = {value.strip(" \t") for name, value in pairs if name.lower() == "content-length"}
        self._find_length(int(status), _tokens(headers, "transfer-encoding"), lengths)
        return True

    def _find_length(self, status: int, codings: list[str], lengths: set[str]) -> None:
        """Find out how the body ends; RFC 9112, 6.3."""
        if status in (204, 304) or not self._has_body:
            pass
        elif codings:
            if codings != ["chunked"] or lengths:
                raise MalformedResponseError("its transfer encoding is not known")
            self._is_chunked = True
        elif not lengths:
            self._left_bytes, self._is_persistent = None, False
        else:
            text = lengths.pop()
            if lengths or not _LENGTH.fullmatch(text):
                raise MalformedResponseError("its length makes no sense")
            self._left_bytes = int(text)
            self._check_size(self._left_bytes)
        self.is_complete = not self._is_chunked and self._left_bytes == 0

    def _check_size(self, size_bytes: int) -> None:
        if self._max_body_bytes is not None and size_bytes > self._max_body_bytes:
            raise OversizedResponseError(f"more than {self._max_body_bytes} bytes")

    def _take_plain(self) -> bytes:
        body = bytes(self._data[: self._left_bytes])
        del self._data[: len(body)]
        if self._left_bytes is not None:
            self._left_bytes -= len(body)
            self.is_complete = not self._left_bytes
        return body

    def _take_chunks(self) -> bytes:
        body = bytearray()
        while not self.is_complete:
            if self._left_bytes:
                body += self._take_plain()
                self.is_complete = False
                if self._left_bytes:
                    break
            if self._is_chunk_open:
                if len(self._data) < 2:
                    break
                if self._data[:2] != b"\r\n":  # trailers too
                    raise MalformedResponseError("its chunks make no sense")
                del self._data[:2]
                self._is_chunk_open = False
                self.is_complete = self._is_last_chunk
            elif not self._take_chunk_line(len(body)):
                break
        return bytes(body)

    def _take_chunk_line(self, taken_bytes: int) -> bool:
        """Take the line in front of a chunk, if all of it is there."""
        end = self._data.find(b"\r\n") + 2
        if (len(self._data) if end == 1 else end) > MAX_CHUNK_LINE_BYTES:
            raise MalformedResponseError("its chunks make no sense")
        if end == 1:
            return False
        match = _CHUNK_LINE.fullmatch(bytes(self._data[:end]))
        if not match:
            raise MalformedResponseError("its chunks make no sense")
        del self._data[:end]
        self._left_bytes = int(match[1], 16)
        self._is_chunk_open, self._is_last_chunk = True, self._left_bytes == 0
        self._check_size(self._body_bytes + taken_bytes + self._left_bytes)
        return True


def _tokens(headers: Mapping[str, str], name: str) -> list[str]:
    text = headers.get(name)
    return [word.strip().lower() for word in text.split(",") if word.strip()] if text else []
