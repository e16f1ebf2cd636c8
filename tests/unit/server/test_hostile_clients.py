"""Hostile clients: slow-loris, and requests that hypothesis makes up."""

import contextlib
import json
import re
import xml.etree.ElementTree as ET
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clouduploader.model import job_xml
from clouduploader.model.job import JobState
from clouduploader.server.network import body as server_body

SOME = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(st.integers().map(str), texts)


def wire(pairs):
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)


paths = st.one_of(
    st.builds("/cloudupload/{}{}".format, texts.map(quote), st.sampled_from(["", "/", "/_log", "/x"])),
    st.builds(
        "/cloudupload/{}{}".format,
        st.sampled_from(["1", "2", "3", "next", "done", "..", "_pubkey", "%00", "%ff"]),
        st.just(""),
    ),
    texts.map(lambda text: "/" + quote(text)),
    st.sampled_from(["/", "//", "/cloudupload", "/workerstatus", "/serverstatus", "/ajaxstatus"]),
)
names = st.one_of(
    st.sampled_from(["name", "cmd", "command", "start", "end", "nostream", "view", "arch", "user", "target", "size"]),
    texts,
)
queries = st.lists(st.tuples(names, numbers), max_size=4).map(wire)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])


@pytest.fixture
def hostile(make_spool, make_job, serve):
    """A spool with three jobs that are over, and its server."""
    jobs = make_spool()
    for name in ("1", "2", "3"):
        make_job(jobs, name, state=JobState.FAILED, log=b"0123456789", details="no")
    return jobs, serve(jobs, idle_seconds="1")


