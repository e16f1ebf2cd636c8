"""`clouduploader worker` as it is started by an administrator: signals, output, exit codes."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clouduploader import jobxml, spool
from clouduploader.job import Job, JobState

PROGRAM = Path(sys.executable).with_name("clouduploader")


@pytest.fixture
def place(tmp_path):
    """A home whose uploader waits for a file, and a spool."""
    for name in ("home", "spool"):
        (tmp_path / name).mkdir()
    uploader = tmp_path / "uploader"
    uploader.write_text('#!/bin/sh\nwhile [ ! -e "${3%/*/*}/go" ]; do sleep 0.05; done\nprintf ami-1 > "$6"\n')
    uploader.chmod(0o755)
    (tmp_path / "home/clouduploader.conf").write_text(f"[worker]\nprogram = {uploader}\n")
    return tmp_path


@pytest.fixture
def start(place):
    """Start a worker, and wait until it is ready."""
    started = []

    def start(*options, is_ready=True):
        child = subprocess.Popen(
            [PROGRAM, "--home", place / "home", "--spool", place / "spool", "worker", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(child)
        if is_ready:
            line = child.stdout.readline()
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z worker ready: at .*\n", line)
        return child

    yield start
    for child in started:
        with child:
            child.kill()


def schedule(place, **fields):
    jobs = spool.Spool(place / "spool")
    jobs.data_path("1").write_bytes(b"{}")
    jobs.file_path("1").write_bytes(b"image")
    job = Job(name="1", **{"state": JobState.SCHEDULED, "user": "tom", "target": "ec2", **fields})
    new_path = jobs.directory / ".1.test"
    new_path.write_bytes(jobxml.serialize(job))
    new_path.replace(jobs.job_path("1"))
    return jobs


def test_sigterm_hands_over_and_sigterm_with_drain_waits(place, start):
    jobs = schedule(place, user="t\x1b[31mom")
    child = start()
    assert re.search(r" job 1 started: user t\ufffd\[31mom, target ec2, process \d+\n$", child.stdout.readline())
    child.terminate()
    assert child.wait(30) == 0
    assert child.stdout.read().endswith(" worker left: these uploads go on: 1\n")
    child = start("--drain")
    assert " job 1 adopted: " in child.stdout.readline()
    child.terminate()
    (place / "go").touch()
    assert child.wait(30) == 0
    lines = child.stdout.read().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["job 1 succeeded: ami-1", "worker left: no upload runs"]
    assert jobs.read("1")[0].state is JobState.SUCCEEDED
    assert child.stderr.read() == ""


def test_second_sigterm_ends_a_drain(place, start):
    schedule(place)
    child = start("--drain")
    assert " job 1 started: " in child.stdout.readline()
    child.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 0
    (place / "go").touch()


def test_sighup_reads_the_settings_again(place, start):
    child = start()
    child.send_signal(signal.SIGHUP)
    assert child.stdout.readline().endswith(" worker settings: were read again\n")
    (place / "home/clouduploader.conf").write_text("[worker]\nmax_jobs = none\n")
    child.send_signal(signal.SIGHUP)
    assert " worker settings: the old ones stay: " in child.stdout.readline()


def test_second_worker_ends_with_75_and_one_line(place, start):
    start()
    child = start(is_ready=False)
    assert child.wait(30) == 75
    assert child.stderr.read() == (
        f"clouduploader: another worker works on the spool {place}/spool. "
        "Only one worker can work on a spool; end that one first.\n"
    )


def test_reader_of_the_output_that_goes_away_ends_nothing(place, start):
    jobs = schedule(place, state=JobState.CREATED)
    child = start()
    child.stdout.close()
    (place / "go").touch()
    schedule(place)
    while jobs.job_path("1").exists():
        assert child.poll() is None
    assert jobs.read("1")[0].state is JobState.SUCCEEDED
    child.terminate()
    assert child.wait(30) == 0


def test_unknown_user_is_refused(start):
    child = start("--user", "no such user", is_ready=False)
    assert child.wait(30) == 64
    assert child.stderr.read() == "clouduploader: there is no user no such user on this machine.\n"
