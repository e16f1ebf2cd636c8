"""Images in pieces: what comes stays, whatever breaks off, and no byte of it is doubted."""

import base64
import contextlib
import datetime
import hashlib
import json
import random
import socket
import threading

import pytest
from fakes import waiting

from clouduploader.model.job import JobState
from clouduploader.server.receive import piece_receiver, places
from clouduploader.store.images import ImageStore
from clouduploader.store.tokens import Role, TokenStore

ROOT = "/api/v1/images"
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def server(serve, jobs):
    return serve(jobs)


@pytest.fixture
def begin(server):
    """Return a function that begins an image, and returns its path."""

    def call(size, **metadata):
        encoded = ",".join(f"{name} {base64.b64encode(text.encode()).decode()}" for name, text in metadata.items())
        status, headers, body = server.ask("POST", ROOT, b"", Upload_Length=str(size), Upload_Metadata=encoded, **TUS)
        assert status == "201 Created", body
        path = f"{ROOT}/{json.loads(body)['id']}"
        assert f"Location: {path}" in headers
        return path

    return call


def send(server, path, offset, data, **headers):
    """Send a piece; return the status, and the new offset if there is one."""
    status, lines, _ = server.ask("PATCH", path, data, Upload_Offset=str(offset), **PIECE, **headers)
    assert "Tus-Resumable: 1.0.0" in lines
    return int(status[:3]), header(lines, "Upload-Offset")


def header(lines, name):
    return next((line.partition(": ")[2] for line in lines if line.startswith(f"{name}: ")), None)


def offset_of(server, path):
    status, lines, _ = server.ask("HEAD", path, **TUS)
    assert status == "200 OK"
    assert "Cache-Control: no-store" in lines
    return int(header(lines, "Upload-Offset"))


