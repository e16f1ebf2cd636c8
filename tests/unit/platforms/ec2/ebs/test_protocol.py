"""The request is boto3's, byte for byte where it is signed; the answer is believed only if it makes sense."""

import base64
import calendar
import hashlib
import time

import boto3
import botocore.awsrequest
import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.platforms.ec2 import endpoint, sigv4
from clouduploader.platforms.ec2.ebs import protocol
from clouduploader.platforms.ec2.ebs.protocol import BlockResponseParser
from clouduploader.util.http1 import MalformedResponseError

BLOCK = bytes(range(256)) * 2048
CHECKSUM = base64.b64encode(hashlib.sha256(BLOCK).digest()).decode()
CONFIRMED = f"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nx-amz-Checksum: {CHECKSUM}\r\n\r\n".encode()


def by_boto3(monkeypatch, *, keys, region, url, snapshot_id, index):
    """The request that boto3 would send: its URL and headers."""
    sent = []

    def capture(request, **_rest):
        sent.append(request)
        return botocore.awsrequest.AWSResponse(request.url, 201, {}, Raw())

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.Session(keys.access_key_id, keys.secret_access_key, keys.session_token, region).client(
        "ebs", endpoint_url=url
    )
    client.meta.events.register("before-send.ebs.PutSnapshotBlock", capture)
    client.put_snapshot_block(
        SnapshotId=snapshot_id,
        BlockIndex=index,
        BlockData=BLOCK,
        DataLength=len(BLOCK),
        Checksum=CHECKSUM,
        ChecksumAlgorithm="SHA256",
    )
    return sent[0], client.meta.endpoint_url


class Raw:
    """An empty body, as botocore reads it."""

    def stream(self, *_arguments, **_options):
        return iter(())


def parse_head(head):
    first, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize(
    ("url", "region", "token", "snapshot_id"),
    [
        (None, "eu-west-1", None, "snap-0123456789abcdef0"),
        (None, "cn-north-1", "tok/en+with=signs", "snap-0123456789abcdef0"),
        ("http://127.0.0.1:4566", "eu-west-1", "tok/en+with=signs", "snap-0/ö %2F~"),
        ("https://[::1]:443", "eu-west-1", None, "snap-0123456789abcdef0"),
        ("https://Proxy.example:8443/a~b/c%20d/", "eu-west-1", "tok/en+with=signs", "snap-0/ö %2F~"),
    ],
)
def test_request_is_that_of_boto3(monkeypatch, token, url, snapshot_id, region):
    keys = sigv4.AccessKeys("AKIAEXAMPLE", "sesame/open", token)
    request, url = by_boto3(monkeypatch, keys=keys, region=region, url=url, snapshot_id=snapshot_id, index=4711)
    theirs = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    time_of_theirs = time.strptime(theirs["x-amz-date"], "%Y%m%dT%H%M%SZ")
    place = endpoint.parse(url, origin="a test")
    ours = protocol.BlockRequests(
        place=place, region=region, snapshot_id=snapshot_id, clock=lambda: calendar.timegm(time_of_theirs)
    )
    first, headers = parse_head(ours.head(4711, CHECKSUM, keys))
    assert first == f"PUT {_path(request.url)} HTTP/1.1"
    host = headers.pop("host")
    assert host == botocore.auth._host_from_url(request.url)
    assert headers.pop("user-agent") == "clouduploader"
    for name in ("user-agent", "amz-sdk-invocation-id", "amz-sdk-request"):
        del theirs[name]
    assert headers == theirs


def _path(url):
    return "/" + url.split("://", 1)[1].split("/", 1)[1]


def test_offset_moves_the_time_of_the_signature():
    place = endpoint.parse("https://ebs.example", origin="a test")
    requests = protocol.BlockRequests(place=place, region="eu-west-1", snapshot_id="snap-1", clock=lambda: 0.9)
    requests.offset_seconds = 3600.0
    head = requests.head(0, CHECKSUM, sigv4.AccessKeys("AKIA", "sesame"))
    assert b"x-amz-date: 19700101T010000Z\r\n" in head
    assert b"sesame" not in head


def parse(data, *, size=None, closes=False):
    """Feed an answer in pieces of a size."""
    parser = BlockResponseParser()
    for start in range(0, len(data), size or max(1, len(data))):
        answer = parser.feed(data[start : start + (size or len(data))])
        if answer:
            return answer
    return parser.end() if closes else None


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_confirmation_is_understood(size):
    answer = parse(CONFIRMED, size=size)
    assert answer.confirms(CHECKSUM)
    assert answer.is_reusable
    assert not answer.confirms(base64.b64encode(bytes(32)).decode())


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Date: Sun, 29 Nov 2026 05:00:00 GMT", "x-amz-Checksum-Algorithm: SHA256", "Content-Type:"),
        ("Content-Length: 0", "x-amz-checksum: other", f"X-AMZ-CHECKSUM:{CHECKSUM}"),
    ],
)
def test_usual_confirmation_is_recognised(lines):
    text = "".join(
        f"{line}\r\n" for line in ("HTTP/1.1 201", "content-length:0", f"x-amz-Checksum:\t{CHECKSUM}", *lines)
    )
    assert protocol.is_confirmation(memoryview(f"{text}\r\n".encode()), CHECKSUM)
    assert parse(f"{text}\r\n".encode()).confirms(CHECKSUM)


