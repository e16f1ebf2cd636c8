import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.util import http1
from clouduploader.util.http1 import MalformedResponseError, ResponseParser

MAX_BODY_BYTES = 65536
RESPONSE = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nX-Amz-Checksum: abc=\r\n\r\n"


def parse(data, *, size=None, closes=False, max_body_bytes=MAX_BODY_BYTES):
    """Feed a response in pieces of a size; the parser, and the body."""
    parser, body = ResponseParser(max_body_bytes=max_body_bytes), b""
    for start in range(0, len(data), size or max(1, len(data))):
        body += parser.feed(data[start : start + (size or len(data))])
        if parser.is_complete:
            return parser, body
    if closes:
        parser.end()
    return parser, body


@pytest.mark.parametrize("size", [1, 2, 7, None])
def test_head_is_understood(size):
    parser, body = parse(RESPONSE, size=size)
    assert (parser.head.status, parser.head.reason) == (201, "Created")
    assert parser.head.headers == {"content-length": "0", "x-amz-checksum": "abc="}
    assert (body, parser.interim_statuses) == (b"", [])


def test_interim_responses_are_told():
    parser, _body = parse(b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    assert (parser.interim_statuses, parser.head) == ([100, 103], None)


def test_response_may_end_with_its_head():
    parser = ResponseParser(max_body_bytes=0, has_body=False)
    assert parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n") == b""
    assert parser.is_complete
    assert parser.is_reusable


def test_body_is_given_as_it_comes():
    parser = ResponseParser(max_body_bytes=None)
    assert parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab") == b"ab"
    assert parser.feed(b"cde\r") == b"cde"
    assert parser.feed(b"\n3\r\nfgh\r\n0\r\n") == b"fgh"
    assert not parser.is_complete
    assert parser.feed(b"\r\n") == b""
    assert parser.is_complete


@pytest.mark.parametrize("max_body_bytes", [None, 9])
def test_body_may_be_as_long_as_the_caller_says(max_body_bytes):
    for head, body in (
        (b"Content-Length: 9", b"x" * 9),
        (b"Transfer-Encoding: chunked", b"4\r\nxxxx\r\n5\r\nxxxxx\r\n0\r\n\r\n"),
        (b"Connection: close", b"x" * 9),
    ):
        data = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body
        assert parse(data, closes=True, max_body_bytes=max_body_bytes)[1] == b"x" * 9
        with pytest.raises(http1.OversizedResponseError):
            parse(data, closes=True, max_body_bytes=8)


@pytest.mark.parametrize(
    ("data", "is_reusable"),
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.0 201 Created\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 201 Created\r\ncontent-length:2\r\nConnection: x, Close\r\n\r\n{}", False),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201 Created\r\n\r\n{}", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: Chunked\r\n\r\n1;a=b\r\n{\r\n01\r\n}\r\n000\r\n\r\n", True),
    ],
)
@pytest.mark.parametrize("size", [1, 3, None])
def test_body_ends_where_http_says(data, is_reusable, size):
    parser, body = parse(data, size=size, closes=True)
    assert (parser.head.status, body) == (201, b"{}")
    assert parser.is_complete
    assert parser.is_reusable == is_reusable


def test_connection_that_says_more_is_not_used_again():
    parser, body = parse(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}more")
    assert (body, parser.is_complete, parser.is_reusable) == (b"{}", True, False)


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body_has_none(status):
    parser, body = parse(f"HTTP/1.1 {status} X\r\nContent-Length: 10\r\n\r\n".encode())
    assert (parser.head.status, body, parser.is_complete, parser.is_reusable) == (status, b"", True, True)


NONSENSE = [
    b"SSH-2.0-OpenSSH\r\n",
    b"\x16\x03\x01\x02\x00",
    b"HTTP/2 201\r\n\r\n",
    b"HTTP/1.1 20x Created\r\n\r\n",
    b"HTTP/1.1 2010 Created\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nNo colon\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nName : x\r\n\r\n",
    b"HTTP/1.1 201 Created\r\n folded: x\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nX: a\0b\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nContent-Length: 1_0\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nContent-Length: 1000000\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nxy\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300,
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + bytes(0x8000) + b"\r\n" + b"8001\r\n",
    b"HTTP/1.1 201 Created\r\nX: " + b"y" * http1.MAX_HEAD_BYTES,
    b"HTTP/1.1 201 " + b"y" * http1.MAX_HEAD_BYTES,
    b"HTTP/1.1 201 Created\r\n\r\n" + bytes(MAX_BODY_BYTES + 1),
    b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    b"HTTP/1.1 201 Created\nX: y\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300 + b"\r\na\r\n",
]


@pytest.mark.parametrize("data", NONSENSE, ids=lambda data: repr(data[:60]))
@pytest.mark.parametrize("size", [1, 1000, None])
def test_nonsense_is_refused_while_it_comes_in(data, size):
    with pytest.raises(MalformedResponseError):
        parse(data, size=size)


@pytest.mark.parametrize("length", range(len(RESPONSE)))
def test_answer_that_is_cut_off_is_refused(length):
    with pytest.raises(MalformedResponseError, match="cut off" if length else "without one"):
        parse(RESPONSE[:length], closes=True)


pieces = st.sampled_from(
    [
        b"HTTP/1.1 ", b"201 Created", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"5", b"Transfer-Encoding: chunked",
        b"5\r\nabcde\r\n", b"0\r\n\r\n", b"Connection: close", b"HTTP/1.1 100 Continue\r\n\r\n", b":", b"\0",
    ]
)  # fmt: skip


@hypothesis.given(
    data=st.one_of(st.binary(max_size=300), st.lists(st.one_of(pieces, st.binary(max_size=9))).map(b"".join)),
    cuts=st.lists(st.integers(0, 400)),
)
def test_no_bytes_break_the_parser_and_cuts_do_not_matter(data, cuts):
    def result(edges):
        parser, body = ResponseParser(max_body_bytes=MAX_BODY_BYTES), b""
        try:
            for start, end in zip([0, *edges], [*edges, len(data)], strict=True):
                body += parser.feed(data[start:end])
                if parser.is_complete:
                    break
            head = parser.end()
        except MalformedResponseError:
            return None
        return head.status, dict(head.headers), body

    whole = result([])
    in_pieces = result(sorted(min(cut, len(data)) for cut in cuts))
    # what comes after the answer is nonsense only to those who have seen it already
    assert in_pieces == whole or whole is None or in_pieces is None
