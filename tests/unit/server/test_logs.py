"""Logs that are followed: by many, slowly, to their end, and out of any range."""

import contextlib
import threading
import time

import pytest

from clouduploader.model.job import JobState
from clouduploader.server import logs

FOLLOWERS = 300


def ask(client, target):
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: obs\r\n\r\n".encode())


def read_until(client, text):
    got = b""
    while text not in got:
        piece = client.recv(65_536)
        assert piece, got
        got += piece
    return got


def end(jobs, name):
    with jobs.lock(name) as locked:
        locked.archive(locked.job.ended(JobState.SUCCEEDED, None))


def append(jobs, name, text):
    with jobs.log_path(name).open("ab") as log:
        log.write(text)


def test_followers_of_a_log_need_no_threads_and_get_all_of_it(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", log=b"begun\n", pid=1)
    server = serve(jobs)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(FOLLOWERS)]
        threads = set(threading.enumerate())
        for client in clients:
            ask(client, "/cloudupload/1/_log")
        for client in clients:
            read_until(client, b"begun\n")
        append(jobs, "1", b"more\n")
        for client in clients:
            read_until(client, b"more\n")
        assert set(threading.enumerate()) <= threads  # some of an earlier test may end meanwhile
        append(jobs, "1", b"the end\n")
        end(jobs, "1")
        for client in clients:
            assert b"the end\n" in read_until(client, b"\r\n0\r\n\r\n")


def test_followers_of_a_killed_job_see_its_clean_up_to_its_end(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.UPLOADING)
    server = serve(jobs)
    with server.connect() as client, jobs.open_log("1") as log:
        log.write(b"begun\n")
        ask(client, "/cloudupload/1/_log")
        read_until(client, b"begun\n")
        assert server.ask("POST", "/cloudupload/1?cmd=kill")[0] == "200 OK"
        assert server.ask("GET", "/cloudupload/1/_log")[2] == b"begun\n"  # a later request does not wait, as in OBS
        time.sleep(2 * logs.POLL_SECONDS)  # it has seen the end: whatever that takes, the rest must come
        log.write(b"cleaning up\n")
        read_until(client, b"cleaning up\n")
        log.write(b"done\n")
        log.close()
        assert read_until(client, b"\r\n0\r\n\r\n").endswith(b"done\n\r\n0\r\n\r\n")


def test_follower_goes_on_with_the_log_that_took_the_place_of_the_first(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.UPLOADING)
    server = serve(jobs)
    with server.connect() as client, jobs.open_log("1") as log:  # whose writer lives, and does not work on the job
        log.write(b"begun\n")
        ask(client, "/cloudupload/1/_log")
        read_until(client, b"begun\n")
        with jobs.open_log("1") as another:
            another.write(b"once more\n")
            read_until(client, b"once more\n")
            end(jobs, "1")
            read_until(client, b"0\r\n\r\n")


def test_follower_waits_for_a_log_until_the_job_is_over(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.CREATED)
    make_job(jobs, "2", state=JobState.CREATED)
    server = serve(jobs)
    with server.connect() as first, server.connect() as second:
        ask(first, "/cloudupload/1/_log")
        ask(second, "/cloudupload/2/_log")
        append(jobs, "1", b"begun\n")
        make_job(jobs, "1", state=JobState.UPLOADING)
        read_until(first, b"begun\n")
        end(jobs, "2")
        assert read_until(second, b"</status>").startswith(b"HTTP/1.1 400 ")


def test_nostream_at_the_end_waits_for_the_next_bytes_only(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", log=b"begun\n")
    server = serve(jobs)
    with server.connect() as client:
        ask(client, "/cloudupload/1/_log?nostream=1&start=6")
        time.sleep(0.05)  # it waits already, or will find the bytes at once: both must do
        append(jobs, "1", b"more\n")
        assert read_until(client, b"\r\n0\r\n\r\n").endswith(b"5\r\nmore\n\r\n0\r\n\r\n")
    assert server.ask("GET", "/cloudupload/1/_log?nostream=1&start=0")[2] == b"begun\nmore\n"


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [("start=-3", "200", b"789"), ("start=-99", "200", b"0123456789"), ("start=2&end=4", "200", b"23"),
     ("start=4&end=2", "200", b""), ("start=10", "200", b""), ("start=11", "400", b"start out of range: 11"),
     (f"start={'9' * 6000}", "400", b"start out of range"), (f"start=-{'9' * 6000}", "200", b"0123456789"),
     (f"end={'9' * 6000}", "200", b"0123456789"), (f"start={'0' * 6000}1", "200", b"123456789"),
     ("start=1e3", "400", b"not a number: '1e3'"), ("end=-1", "400", b"not a number: '-1'"),
     ("start=", "400", b"number is empty"), ("nostream=yes", "400", b"not boolean"),
     ("start=1&start=2", "400", b"parameter 'start' set multiple times")],
)  # fmt: skip
@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.UPLOADING])
def test_range_of_a_log(make_spool, make_job, serve, state, query, status, text):
    jobs = make_spool()
    make_job(jobs, "1", state=state, log=b"0123456789")
    server = serve(jobs)
    if state is JobState.UPLOADING and query == "start=10":
        query += "&end=10"  # else it waits
    if state is JobState.UPLOADING and "nostream" not in query:
        query += "&nostream=1"
    answer = server.ask("GET", f"/cloudupload/1/_log?{query}")
    assert answer[0].startswith(status)
    assert text == answer[2] if status == "200" else text in answer[2]


def test_log_of_a_follower_that_leaves_is_closed(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", log=b"begun\n")
    server = serve(jobs)
    with server.connect() as client:
        ask(client, "/cloudupload/1/_log")
        read_until(client, b"begun\n")
        assert b"/cloudupload/1/_log" in server.ask("GET", "/ajaxstatus")[2]
    deadline = time.monotonic() + 60
    while b"/cloudupload/1/_log" in server.ask("GET", "/ajaxstatus")[2]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_client_that_takes_no_answer_is_dropped(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", log=bytes(30_000_000))
    server = serve(jobs, idle_seconds="1")
    with server.connect() as client:
        ask(client, "/cloudupload/1/_log")
        assert client.recv(1)  # and no more
        deadline = time.monotonic() + 60
        while b"/cloudupload/1/_log" in server.ask("GET", "/ajaxstatus")[2]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
