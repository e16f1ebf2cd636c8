import errno
import io
import os
import signal
import threading
import time
import warnings
from pathlib import Path

import pytest

from clouduploader.cluster.host import attempt as host_attempt
from clouduploader.cluster.host import directory
from clouduploader.cluster.host.attempt import Attempt, HostFacts
from clouduploader.cluster.host.task import upload
from clouduploader.errors import ExitCode
from clouduploader.util.service_log import ServiceLog
from tests.fakes.cluster_server import KEY, ClusterJob, FakeCluster
from tests.fakes.waiting import wait_for

IMAGE = b"disk" * 1000
SECRET = "made-up-secret"
WAITS = "print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture
def cluster():
    fake = FakeCluster()
    fake.jobs["7"] = ClusterJob(image=IMAGE, data={"key": SECRET}, secrets=[SECRET])
    yield fake
    fake.close()


@pytest.fixture
def job(cluster):
    return cluster.jobs["7"]


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def host(tmp_path, log, program):
    def host(text):
        return HostFacts(
            name="a", spool=tmp_path, program=program(text), environment={"PATH": os.defpath}, log=ServiceLog(log)
        )

    return host


@pytest.fixture
def run(cluster, host):
    def run(text, number=1):
        Attempt(host(text), cluster.client(), "7", number).run()

    return run


@pytest.fixture
def start(run):
    """Return a function that lets an attempt run in a thread, which is joined at the end."""
    threads = []

    def start(text):
        threads.append(threading.Thread(target=run, args=(text,)))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(30)


def pid_in(job):
    wait_for(lambda: job.log.endswith(b"\n"))
    return int(job.log)


def test_uploader_gets_image_and_data_and_the_server_what_it_gave(job, log, run, tmp_path):
    run(
        f"directory = os.environ['CLOUDUPLOADER_STATE'] + '/{KEY}'\n"
        "os.makedirs(directory + '/platform')\n"
        "open(directory + '/journal', 'w').write('{}\\n')\n"
        "open(directory + '/platform/a', 'w').write('a')\n"
        "print(ask(), operands[0], os.stat(operands[2]).st_size, open(operands[3]).read())\n"
        "open(operands[5], 'w').write('ami-1')"
    )
    assert job.end == (0, "ami-1")
    assert job.log == b'b\'k\' tom 4000 {"key": "made-up-secret", "clouduploader_secrets": ["made-up-secret"]}\n'
    assert job.journal == {"journal": b"{}\n", "platform/a": b"a"}
    assert SECRET not in log.getvalue()
    assert list((tmp_path / directory.NAME).iterdir()) == []


def test_secrets_are_in_no_file_and_no_environment(cluster, job, start, tmp_path):
    start(WAITS)
    pid = pid_in(job)
    for path in (tmp_path / directory.NAME).rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    for name in ("cmdline", "environ"):
        text = Path(f"/proc/{pid}/{name}").read_bytes()
        assert SECRET.encode() not in text
        assert b"made-up-token" not in text
    job.is_stopping.set()
    cluster.wait_for(lambda: job.end)
    assert job.end == (-signal.SIGTERM, None)


def test_uploader_of_a_lost_lease_gets_no_sigterm(job, log, start, is_running, tmp_path):
    start("signal.signal(signal.SIGTERM, lambda *_: print('cleans up')); " + WAITS)
    pid = pid_in(job)
    job.attempt = 2
    wait_for(lambda: "event=lost" in log.getvalue())
    assert not is_running(pid)
    assert b"cleans up" not in job.log
    assert job.end is None
    assert list((tmp_path / directory.NAME).iterdir()) == []


def test_uploader_is_killed_when_the_server_is_silent(cluster, job, log, start, is_running):
    cluster.lease_seconds = 3
    start(WAITS)
    pid = pid_in(job)
    cluster.is_frozen.set()
    wait_for(lambda: not is_running(pid))
    wait_for(lambda: "event=lost" in log.getvalue())
    cluster.is_frozen.clear()


