"""PutSnapshotBlock on the wire: its request, and the answer, which is hostile until it is understood.

Source: EBS direct API reference, PutSnapshotBlock; RFC 9112 for HTTP/1.1. Tests compare the request with the one
that boto3 makes.
"""

import json
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping

from clouduploader.platforms.ec2 import aws_errors, endpoint, sigv4
from clouduploader.util.frozen import frozen

BLOCK_BYTES = 524288  # BlockSize, EBS direct API, StartSnapshot: the only one there is
MAX_HEAD_BYTES = 16384  # AWS's are about 400; the usual limit of HTTP servers and proxies
MAX_BODY_BYTES = 65536  # AWS's are a JSON object of a line
_HEAD = re.compile(  # possessive, so that no head takes long
    r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*+)?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\0\r\n]*+\r\n)*+)"
)
_LENGTH = re.compile(r"[0-9]{1,9}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,7})[ \t]*(?:;[^\r\n]*)?\r\n")


class MalformedResponseError(Exception):
    """The answer is none that a server of this API gives; says what is wrong with it."""


@frozen(kw_only=True)
class BlockResponse:
    """A whole answer.

    Attributes:
        status: Of HTTP, 200 or more.
        headers: By lower-case names; of several of one name the last.
        body: As it came.
        is_reusable: Whether the connection is good for another request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_reusable: bool

    def confirms(self, checksum: str) -> bool:
        """Whether AWS has the block, and it is the one of this checksum (SHA-256, base64)."""
        return self.status == 201 and self.headers.get("x-amz-checksum") == checksum

    def refusal(self) -> aws_errors.AwsError:
        """What AWS said instead of a confirmation; its code is "HTTP 404" where it is not AWS who speaks."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        fields = found if isinstance(found, dict) else {}
        words = {
            name.lower(): value for name, value in fields.items() if isinstance(name, str) and isinstance(value, str)
        }
        # "AccessDeniedException:http://internal...", or "com.amazonaws...#AccessDeniedException" (AWS restJson1)
        kind = self.headers.get("x-amzn-errortype") or words.get("__type") or words.get("code") or ""
        code = kind.partition(":")[0].rpartition("#")[2]
        return aws_errors.AwsError(
            service="ebs",
            operation="PutSnapshotBlock",
            code=code if re.fullmatch(r"[A-Za-z0-9.]{1,100}", code) else f"HTTP {self.status}",
            message=words.get("message", "")[:1000],
            reason=words.get("reason", "")[:100],
            status=self.status,
            date=self.headers.get("date", ""),
        )


