"""The supervisor by itself, without its worker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.worker_bench import NO_PID

from clouduploader.model.job import JobState
from clouduploader.worker import supervisor

NO_FORK = """
import errno, os, runpy, sys
def fork():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
os.fork = fork
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def start_supervisor(bench):
    """Start a supervisor for the job 1 as the worker does; its uploader writes `started`."""
    started = []

    def start(code=None):
        bench.write_uploader("echo started")
        jobs = bench.schedule("1") and bench.jobs
        jobs.prepared_dir("1").mkdir()
        words = [jobs.directory, "1", "5", "60", bench.config().worker["program"]]
        words += ["tom", "ec2", jobs.file_path("1"), jobs.data_path("1"), "a", jobs.result_path("1")]
        with jobs.open_log("1") as log:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", *(("-c", code) if code else ()), supervisor.__file__, *words],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env={"PATH": os.defpath},
            )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        with child:
            child.kill()


def caught_by(pid):
    """The signals that a process has handlers for."""
    with Path(f"/proc/{pid}/status").open() as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))
    return [number for number in signal.valid_signals() if mask >> number - 1 & 1]


def test_supervisor_without_the_byte_executes_nothing(bench, start_supervisor):
    child = start_supervisor()
    child.stdin.close()
    assert child.wait(30) == 0
    assert bench.log("1") == ""
    assert bench.jobs.prepared_dir("1").exists()


def test_supervisor_that_was_killed_before_the_byte_executes_nothing(bench, start_supervisor):
    child = start_supervisor()
    bench.wait_for(lambda: signal.SIGTERM in caught_by(child.pid))
    os.killpg(child.pid, signal.SIGTERM)
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait(30) == 0
    assert bench.log("1") == ""
    assert bench.jobs.prepared_dir("1").exists()


def test_supervisor_that_may_start_no_process_leaves_the_job_to_be_started_again(bench, start_supervisor):
    child = start_supervisor(NO_FORK)
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait(30) == 1
    assert bench.log("1").endswith("BlockingIOError: [Errno 11] Resource temporarily unavailable\n")
    assert bench.jobs.prepared_dir("1").exists()


def test_supervisor_of_a_job_that_was_archived_executes_nothing(bench, start_supervisor):
    child = start_supervisor()
    bench.jobs.prepared_dir("1").rmdir()
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait(30) == 0
    assert bench.log("1") == ""


def test_supervisor_leaves_a_record_alone_that_is_not_its_own(bench, start_supervisor):
    child = start_supervisor()
    bench.schedule_uploading(pid=NO_PID)
    child.stdin.write(b"\n")
    child.stdin.close()
    assert child.wait(30) == 0
    assert bench.log("1") == "started\n"
    assert (bench.job("1").state, bench.job("1").pid) == (JobState.UPLOADING, NO_PID)