def test_uploader_that_does_not_stop_is_killed(cluster, job, start):
    cluster.grace_seconds = 0.1
    start("signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS)
    pid_in(job)
    job.is_stopping.set()
    cluster.wait_for(lambda: job.end)
    assert job.end == (-signal.SIGKILL, None)


def test_upload_whose_journal_the_server_takes_no_more_of_fails(cluster, job, run):
    cluster.failures = {"journal": [422, 422]}
    run(
        f"directory = os.environ['CLOUDUPLOADER_STATE'] + '/{KEY}'\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('cleans up'))\n"
        "os.makedirs(directory)\n"
        "open(directory + '/journal', 'w').write('{}\\n')\n"
        "ask()"
    )
    code, result = job.end
    assert (code, result) == (76, f"the server {cluster.url} refused: made up (HTTP 422)")
    assert job.log.endswith(f"Error: {result}\n".encode())
    assert b"cleans up" not in job.log


def test_upload_ends_whatever_the_server_takes_no_more_of(cluster, job, run):
    cluster.failures = {"log": [413] * 9, "journal": [400] * 9}
    run(
        f"directory = os.environ['CLOUDUPLOADER_STATE'] + '/{KEY}'\n"
        "os.makedirs(directory)\n"
        "open(directory + '/journal', 'w').write('{}\\n')\n"
        "ask()"
    )
    assert job.end == (76, f"the server {cluster.url} refused: made up (HTTP 400)")


def test_upload_whose_journal_can_not_be_read_fails(job, run, is_running):
    run(
        f"os.makedirs(os.environ['CLOUDUPLOADER_STATE'] + '/{KEY}/platform/directory')\n"
        "print(os.getpid(), flush=True)\n"
        "ask()"
    )
    code, result = job.end
    assert code == ExitCode.LOCAL_IO
    assert "can't be read" in result
    assert not is_running(int(job.log.split()[0]))


def test_lease_runs_out_of_a_job_whose_end_the_server_does_not_take(cluster, job, log, run):
    cluster.failures = {"done": [403] * 9}
    run("")
    assert "event=lost" in log.getvalue()
    assert job.end is None


def test_journal_of_the_attempt_before_is_there(job, run):
    job.journal = {"journal": b"{}\n", "platform/a": b"abc"}
    run(f"print(open(os.environ['CLOUDUPLOADER_STATE'] + '/{KEY}/platform/a').read())")
    assert job.log == b"abc\n"
    assert job.journal == {"journal": b"{}\n", "platform/a": b"abc"}


def test_attempt_that_is_not_the_newest_does_nothing(job, log, run, tmp_path):
    run("", 2)
    assert "event=refused" in log.getvalue()
    assert not (tmp_path / directory.NAME).exists()
    assert job.claim is None


def test_job_whose_image_does_not_come_is_given_back(cluster, job, log, run):
    cluster.failures = {"image": [403]}
    run("")
    assert job.released
    assert "event=released" in log.getvalue()


@pytest.mark.parametrize("fault", ["descriptors", "threads"])
def test_job_for_whose_uploader_something_is_lacking_is_given_back(job, log, run, monkeypatch, fault):
    start = threading.Thread.start

    def start_some(thread):
        if thread.name == "beats":
            raise RuntimeError("can't start new thread")
        start(thread)

    if fault == "threads":
        monkeypatch.setattr(threading.Thread, "start", start_some)
    else:
        monkeypatch.setattr(os, "eventfd", no_descriptor)
    run("")
    assert "started" in job.released
    assert "event=released" in log.getvalue()


def no_descriptor(*_arguments):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_uploader_of_a_killed_job_gets_one_sigterm_though_the_server_is_slow(cluster, job, log, start, tmp_path):
    cluster.held = {"log": threading.Event()}
    start(
        f"signal.signal(signal.SIGTERM, lambda *_: open({str(tmp_path / 'signals')!r}, 'a').write('s'))\n"
        "print('line', flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'end')!r}): time.sleep(0.01)"
    )
    wait_for(lambda: any(path.endswith("/log") for path, *_ in cluster.requests))
    job.is_stopping.set()
    wait_for((tmp_path / "signals").exists)
    assert "event=trouble" not in log.getvalue()  # as it would be once the log was given up
    cluster.held["log"].set()
    cluster.wait_for(lambda: job.log)
    (tmp_path / "end").touch()
    cluster.wait_for(lambda: job.end)
    assert (tmp_path / "signals").read_text() == "s"


def test_server_that_fails_is_asked_again(cluster, job, log, run, monkeypatch):
    monkeypatch.setattr(host_attempt, "PAUSE_SECONDS", 0.05)
    cluster.failures = {"claim": [503], "log": [500], "done": [503]}
    run("print('line')")
    assert (job.log, job.end) == (b"line\n", (0, None))
    assert log.getvalue().count("event=trouble") == 2  # the same words are said once


def test_message_of_another_server_is_left(cluster, host, log):
    upload(host(""), cluster.client(), "7", 1, "https://other.example/" + "x" * 10**4)
    assert "event=refused" in log.getvalue()
    assert len(log.getvalue()) < 1000
    assert cluster.requests == []


def test_host_that_slept_too_long_kills_its_uploader_first(cluster, job, host, is_running, tmp_path):
    cluster.lease_seconds = 3
    facts = host("signal.signal(signal.SIGTERM, lambda *_: print('cleans up')); " + WAITS)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        attempt = os.fork()
    if attempt == 0:
        Attempt(facts, cluster.client(), "7", 1).run()
        os._exit(0)
    pid = pid_in(job)
    os.kill(attempt, signal.SIGSTOP)
    os.kill(pid, signal.SIGSTOP)
    beats = job.beats
    time.sleep(3)
    os.kill(pid, signal.SIGCONT)
    os.kill(attempt, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(attempt, 0)[1]) == 0
    assert not is_running(pid)
    assert (job.beats - beats, job.end) == (0, None)
    assert b"cleans up" not in job.log
    assert list((tmp_path / directory.NAME).iterdir()) == []
