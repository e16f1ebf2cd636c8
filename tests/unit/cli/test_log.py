import signal
import subprocess
import sys

import pytest

from clouduploader.model.job import JobState

LOG = b"Start uploading image a.raw.xz.\nPhase: upload\nCreated instance i-1 in here.\nb\xff\x1b[31m\tend\n"

PROGRAM = [sys.executable, "-c", "import sys; from clouduploader.cli.main import main; sys.exit(main())"]


def test_log_is_raw_in_a_pipe(jobs, make_job, run):
    make_job(jobs, "7", log=LOG)
    assert run("log", "7") == (0, LOG.decode("utf-8", "surrogateescape"), "")
    assert run("log", "7", "-n", "1")[1] == "b\udcff\x1b[31m\tend\n"


def test_log_is_clean_on_a_terminal(jobs, make_job, show):
    make_job(jobs, "7", log="ä\r\n\x1b[2Jb\rc".encode() + b"\xff", user="x")
    assert show("log", "7") == "ä\n\\x1b[2Jb\\rc\ufffd"


@pytest.mark.parametrize(
    ("state", "expected"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 76), (JobState.UPLOADING, 0)]
)
def test_log_ends_with_the_outcome_of_the_job(state, expected, jobs, make_job, run, run_json):
    make_job(jobs, "7", state=state, details="why", log=b"a\xff\n")
    assert run("log", "7")[0] == expected
    assert run_json("log", "7") == (
        expected, {"job": "7", "state": state, "details": "why", "log": "a\ufffd\n"},
    )  # fmt: skip


def test_followed_log_tells_the_outcome(jobs, make_job, run):
    make_job(jobs, "7", state=JobState.FAILED, details="quota\x85exceeded", log=b"a\n")
    assert run("log", "-f", "7") == (76, "a\n", "job 7 failed: quota\\x85exceeded\n")
    assert run("--quiet", "log", "-f", "7") == (76, "a\n", "")
    assert run("log", "-f", "7", "--json")[0] == 64


def test_followed_log_can_be_interrupted(jobs, home, make_job):
    make_job(jobs, "7", log=b"a\n")
    options = ["--home", home, "--spool", jobs.directory, "log", "-f", "7"]
    with subprocess.Popen([*PROGRAM, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"a\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
        assert b"Traceback" not in child.stderr.read()


def test_log_of_a_reader_that_goes_away_is_no_error(jobs, home, make_job):
    make_job(jobs, "7", log=b"line\n" * 1_000_000)
    options = ["--home", home, "--spool", jobs.directory, "log", "7"]
    with subprocess.Popen([*PROGRAM, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(20) == 141
        assert child.stderr.read() == b""


def test_log_of_an_unknown_job_is_no_input(run):
    code, out, err = run("log", "../7")
    assert (code, out) == (66, "")
    assert err == "clouduploader: there is no job '../7'. Jobs are named by numbers.\n"
