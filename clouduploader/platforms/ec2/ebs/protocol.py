"""PutSnapshotBlock on the wire: the head of its request, and the response.

Source: EBS direct API reference, PutSnapshotBlock. Tests compare the request with the one that boto3 makes.
"""

import json
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping

from clouduploader.platforms.ec2 import aws_errors, endpoint, sigv4
from clouduploader.util import http1
from clouduploader.util.frozen import frozen

BLOCK_BYTES = 524288  # BlockSize, EBS direct API, StartSnapshot: the only one there is
MAX_BODY_BYTES = 65536  # AWS's are a JSON object of a line
_GAP = "\0"  # in a template; no header and no path has it
_CONFIRMATION = re.compile(
    rb"HTTP/1\.1 201(?: [^\r\n]*+)?\r\n"
    rb"(?:(?i:x-amz-checksum):[ \t]*+([^\0-\x20]++)\r\n"
    rb"|(?i:content-length):[ \t]*+(0)\r\n"
    rb"|(?!(?i:x-amz-checksum|content-length|transfer-encoding|connection):)"
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\0\r\n]*+\r\n"
    rb")*+\r\n"
)


@frozen(kw_only=True)
class BlockResponse:
    """A whole response.

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
        """Tell whether AWS has the block, and it is the one of this checksum (SHA-256, base64)."""
        return self.status == 201 and self.headers.get("x-amz-checksum") == checksum

    def refusal(self) -> aws_errors.AwsError:
        """Read the error in place of a confirmation; its code is "HTTP 404" where the response is not AWS's."""
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


def is_confirmation(piece: bytes | memoryview, checksum: str) -> bool:
    """Recognise a usual confirmation: quick, for nearly all responses are one.

    Args:
        piece: All that has come of a response.
        checksum: Of the block (SHA-256, base64).

    Returns:
        Whether it is a whole response that confirms the block, and after which the connection is good for another
        request. If not, it takes a BlockResponseParser to tell.
    """
    found = _CONFIRMATION.fullmatch(piece)
    return found is not None and found[1] == checksum.encode() and found[2] is not None


class BlockResponseParser:
    """A parser of one response, in pieces of any size; keeps no more than a head and a body of MAX_BODY_BYTES."""

    def __init__(self) -> None:
        self._parser = http1.ResponseParser(max_body_bytes=MAX_BODY_BYTES)
        self._body = b""

    @property
    def has_begun(self) -> bool:
        """Whether there was a byte of the response."""
        return self._parser.has_begun

    def feed(self, piece: bytes | memoryview) -> BlockResponse | None:
        """Take some bytes; return the response once it is whole.

        Raises:
            http1.MalformedResponseError: It is no response of this API, or too large.
        """
        self._body += self._parser.feed(piece)
        head = self._parser.head
        return self._answer(head) if head and self._parser.is_complete else None

    def end(self) -> BlockResponse:
        """Note that the connection was closed; return the response, if that is how it ends.

        Raises:
            http1.MalformedResponseError: It was cut off.
        """
        return self._answer(self._parser.end())

    def _answer(self, head: http1.ResponseHead) -> BlockResponse:
        return BlockResponse(
            status=head.status, headers=head.headers, body=self._body, is_reusable=self._parser.is_reusable
        )


class BlockRequests:
    """The heads of PutSnapshotBlock requests for one snapshot; for several threads.

    Args:
        place: Of the EBS direct APIs.
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
        self._template: _HeadTemplate | None = None

    def head(self, index: int, checksum: str, keys: sigv4.AccessKeys) -> bytes:
        """Make the head of a request; the block follows on the wire.

        Args:
            index: Of the block.
            checksum: Its SHA-256, in base64.
            keys: Whose signature it is.
        """
        seconds = int(self._clock() + self.offset_seconds)
        template = self._template
        if template is None or template.seconds != seconds or template.keys is not keys:
            template = self._template = _HeadTemplate(self._authority, self._path, self._region, seconds, keys)
        return template.head(index, checksum)


class _HeadTemplate:
    """What the heads of one second have in common: all but the number of the block and its checksum."""

    def __init__(self, authority: str, path: str, region: str, seconds: int, keys: sigv4.AccessKeys) -> None:
        self.seconds = seconds
        self.keys = keys
        self._signer = sigv4.Signer(keys, service="ebs", region=region, stamp=sigv4.stamp(seconds))
        headers = {
            "host": authority,
            "x-amz-checksum": _GAP,
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-content-sha256": sigv4.UNSIGNED_PAYLOAD,
            "x-amz-data-length": str(BLOCK_BYTES),
            **self._signer.headers,
        }
        signed_path = sigv4.canonical_path(path) + _GAP
        request, self._names = sigv4.canonical_request("PUT", signed_path, headers, sigv4.UNSIGNED_PAYLOAD)
        self._request = request.split(_GAP)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        lines += f"content-length: {BLOCK_BYTES}\r\nuser-agent: clouduploader\r\nauthorization: "
        self._head = f"PUT {path}{_GAP} HTTP/1.1\r\n{lines}".split(_GAP)

    def head(self, index: int, checksum: str) -> bytes:
        start, middle, end = self._request
        authorization = self._signer.authorization(f"{start}{index}{middle}{checksum}{end}", self._names)
        start, middle, end = self._head
        return f"{start}{index}{middle}{checksum}{end}{authorization}\r\n\r\n".encode()
