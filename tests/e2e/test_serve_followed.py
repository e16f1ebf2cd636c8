"""Our own server as a process, with our own commands as its clients: it is killed, and they do not mind."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clouduploader.model.job import Job, JobState
from clouduploader.store import spool

PROGRAM = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only a failing test waits that long
JOB = Job(name="", state=JobState.CREATED, user="tom", target="ec2", filename="a.raw", size=5)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts one of our commands; what runs at the end of the test is killed."""
    (tmp_path / "home").mkdir()
    processes = []

    def start(*words, **channels):
        command = [PROGRAM, "--home", tmp_path / "home", "--spool", tmp_path / "spool", *words]
        processes.append(subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, **channels))
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


@pytest.fixture
def serve(start):
    """Return a function that starts `serve`, and gives the process and where it listens."""

    def serve(listen):
        process = start("serve", "--listen", listen, stderr=subprocess.PIPE)
        for line in process.stderr:
            if found := re.search(r"url=http://(\S+)", line):
                return process, found[1]
        raise AssertionError(f"serve ended with {process.wait()}")

    return serve


@pytest.fixture
def jobs(tmp_path):
    """A spool with the job 1, to be uploaded."""
    (tmp_path / "spool").mkdir()
    jobs = spool.Spool(tmp_path / "spool")
    jobs.create(JOB, targetdata=b"{}")
    with jobs.receive("1") as reception:
        reception.write(b"image")
        reception.finish()
    return jobs


def test_log_is_followed_past_the_death_of_the_server(jobs, start, serve, monkeypatch):
    with jobs.open_log("1") as log:
        uploader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True)
    with uploader:
        with jobs.lock("1") as locked:
            locked.replace(dataclasses.replace(locked.job, state=JobState.UPLOADING, pid=uploader.pid))
        server, address = serve("127.0.0.1:0")
        monkeypatch.setenv("CLOUDUPLOADER_SERVER", f"http://{address}")
        monkeypatch.delenv("CLOUDUPLOADER_SPOOL", raising=False)
        follower = subprocess.Popen(
            [PROGRAM, "log", "--follow", "1"],
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with follower:
            uploader.stdin.write(b"one\n")
            uploader.stdin.flush()
            assert follower.stdout.readline() == b"one\n"

            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            uploader.stdin.write(b"two\nthr")
            uploader.stdin.flush()
            serve(address)
            assert follower.stdout.readline() == b"two\n"
            uploader.stdin.write(b"ee\n")
            with jobs.lock("1") as locked:  # before the end, which the server's worker would see
                uploader.stdin.close()
                uploader.wait()
                locked.archive(locked.job.ended(JobState.SUCCEEDED, "ami-1"))

            rest, told = follower.communicate(timeout=PATIENCE_SECONDS)
    assert (follower.returncode, rest, told) == (0, b"three\n", b"job 1 succeeded: ami-1\n")
