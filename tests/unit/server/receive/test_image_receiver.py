"""Images that are received: whole, cut off, too large, slow, many, killed, and too much for the disk."""

import contextlib
import gc
import hashlib
import os
import random
import re
import socket
import threading

import pytest
from fakes.waiting import wait_for

from clouduploader.errors import LocalIOError
from clouduploader.model.job import Details, JobState
from clouduploader.server import replies

SLOW_CLIENTS = 100


def head(name, size, **headers):
    lines = [f"PUT /cloudupload/{name} HTTP/1.1", "Host: obs", f"Content-Length: {size}"]
    return "\r\n".join([*lines, *(f"{key}: {value}" for key, value in headers.items()), "", ""]).encode()


def begin(client, jobs, name, size, sent):
    """Send the beginning of an image, and wait until the job is received."""
    client.sendall(head(name, size) + sent)
    wait_for(lambda: jobs.read(name)[0].state is JobState.RECEIVING)


def noise(seed, count):
    return random.Random(seed).randbytes(count)  # noqa: S311 no secret


def read_answer(client):
    """Read an answer, and not more: a server that refuses an image listens for a while, so that the answer arrives."""
    answer = b""
    while not answer.endswith((b"</status>\n", b'<status code="ok" />\n')):
        piece = client.recv(65_536)
        assert piece, answer
        answer += piece
    return answer


def files(jobs):
    return {path.name for path in jobs.directory.iterdir()} - {"next", "done"}


def wait_for_end(jobs, name):
    """Wait for the job's end; return its details."""
    wait_for(lambda: jobs.read(name)[1])
    assert files(jobs) == set()
    job, _ = jobs.read(name)
    assert job.state is JobState.FAILED
    return job.details


@pytest.mark.parametrize("first", [0, 1, 1000, 65_536, 300_000, 5_000_001])
def test_image_arrives_as_it_was_sent(make_spool, serve, first):
    """However much of it comes together with the request's head, and is read by aiohttp, unlike the rest."""
    jobs = make_spool()
    server = serve(jobs)
    image = noise(first, 5_000_001)
    name = server.create(len(image))
    with server.connect() as client:
        client.sendall(head(name, len(image)) + image[:first])
        wait_for(lambda: jobs.read(name)[0].state is not JobState.CREATED)
        client.sendall(image[first:])
        assert read_answer(client).endswith(b'<status code="ok" />\n')
    assert jobs.read(name)[0].state is JobState.SCHEDULED
    assert hashlib.sha256(jobs.file_path(name).read_bytes()).digest() == hashlib.sha256(image).digest()