class BlockResponseParser:
    """Takes the bytes of one answer in pieces of any size. Keeps no more than MAX_HEAD_BYTES + 2 * MAX_BODY_BYTES."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._status = 0  # until the head is there
        self._headers: dict[str, str] = {}
        self._is_persistent = False
        self._length: int | None = 0  # of the body; None if its end is the connection's
        self._chunks: bytearray | None = None
        self._head_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether there was a byte of it."""
        return bool(self._data or self._status)

    def feed(self, piece: bytes | memoryview) -> BlockResponse | None:
        """Take some bytes; the answer once it is whole.

        Raises:
            NonsenseError: It is no answer of this API, or too large.
        """
        self._data += piece
        while not self._status:
            if not self._take_head():
                return None
        if self._chunks is not None:
            return self._take_chunks(self._chunks)
        if self._length is not None and len(self._data) >= self._length:
            return self._answer(bytes(self._data[: self._length]), len(self._data) == self._length)
        if len(self._data) > MAX_BODY_BYTES:
            raise MalformedResponseError("its body is too long")
        return None

    def end(self) -> BlockResponse:
        """The connection was closed; the answer, if that is how it ends.

        Raises:
            NonsenseError: It was cut off.
        """
        if self._status and self._length is None:
            return self._answer(bytes(self._data), False)
        raise MalformedResponseError("it was cut off" if self.has_begun else "the connection was closed without one")

    def _take_head(self) -> bool:
        """Read the next head; those of interim answers (1xx) are dropped."""
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
        version, status, lines = match.groups()
        if int(status) >= 200:
            pairs = [line.split(":", 1) for line in lines.split("\r\n")[:-1]]
            self._headers = {name.lower(): value.strip(" \t") for name, value in pairs}
            self._is_persistent = version == "1" and "close" not in _tokens(self._headers, "connection")
            self._status = int(status)
            self._find_length({value.strip(" \t") for name, value in pairs if name.lower() == "content-length"})
        return True

    def _find_length(self, lengths: set[str]) -> None:
        """How long the body is: RFC 9112, 6.3."""
        codings = _tokens(self._headers, "transfer-encoding")
        if self._status in (204, 304):
            self._length = 0
        elif codings:
            if codings != ["chunked"] or lengths:
                raise MalformedResponseError("its transfer encoding is not known")
            self._chunks = bytearray()
        elif not lengths:
            self._length, self._is_persistent = None, False
        else:
            text = lengths.pop()
            if lengths or not _LENGTH.fullmatch(text) or int(text) > MAX_BODY_BYTES:
                raise MalformedResponseError("its length makes no sense")
            self._length = int(text)

    def _take_chunks(self, body: bytearray) -> BlockResponse | None:
        while True:
            line_end = self._data.find(b"\r\n") + 2
            if line_end == 1:
                if len(self._data) > 256:
                    raise MalformedResponseError("its chunks make no sense")
                return None
            match = _CHUNK_LINE.fullmatch(bytes(self._data[:line_end]))
            size = int(match[1], 16) if match else MAX_BODY_BYTES + 1
            if len(body) + size > MAX_BODY_BYTES:
                raise MalformedResponseError("its chunks make no sense, or are too long")
            end = line_end + size + 2
            if len(self._data) < end:
                return None
            if self._data[end - 2 : end] != b"\r\n":  # trailers too, which AWS does not send
                raise MalformedResponseError("its chunks make no sense")
            body += self._data[line_end : line_end + size]
            del self._data[:end]
            if size == 0:
                return self._answer(bytes(body), not self._data)

    def _answer(self, body: bytes, is_all: bool) -> BlockResponse:
        return BlockResponse(
            status=self._status, headers=self._headers, body=body, is_reusable=self._is_persistent and is_all
        )


def _tokens(headers: Mapping[str, str], name: str) -> list[str]:
    text = headers.get(name)
    return [word.strip().lower() for word in text.split(",") if word.strip()] if text else []


class BlockRequests:
    """Makes the heads of PutSnapshotBlock requests for one snapshot; for several threads.

    Args:
        place: Of the EBS direct API.
        region: Of the signature.
        snapshot_id: Which one.
        clock: Seconds since the epoch.

    Attributes:
        offset_seconds: Added to this machine's time; changed when AWS says that it is wrong.
    """

    def __init__(
        self, *, place: endpoint.AwsEndpoint, region: str, snapshot_id: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.offset_seconds = 0.0
        self._authority = place.authority
        self._path = f"{place.prefix}/snapshots/{urllib.parse.quote(snapshot_id, safe='')}/blocks/"
        self._region = region
        self._clock = clock

    def head(self, index: int, checksum: str, keys: sigv4.AccessKeys) -> bytes:
        """Make the head of a request; the block follows it.

        Args:
            index: Of the block.
            checksum: Its SHA-256, in base64.
            keys: Whose signature it is.
        """
        path = f"{self._path}{index}"
        headers = sigv4.sign(
            {
                "host": self._authority,
                "x-amz-checksum": checksum,
                "x-amz-checksum-algorithm": "SHA256",
                "x-amz-content-sha256": sigv4.UNSIGNED_PAYLOAD,
                "x-amz-data-length": str(BLOCK_BYTES),
            },
            keys=keys,
            service="ebs",
            region=self._region,
            method="PUT",
            path=path,
            payload=sigv4.UNSIGNED_PAYLOAD,
            stamp=sigv4.stamp(int(self._clock() + self.offset_seconds)),
        )
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return (
            f"PUT {path} HTTP/1.1\r\n{lines}content-length: {BLOCK_BYTES}\r\nuser-agent: clouduploader\r\n\r\n".encode()
        )