def check(answer):
    """Whatever it is: an answer of ours, whole, and not our fault."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert re.match(r"HTTP/1\.[01] (200|400|403|404|413|417|501) ", status), answer
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["Connection"] == "close"
    if body and headers["Content-Type"] == "text/xml":
        assert int(headers["Content-Length"]) == len(body)
        ET.fromstring(body)  # noqa: S314 it is ours


@SOME
@given(method=methods, path=paths, query=queries, body=st.binary(max_size=40))
@example(method="GET", path="/cloudupload/1/_log", query="start=" + "9" * 5000, body=b"")
@example(method="GET", path="/cloudupload/a%0ab", query="", body=b"")
@example(method="POST", path="/%0a", query="%", body=b"")
def test_any_request_is_answered(hostile, method, path, query, body):
    jobs, server = hostile
    before = {file.name: file.read_bytes() for file in jobs.done_dir.iterdir()}
    request = f"{method} {path}?{query} HTTP/1.1\r\nHost: obs\r\nContent-Length: {len(body)}\r\n\r\n"
    check(server.send(request.encode() + body))
    assert {file.name: file.read_bytes() for file in jobs.done_dir.iterdir()} == before


@SOME
@given(
    start=st.one_of(st.integers(-30, 30), st.integers()), end=st.one_of(st.integers(0, 30), st.integers(min_value=0))
)
def test_any_range_of_a_log_is_that_of_its_bytes(hostile, start, end):
    status, _, body = hostile[1].ask("GET", f"/cloudupload/1/_log?start={start}&end={end}")
    if start > 10:
        assert status.startswith("400 start out of range")
        return
    first = max(0, 10 + start) if start < 0 else start
    assert (status, body) == ("200 OK", b"0123456789"[first : max(first, end)])


values = st.one_of(texts, st.sampled_from(["7", "7b7d"]))
elements = st.lists(st.tuples(st.sampled_from([*job_xml.ELEMENTS, "name", "due", "x:y"]), values), max_size=12)
skeletons = st.one_of(
    st.binary(max_size=60),
    elements.map(lambda them: f"<clouduploadjob>{''.join(f'<{n}>{job_xml.escape(v)}</{n}>' for n, v in them)}</clouduploadjob>".encode()),  # noqa: E501
)  # fmt: skip


@SOME
@given(skeleton=skeletons)
@example(skeleton=b"<!DOCTYPE a [<!ENTITY b 'c'>]><clouduploadjob>&b;</clouduploadjob>")
@example(skeleton=b"\xff\xfe<\x00")
def test_any_skeleton_makes_a_job_that_can_be_read_or_none(hostile, skeleton):
    jobs, server = hostile
    before = set(jobs.running_names())
    answer = server.send(
        b"POST /cloudupload HTTP/1.1\r\nHost: obs\r\nContent-Length: %d\r\n\r\n" % len(skeleton) + skeleton
    )
    check(answer)
    made = set(jobs.running_names()) - before
    assert len(made) == answer.startswith(b"HTTP/1.1 200")
    for name in made:
        assert jobs.read(name)[0].state is JobState.CREATED


@SOME
@given(
    fields=st.dictionaries(
        st.sampled_from(["project", "package", "repository", "arch", "user", "target", "filename", "size"]), numbers
    ),
    size=st.sampled_from(["7", "007", "x", "-1", "9" * 30, "\N{ARABIC-INDIC DIGIT SEVEN}"]),
    data=st.one_of(
        st.binary(max_size=30), st.dictionaries(texts, texts, max_size=3).map(lambda it: json.dumps(it).encode())
    ),
)
def test_any_wiki_form_makes_a_job_that_can_be_read_or_none(hostile, fields, size, data):
    jobs, server = hostile
    whole = (
        dict.fromkeys(["project", "package", "repository", "arch", "user", "target", "filename"], "x")
        | fields
        | {"size": size}
    )
    before = set(jobs.running_names())
    request = f"POST /cloudupload?{wire(whole.items())} HTTP/1.1\r\nHost: obs\r\nContent-Length: {len(data)}\r\n\r\n"
    answer = server.send(request.encode() + data)
    check(answer)
    made = set(jobs.running_names()) - before
    assert len(made) == answer.startswith(b"HTTP/1.1 200")
    for name in made:
        job, _ = jobs.read(name)
        assert (job.size, jobs.data_path(name).read_bytes()) == (7, data)
        assert job.user
        assert job.target


POST = b"POST /cloudupload HTTP/1.1\r\nHost: obs\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET http://[::1/ HTTP/1.1\r\nHost: obs\r\n\r\n",  # InvalidURLError
        b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"CONNECT obs:99999 HTTP/1.1\r\nHost: obs\r\n\r\n",  # ValueError of a port
        b"BR\xffEW / HTTP/1.1\r\nHost: obs\r\n\r\n",  # BadHttpMethod
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: obs\r\n\r\n",  # LineTooLong
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",  # InvalidHeader
        b'GET / HTTP/1.1\r\nHost: obs\r\nCookie: \xff=";\r\nRange: bytes=9-1\r\n\r\n',
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",  # ValueError of int()
        POST + b"Content-Length: 500\r\n\r\n<cloud",  # ContentLengthError
        CHUNKED + b"Content-Length: 3\r\n\r\nabc",
        CHUNKED + b"\r\nzz\r\n",  # TransferEncodingError
        CHUNKED + b"\r\n-5\r\nabcde\r\n",
        CHUNKED + b"\r\n" + b"f" * 40 + b"\r\nabc",
        CHUNKED + b"Content-Encoding: gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n",  # ContentEncodingError
        POST + b"Expect: nonsense\r\nContent-Length: 5\r\n\r\nabcde",
        POST + b"Content-Type: text/xml; charset=none\r\nContent-Length: 4\r\n\r\n<a/>",  # LookupError
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",  # TLS
    ],
)
def test_whatever_aiohttp_raises_for_a_request_is_answered(hostile, request_bytes):
    answer = hostile[1].send(request_bytes)
    if answer:
        check(answer)


@SOME
@given(data=st.binary(max_size=200))
def test_any_bytes_are_answered_or_the_connection_closed(hostile, data):
    answer = hostile[1].send(data + b"\r\n\r\n")
    if answer:
        check(answer)


def test_slow_loris_is_dropped_although_it_goes_on_sending(make_spool, serve):
    """Time for a request's head counts from the connection's beginning; and slow clients are not waited for."""
    server = serve(make_spool(), idle_seconds="1")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(100)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\n")
        while clients:
            assert server.ask("GET", "/")[0] == "200 OK"
            for client in list(clients):
                client.settimeout(0.001)
                try:
                    client.sendall(b"X: y\r\n")
                    is_over = not client.recv(1000)
                except TimeoutError:
                    continue
                except ConnectionError:
                    is_over = True
                if is_over:
                    clients.remove(client)


def test_body_that_comes_drop_by_drop_is_ended(make_spool, serve, monkeypatch):
    monkeypatch.setattr(server_body, "SMALL_SECONDS", 0.1)
    server = serve(make_spool())
    with server.connect() as client:
        client.sendall(b"POST /cloudupload HTTP/1.1\r\nHost: obs\r\nContent-Length: 1000\r\n\r\n<")
        client.settimeout(0.01)
        answer = b""
        while not answer:
            client.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 Truncated body")