def test_client_that_closes_its_half_gets_its_answer(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    with server.connect() as client:
        client.sendall(head(server.create(3_000_000), 3_000_000))
        client.sendall(bytes(3_000_000))
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("chunk", [1, 1000, 1_000_000])
def test_image_in_chunks_arrives_as_it_was_sent(make_spool, serve, chunk):
    jobs = make_spool()
    server = serve(jobs)
    image = noise(chunk, min(chunk * 3 + 7, 2_000_000))
    name = server.create(len(image))
    pieces = [image[at : at + chunk] for at in range(0, len(image), chunk)]
    data = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    answer = server.ask("PUT", f"/cloudupload/{name}", data, Transfer_Encoding="chunked")
    assert answer[2] == b'<status code="ok" />\n'
    assert jobs.file_path(name).read_bytes() == image


@pytest.mark.parametrize("is_there", [False, True])
def test_end_that_cannot_be_written_is_told_and_hides_no_reason(make_spool, serve, caplog, is_there):
    """As on a file system that has become read-only: what failed first is the answer."""
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(10)
    jobs.done_dir.rmdir()
    jobs.done_dir.write_text("not a directory")
    with socket.create_connection(server.address) as client:
        if is_there:
            client.sendall(head(name, 11))
            assert read_answer(client).startswith(b"HTTP/1.1 400 size mismatch  11 != 10")
        else:
            begin(client, jobs, name, 10, b"x")
    wait_for(lambda: f"event=trouble job={name}" in server.log.getvalue())
    wait_for(lambda: "method=PUT" in server.log.getvalue())
    assert jobs.read(name)[0].state is JobState.RECEIVING  # `expire` fails it later
    gc.collect()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("text", ["No space left on device", "Read-only file system", "Input/output error"])
def test_fault_of_the_server_is_not_called_the_clients(text):
    assert replies.to_refusal(LocalIOError(f"/srv/7 can't be written: {text}")).status == 500


def test_image_in_chunks_of_a_few_bytes_is_not_taken_to_its_end(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(10_000_000)
    with contextlib.suppress(ConnectionError), socket.create_connection(server.address) as client:
        client.sendall(head(name, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        for _ in range(100):
            client.sendall(b"1\r\nx\r\n" * 10_000)
    wait_for(lambda: jobs.is_archived(name))
    assert jobs.read(name)[0].details == Details.CUT_OFF
    assert "the chunks of its body hold a few bytes each" in server.log.getvalue()


def test_image_in_many_chunks_that_are_none_too_small_arrives(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(64 * 200_000)
    data = (b"40\r\n" + b"x" * 64 + b"\r\n") * 200_000 + b"0\r\n\r\n"  # 1.2 MB of frames
    assert server.ask("PUT", f"/cloudupload/{name}", data, Transfer_Encoding="chunked")[0] == "200 OK"
    assert jobs.file_path(name).stat().st_size == 64 * 200_000


def test_empty_image_is_one(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    assert server.ask("PUT", f"/cloudupload/{server.create(0)}", b"")[0] == "200 OK"
    assert jobs.file_path("1").read_bytes() == b""


def test_client_that_waits_to_be_asked_is_asked_only_for_what_is_wanted(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    wanted, unwanted = server.create(5), server.create(6)
    with server.connect() as client:
        client.sendall(head(wanted, 5, Expect="100-continue"))
        assert client.recv(100) == b"HTTP/1.1 100 continue\r\n\r\n"
        client.sendall(b"image")
        assert read_answer(client).startswith(b"HTTP/1.1 200 OK\r\n")
    with server.connect() as client:
        client.sendall(head(unwanted, 5, Expect="100-continue"))
        assert read_answer(client).startswith(b"HTTP/1.1 400 size mismatch  5 != 6\r\n")
    assert jobs.read(unwanted)[0].details == "size mismatch: 5 != 6"


@pytest.mark.parametrize("sent", [0, 3, 2_000_000])
def test_image_that_is_cut_off_fails_its_job(make_spool, serve, sent):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(4_000_000)
    with server.connect() as client:
        begin(client, jobs, name, 4_000_000, bytes(sent))
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client).startswith(b"HTTP/1.1 400 unexpected EOF\r\n")
    assert wait_for_end(jobs, name) == Details.CUT_OFF


def test_client_that_leaves_before_its_image_is_asked_for_fails_its_job(make_spool, serve):
    """Whenever it leaves: before the job is received, while it becomes so, or later."""
    jobs = make_spool()
    server = serve(jobs)
    names = [server.create(10) for _ in range(20)]
    for name in names:
        with server.connect() as client:
            client.sendall(head(name, 10).replace(b"Content-Length: 10", b"Transfer-Encoding: chunked"))
    for name in names:
        wait_for(lambda name=name: jobs.read(name)[1])
        assert jobs.read(name)[0].details == Details.CUT_OFF
    assert files(jobs) == set()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_image_whose_client_falls_silent_fails_its_job(make_spool, serve, is_chunked):
    jobs = make_spool()
    server = serve(jobs, idle_seconds="1")
    name = server.create(10)
    request = head(name, 10) + b"12345"
    if is_chunked:
        request = request.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked").replace(
            b"12345", b"5\r\n12345\r\n"
        )
    with server.connect() as client:
        client.sendall(request)
        assert read_answer(client).startswith(b"HTTP/1.1 400 unexpected EOF\r\n")
    assert wait_for_end(jobs, name) == Details.CUT_OFF


def test_image_in_chunks_that_is_too_large_is_not_taken_to_its_end(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(10)
    with server.connect() as client:
        client.sendall(
            head(name, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"b\r\n01234567890\r\n"
        )
        assert read_answer(client).startswith(b"HTTP/1.1 400 size mismatch  11 != 10\r\n")  # it was not over
    assert wait_for_end(jobs, name) == "size mismatch: 11 != 10"


def test_image_of_a_killed_job_is_refused_before_its_end(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(4_000_000)
    with server.connect() as client:
        begin(client, jobs, name, 4_000_000, b"begun")
        assert server.ask("PUT", f"/cloudupload/{name}", b"x" * 4_000_000)[0] == "400 job is not in created state"
        assert server.ask("POST", f"/cloudupload/{name}?cmd=kill")[0] == "200 OK"
        assert files(jobs) == set()
        assert read_answer(client).startswith(b"HTTP/1.1 400 ")
    assert wait_for_end(jobs, name) == "killed"


def test_server_that_stops_says_so_of_the_image_that_came(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(10)
    with server.connect() as client:
        begin(client, jobs, name, 10, b"begun")
        serve.stop()
    assert wait_for_end(jobs, name) == "the server was stopped while it received the image"


def test_as_many_images_as_are_set_come_at_once(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs, max_transfers="1")
    first, second = server.create(5), server.create(5)
    with server.connect() as client:
        begin(client, jobs, first, 5, b"im")
        assert server.ask("PUT", f"/cloudupload/{second}", b"image")[0] == "503 too many images are on their way in"
        client.sendall(b"age")
        assert read_answer(client).startswith(b"HTTP/1.1 200 OK")
    wait_for(lambda: server.ask("PUT", f"/cloudupload/{second}", b"image")[0] == "200 OK")


def test_image_that_would_not_leave_enough_free_is_refused_before_it_is_sent(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs)
    name = server.create(10_000_000)
    server = serve(jobs, keep_free=str(jobs.free_bytes() * 2))
    with pytest.raises(AssertionError, match="No space left on device: the image has 1 bytes, "):
        server.create(1)
    with server.connect() as client:
        client.sendall(head(name, 10_000_000, Expect="100-continue"))
        assert read_answer(client).startswith(b"HTTP/1.1 500 No space left on device")
    assert wait_for_end(jobs, name).startswith("No space left on device: the image has 10000000 bytes, ")


def test_job_is_refused_where_few_files_can_be_made_and_one_that_is_there_goes_on(make_spool, serve, monkeypatch):
    jobs = make_spool()
    server = serve(jobs, keep_free="1")
    name = server.create(5)
    few = list(os.statvfs(jobs.directory))
    few[5:8] = [10_000, 1500, 999]  # of inodes: all, free, free for users other than root
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(few))
    with pytest.raises(AssertionError, match="No space left on device: 999 inodes are free, 1000 are kept free"):
        server.create(1)
    assert b"999 inodes are free, 1000 are to be kept free" in server.ask("GET", "/healthz")[2]
    assert server.ask("PUT", f"/cloudupload/{name}", b"image")[0] == "200 OK"
    few[5:8] = [0, 0, 0]  # as on Btrfs
    assert server.create(1) == "2"


def test_image_is_refused_where_another_needs_the_space(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs, keep_free="1")
    size = jobs.free_bytes() * 6 // 10
    first, second = server.create(size), server.create(size)
    with server.connect() as one, server.connect() as another:
        begin(one, jobs, first, size, b"a")
        another.sendall(head(second, size, Expect="100-continue"))
        assert read_answer(another).startswith(b"HTTP/1.1 500 No space left on device")
    assert jobs.read(second)[0].details.startswith(f"No space left on device: the image has {size} bytes, ")


def test_image_stops_when_others_fill_the_disk(make_spool, serve):
    jobs = make_spool()
    server = serve(jobs, keep_free="1")
    name = server.create(10_000_000)
    with server.connect() as client:
        begin(client, jobs, name, 10_000_000, b"a")
        server.section["keep_free"] = "1000000T"  # the other way round: the limit rises above what is free
        server.source.request_reload()
        assert read_answer(client).startswith(b"HTTP/1.1 500 No space left on device")
    assert re.fullmatch(r"No space left on device: \d+ bytes are free, \d+ are kept free", wait_for_end(jobs, name))


def test_slow_clients_keep_no_other_waiting(make_spool, serve):
    """Each sends a few bytes at times; meanwhile others are answered, and a whole image comes in."""
    jobs = make_spool()
    server = serve(jobs)
    names = [server.create(6) for _ in range(SLOW_CLIENTS)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in names]
        for name, client in zip(names, clients, strict=True):
            client.sendall(head(name, 6) + b"a")
        wait_for(lambda: server.ask("GET", "/cloudupload")[2].count(b"<state>receiving</state>") == SLOW_CLIENTS)
        threads = set(threading.enumerate())
        for piece in (b"b", b"c", b"d", b"e"):
            for client in clients:
                client.sendall(piece)
            assert server.ask("GET", "/")[2] == b'<hello name="Cloud Upload Server" />\n'
        image = noise(1, 3_000_000)
        whole = server.create(len(image))
        assert server.ask("PUT", f"/cloudupload/{whole}", image)[0] == "200 OK"
        assert set(threading.enumerate()) <= threads  # some of an earlier test may end meanwhile
        assert len(threads) < 40
        assert {jobs.read(name)[0].state for name in names} == {JobState.RECEIVING}
        for client in clients:
            client.sendall(b"f")
        assert {read_answer(client)[:15] for client in clients} == {b"HTTP/1.1 200 OK"}
    assert {jobs.file_path(name).read_bytes() for name in names} == {b"abcdef"}
    assert {jobs.read(name)[0].state for name in (*names, whole)} == {JobState.SCHEDULED}