PARTS = (
    *(b"HTTP/1.1 201 Created", b"HTTP/1.1 201", b"HTTP/1.0 201 Created", b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue"),
    *(b"Content-Length: 0", b"content-length:0", b"Content-Length: 1", b"Content-Length: 00", b"Content-Length: 0, 0"),
    *(f"x-amz-{name}: {value}".encode() for name in ("Checksum", "checksum ") for value in (CHECKSUM, CHECKSUM[:-1])),
    *(b"Connection: close", b"connection: keep-alive", b"Transfer-Encoding: chunked", b"Date: today", b"Date : today"),
    *(b"", b"\0", b"\r\n", b"\r", b"\n", b": 0", b" Content-Length: 5", b"x: \xff", b"x: a\0b", b"0", b"\x85", b"x"),
)


@hypothesis.given(
    st.lists(st.sampled_from(PARTS), max_size=6),
    st.lists(st.sampled_from(PARTS), max_size=2),
    st.sampled_from((b"\r\n", b"\r\n", b"\n")),
)
@hypothesis.settings(max_examples=1000)
def test_nothing_is_recognised_that_is_no_confirmation(lines, rest, line_end):
    usual = (b"HTTP/1.1 201 Created", b"Content-Length: 0", f"x-amz-Checksum: {CHECKSUM}".encode())
    for first in (usual, usual[:2], usual[:1], ()):
        data = b"".join(line + line_end for line in (*first, *lines)) + b"\r\n" + b"".join(rest)
        if protocol.is_confirmation(data, CHECKSUM):
            answer = parse(data)
            assert answer.confirms(CHECKSUM)
            assert answer.is_reusable


@hypothesis.given(st.integers(0, len(CONFIRMED)), st.binary(max_size=3), st.integers(0, 3))
def test_nothing_is_recognised_in_a_damaged_confirmation(place, inserted, removed):
    data = CONFIRMED[:place] + inserted + CONFIRMED[place + removed :]
    if protocol.is_confirmation(data, CHECKSUM):
        answer = parse(data)
        assert answer.confirms(CHECKSUM)
        assert answer.is_reusable


def test_answer_that_is_cut_off_or_too_long_is_refused():
    with pytest.raises(MalformedResponseError, match="cut off"):
        parse(CONFIRMED[:-1], closes=True)
    with pytest.raises(MalformedResponseError, match="more than 65536 bytes"):
        parse(b"HTTP/1.1 201 Created\r\n\r\n" + bytes(protocol.MAX_BODY_BYTES + 1))


@hypothesis.given(st.binary(max_size=200), st.text(max_size=50))
def test_no_body_breaks_the_refusal(body, kind):
    answer = protocol.BlockResponse(status=400, headers={"x-amzn-errortype": kind}, body=body, is_reusable=True)
    assert answer.refusal().status == 400
    assert len(answer.refusal().message) <= 1000


@pytest.mark.parametrize(
    ("headers", "body", "code", "message", "reason"),
    [
        (
            {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/coral/com.amazon.coral.validate/"},
            b'{"Message": "No.", "Reason": "INVALID_BLOCK"}',
            "ValidationException",
            "No.",
            "INVALID_BLOCK",
        ),
        ({}, b'{"__type": "com.amazonaws.ebs#AccessDeniedException"}', "AccessDeniedException", "", ""),
        ({}, b'{"code": "Throttling", "message": "slow"}', "Throttling", "slow", ""),
        ({}, b"<html>", "HTTP 418", "", ""),
        ({}, b"[" * 60000, "HTTP 418", "", ""),
        ({}, b'{"__type": 7, "message": ["x"], "Reason": null}', "HTTP 418", "", ""),
        ({"x-amzn-errortype": "<script>"}, b"", "HTTP 418", "", ""),
    ],
)
def test_refusal_says_what_aws_says(headers, body, code, message, reason):
    found = protocol.BlockResponse(
        status=418, headers=headers | {"date": "today"}, body=body, is_reusable=True
    ).refusal()
    assert (found.service, found.operation, found.status, found.date) == ("ebs", "PutSnapshotBlock", 418, "today")
    assert (found.code, found.message, found.reason) == (code, message, reason)