def head_of(path, offset, length):
    return (
        f"PATCH {path} HTTP/1.1\r\nHost: obs\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_piece_that_does_not_come_makes_way_for_another_and_stays(server, begin, jobs, monkeypatch):
    monkeypatch.setattr(places, "RATE_SECONDS", 0.2)
    server.section.update(max_transfers="1")
    server.source.request_reload()
    waiting.wait_for(lambda: "were read again" in server.log.getvalue())
    slow, quick = begin(1_000_000), begin(3)
    with server.connect() as client:
        client.sendall(head_of(slow, 0, 1_000_000) + b"x")
        here = ImageStore(jobs.directory).directory / slow.removeprefix(f"{ROOT}/")
        waiting.wait_for(lambda: here.stat().st_size == 1)
        waiting.wait_for(lambda: send(server, quick, 0, b"abc") == (204, "3"))
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert offset_of(server, slow) == 1


def test_server_tells_what_of_tus_it_can(server):
    status, lines, _ = server.ask("OPTIONS", ROOT)
    assert status == "204 No Content"
    assert header(lines, "Tus-Version") == "1.0.0"
    assert header(lines, "Tus-Extension") == "creation,expiration,checksum,termination"


def test_pieces_become_the_image(server, begin, jobs):
    path = begin(6, filename="a.raw", fingerprint="f")
    assert send(server, path, 0, b"abcd") == (204, "4")
    assert offset_of(server, path) == 4
    assert send(server, path, 4, b"ef") == (204, "6")
    found = json.loads(server.ask("GET", path)[2])
    assert (found["size"], found["offset"], found["job"]) == (6, 6, None)
    assert found["metadata"] == {"filename": "a.raw", "fingerprint": "f"}
    assert json.loads(server.ask("GET", ROOT)[2])["images"] == [found]
    assert (ImageStore(jobs.directory).directory / found["id"]).read_bytes() == b"abcdef"


def test_piece_in_chunks_is_taken(server, begin):
    path = begin(6)
    headers = {**PIECE, "Transfer_Encoding": "chunked", "Upload_Offset": "0"}
    assert server.ask("PATCH", path, b"3\r\nabc\r\n0\r\n\r\n", **headers)[0] == "204 No Content"
    assert offset_of(server, path) == 3


@pytest.mark.parametrize(("offset", "data", "status"), [(1, b"b", 409), (4, b"e", 409), (3, b"def" * 2, 413)])
def test_piece_that_does_not_fit_changes_nothing(server, begin, offset, data, status):
    path = begin(6)
    send(server, path, 0, b"abc")
    assert send(server, path, offset, data) == (status, None)
    assert offset_of(server, path) == 3


def test_chunks_that_are_too_many_leave_what_fits(server, begin):
    path = begin(3)
    headers = {**PIECE, "Transfer_Encoding": "chunked", "Upload_Offset": "0"}
    assert server.ask("PATCH", path, b"4\r\nabcd\r\n0\r\n\r\n", **headers)[0].startswith("413 ")
    assert offset_of(server, path) == 0


def test_what_came_before_a_break_stays(server, begin, jobs):
    path = begin(6)
    here = ImageStore(jobs.directory).directory / path.rpartition("/")[2]
    with server.connect() as client:
        client.sendall(head_of(path, 0, 6) + b"abcd")
        waiting.wait_for(lambda: here.stat().st_size == 4)
    waiting.wait_for(lambda: json.loads(server.ask("GET", path)[2])["offset"] == 4)
    assert send(server, path, 4, b"ef") == (204, "6")


@pytest.mark.parametrize("first", [0, 1000, 300_000, 3_000_001])
def test_piece_arrives_as_it_was_sent(server, begin, jobs, first):
    """However much of it comes together with the request's head, and is read by aiohttp, unlike the rest."""
    data = random.Random(first).randbytes(3_000_001)  # noqa: S311 no secret
    path = begin(len(data))
    here = ImageStore(jobs.directory).directory / path.rpartition("/")[2]
    with server.connect() as client:
        client.sendall(head_of(path, 0, len(data)) + data[:first])
        waiting.wait_for(lambda: here.stat().st_size == first)
        client.sendall(data[first:])
        client.shutdown(socket.SHUT_WR)  # it still gets its answer
        assert client.recv(65_536).startswith(b"HTTP/1.1 204 ")
    assert here.read_bytes() == data
    assert b"\nclouduploader_received_bytes_total 3.000001e+06\n" in server.ask("GET", "/metrics")[2]


def test_piece_whose_client_falls_silent_stays(serve, jobs):
    server = serve(jobs, idle_seconds="1")
    image = ImageStore(jobs.directory).create(None, 6, metadata={}, now=datetime.datetime.now(datetime.UTC))
    with server.connect() as client:
        client.sendall(head_of(f"{ROOT}/{image.id}", 0, 6) + b"abcd")
        assert client.recv(65_536).startswith(b"HTTP/1.1 400 ")
    assert ImageStore(jobs.directory).find(image.id).offset_bytes == 4


def test_piece_stops_when_others_fill_the_disk_and_stays(server, begin, jobs):
    path = begin(6)
    with server.connect() as client:
        client.sendall(head_of(path, 0, 6) + b"abcd")
        waiting.wait_for(lambda: (ImageStore(jobs.directory).directory / path.rpartition("/")[2]).stat().st_size == 4)
        server.section["keep_free"] = "1000000T"  # the other way round: the limit rises above what is free
        server.source.request_reload()
        assert client.recv(65_536).startswith(b"HTTP/1.1 507 ")
    assert offset_of(server, path) == 4


def test_server_that_stops_keeps_what_came(serve, server, begin, jobs):
    path = begin(6)
    here = ImageStore(jobs.directory).directory / path.rpartition("/")[2]
    with server.connect() as client:
        client.sendall(head_of(path, 0, 6) + b"abcd")
        waiting.wait_for(lambda: here.stat().st_size == 4)
        serve.stop()
        assert client.recv(65_536).startswith(b"HTTP/1.1 503 ")
    assert ImageStore(jobs.directory).find(here.name).offset_bytes == 4


def test_request_for_an_image_ends_the_one_before(server, begin):
    path = begin(6)
    with server.connect() as client:
        client.sendall(head_of(path, 0, 6) + b"abc")
        answer = b""
        while not answer:
            assert offset_of(server, path) in (0, 3)
            client.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert piece_receiver.OVERTAKEN.encode() in answer
    offset = offset_of(server, path)
    assert send(server, path, offset, b"abcdef"[offset:]) == (204, "6")


def test_many_requests_for_an_image_at_once_leave_it_right(server, begin, jobs):
    path, data = begin(200_000), bytes(range(250)) * 800
    answers = []

    def go_on():
        while (offset := offset_of(server, path)) < len(data):
            answers.append(send(server, path, offset, data[offset : offset + 30_000])[0])

    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {204, 409, 413, 503}
    assert (ImageStore(jobs.directory).directory / path.rpartition("/")[2]).read_bytes() == data


@pytest.mark.parametrize("algorithm", piece_receiver.ALGORITHMS)
def test_piece_with_a_wrong_checksum_is_thrown_away(server, begin, algorithm):
    path = begin(6)
    right = base64.b64encode(hashlib.new(algorithm, b"abc").digest()).decode()
    assert send(server, path, 0, b"abx", Upload_Checksum=f"{algorithm} {right}") == (460, None)
    assert offset_of(server, path) == 0
    assert send(server, path, 0, b"abc", Upload_Checksum=f"{algorithm} {right}") == (204, "3")
    for wrong in ("md5 AAAA", "sha1 %", "sha1"):
        assert send(server, path, 3, b"def", Upload_Checksum=wrong)[0] in (400, 460)
    assert offset_of(server, path) == 3


def test_image_is_removed(server, begin, jobs):
    path = begin(6)
    assert server.ask("DELETE", path, **TUS)[0] == "204 No Content"
    assert server.ask("HEAD", path, **TUS)[0] == "404 Not Found"
    assert list(ImageStore(jobs.directory).directory.iterdir()) == []


NOT_DESCRIBED = [
    ({}, 412),
    ({"Tus-Resumable": "0.2"}, 412),
    ({**TUS}, 400),
    ({**TUS, "Upload-Length": "0"}, 400),
    ({**TUS, "Upload-Length": "-1"}, 400),
    ({**TUS, "Upload-Length": "9" * 30}, 507),
    ({**TUS, "Upload-Length": "3", "Upload-Metadata": "filename %"}, 400),
    ({**TUS, "Upload-Length": "3", "Upload-Metadata": "x" * 5000}, 400),
    ({**TUS, "Upload-Length": "3", "Upload-Metadata": "filename /w=="}, 400),
    ({**TUS, "Upload-Length": "3", "Upload-Metadata": ",".join(f"n{n}" for n in range(99))}, 400),
]


def test_image_that_is_not_described_is_not_begun(server, jobs):
    for headers, status in NOT_DESCRIBED:
        assert server.ask("POST", ROOT, b"", **headers)[0].startswith(f"{status} ")
        assert ImageStore(jobs.directory).images() == []


@pytest.mark.parametrize(("name", "text"), [("Content_Type", "text/plain"), ("Upload_Offset", "x")])
def test_piece_that_is_not_described_is_refused(server, begin, name, text):
    headers = {"Upload_Offset": "0", "Content_Type": PIECE["Content-Type"], **TUS, name: text}
    status, lines, _ = server.ask("PATCH", begin(3), b"abc", **headers)
    assert status[:3] in ("400", "415")
    assert "Tus-Resumable: 1.0.0" in lines


def test_disk_is_not_filled(serve, jobs):
    server = serve(jobs, keep_free="1000000G")
    assert server.ask("POST", ROOT, b"", Upload_Length="3", **TUS)[0] == "507 Insufficient Storage"


def test_images_in_pieces_count_as_their_users_jobs(serve, jobs, tmp_path, make_job):
    server = serve(jobs, user_bytes="30", user_jobs="2")
    now = datetime.datetime.now(datetime.UTC)
    token = TokenStore(tmp_path / "etc" / "cloudupload").create("tom", Role.USER, note="", expires=None, now=now)[1]

    def begin(size):
        headers = {**TUS, "Upload-Length": str(size), "Authorization": f"Bearer {token}"}
        return int(server.ask("POST", ROOT, b"", **headers)[0][:3])

    assert [begin(31), begin(20), begin(11), begin(5), begin(1)] == [413, 201, 429, 201, 429]
    for image in ImageStore(jobs.directory).images():
        ImageStore(jobs.directory).bind(image, "7")
    make_job(jobs, "7", state=JobState.SCHEDULED, size=25)
    assert [begin(6), begin(5)] == [429, 201]


def test_job_that_is_made_for_another_user_is_not_shown(ask_as):
    now = datetime.datetime.now(datetime.UTC)
    store = ImageStore(ask_as.jobs.directory)
    image = store.create("tom", 3, metadata={}, now=now)
    with store.open(image.id) as opened:
        opened.write(b"abc")
        opened.sync()
    document = {"target": "directory", "image": image.id, "data": {"directory": "/x"}}
    status, job = ask_as("root", "POST", "/jobs", document | {"user": "anna"})
    assert (status, job["user"]) == (201, "anna")
    assert ask_as("tom", "POST", "/jobs", document)[0] == 404
