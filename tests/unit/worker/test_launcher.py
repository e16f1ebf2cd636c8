"""How the worker starts uploads, and which."""

import os
import resource
import signal
import stat

import pytest
from fakes.worker_bench import HOLD

from clouduploader.model.job import JobState
from clouduploader.store import spool
from clouduploader.util import processes

TELL = """
for argument; do echo "argument <$argument>"; done
echo "cwd $(pwd), files <$(ls -A)>"
echo "pid $$ $(ps -o ppid=,pgid=,sid= -p $$ | tr -s ' ')"
echo "stdin $(readlink /proc/$$/fd/0)"
echo "stdout $(readlink /proc/$$/fd/1)"
echo "stderr $(readlink /proc/$$/fd/2)"
echo "descriptors" $(ls /proc/self/fd)
grep -E '^Sig(Blk|Ign)' /proc/self/status
tr '\\0' '\\n' < /proc/$$/environ | sed 's/^/environment /'
"""


def lines_with(log, word):
    return [line.removeprefix(f"{word} ") for line in log.splitlines() if line.startswith(f"{word} ")]


def test_upload_is_started_as_obs_does_it(bench):
    bench.write_uploader(TELL + HOLD)
    bench.set(pass_environment="SPECIAL")
    bench.schedule("7", filename="a b.raw.xz", details="waiting to receive image")
    bench.start(LANG="C.UTF-8", HOME="/root", NOTIFY_SOCKET="/run/n", AWS_SECRET_ACCESS_KEY="s3cret", SPECIAL="yes")
    bench.wait_for(lambda: "environment SPECIAL" in bench.log("7"))
    job, log, directory = bench.job("7"), bench.log("7"), bench.jobs.directory
    assert (job.state, job.details, job.progress, job.try_) == (JobState.UPLOADING, None, None, None)
    assert lines_with(log, "argument") == [
        *["<tom>", "<ec2>", f"<{directory}/7.file>", f"<{directory}/7.data>", "<a b.raw.xz>", f"<{directory}/7.result>"]
    ]
    assert lines_with(log, "cwd") == [f"{directory}/7.dir, files <>"]
    pid, parent, group, session = lines_with(log, "pid")[0].split()
    assert (parent, group, session) == (str(job.pid),) * 3
    assert pid != parent
    assert lines_with(log, "stdin") == ["/dev/null"]
    assert lines_with(log, "stdout") == lines_with(log, "stderr") == [f"{directory}/7.log"]
    assert lines_with(log, "descriptors") == ["0 1 2 3"]  # 3 is what ls reads
    masks = dict(line.split() for line in log.splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk:"], 16) == 0
    assert [number for number in signal.valid_signals() if int(masks["SigIgn:"], 16) >> number - 1 & 1] == [
        signal.SIGPIPE
    ]
    assert set(lines_with(log, "environment")) == {
        f"PATH={os.environ['PATH']}",
        "LANG=C.UTF-8",
        "SPECIAL=yes",
        f"CLOUDUPLOADER_HOME={bench.config().home.value}",
        f"CLOUDUPLOADER_SPOOL={directory}",
    }
    assert processes.is_locked(bench.jobs.log_path("7"))
    assert stat.S_IMODE(bench.jobs.work_dir("7").stat().st_mode) == 0o750
    bench.release("7")
    bench.wait_for_end("7")
    assert bench.files() == [".worker.lock", "done"]


def test_upload_has_the_limit_that_the_worker_began_with(bench):
    """The server beside it raises its own afterwards."""
    bench.write_uploader("ulimit -Sn")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = (200, before[1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        bench.start()
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        bench.schedule("1")
        bench.wait_for_end("1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert bench.log("1") == "200\n"


def test_no_locale_is_added_where_there_is_none(bench):
    bench.write_uploader("tr '\\0' '\\n' < /proc/$$/environ | cut -d= -f1 | sort | paste -sd' '")
    bench.schedule("1")
    bench.start()
    bench.wait_for_end("1")
    assert bench.log("1") == "CLOUDUPLOADER_HOME CLOUDUPLOADER_SPOOL PATH\n"


@pytest.mark.parametrize(
    ("user", "filename"),
    [("-v", "--help"), ("list", "x"), ('a "b" &<c>', "a b'c.raw"), ("B\u00e4r", "\u2603.raw"), ("a\nb", "../../x")],
)
def test_arguments_are_passed_as_they_are(bench, user, filename):
    bench.write_uploader('printf "%s|%s|%s" "$#" "$1" "$5"')
    bench.schedule("1", user=user, filename=filename)
    bench.start()
    bench.wait_for_end("1")
    assert bench.log("1") == f"6|{user}|{filename}"


def test_job_without_a_filename_has_an_empty_argument(bench):
    bench.write_uploader('printf "%s|%s|%s" "$#" "$5" "$6"')
    bench.schedule("1", filename=None)
    bench.start()
    bench.wait_for_end("1")
    assert bench.log("1") == f"6||{bench.jobs.result_path('1')}"


def test_directory_and_result_of_an_earlier_try_are_gone_and_its_log_is_not(bench):
    bench.write_uploader('ls -A . "${6%/*}"')
    bench.schedule("1")
    bench.jobs.work_dir("1").mkdir()
    (bench.jobs.work_dir("1") / "old").touch()
    bench.jobs.result_path("1").write_text("old")
    bench.jobs.log_path("1").write_text("earlier\n")
    bench.start()
    assert bench.wait_for_end("1").details is None
    assert bench.log("1").startswith("earlier\n")
    assert "old" not in bench.log("1")
    assert "1.result" not in bench.log("1")


def test_oldest_goes_first_that_the_limits_allow(bench):
    bench.write_uploader(HOLD)
    for name, user in (("9", "tom"), ("10", "tom"), ("11", "tom"), ("12", "ann"), ("100", "bob"), ("13", "eve")):
        bench.schedule(name, user=user)
    bench.start()
    bench.wait_for_event("started", "13")
    assert [job for kind, job, _ in bench.events if kind == "started"] == ["9", "10", "12", "13"]
    assert {bench.job(name).state for name in ("11", "100")} == {JobState.SCHEDULED}
    bench.release("12")  # a slot for all: the third of tom has to wait, bob does not
    bench.wait_for_event("started", "100")
    assert bench.job("11").state is JobState.SCHEDULED
    bench.release("9")
    bench.wait_for_event("started", "11")
    for name in ("10", "11", "13", "100"):
        bench.release(name)
    for name in ("9", "10", "11", "12", "13", "100"):
        assert bench.wait_for_end(name).state is JobState.SUCCEEDED


def test_limits_are_settings_that_can_be_read_again(bench):
    bench.write_uploader(HOLD)
    bench.set(max_jobs=1)
    for name in ("1", "2"):
        bench.schedule(name)
    running = bench.start()
    bench.wait_for_event("started", "1")
    bench.set(max_jobs="many")
    running.reload()
    assert "max_jobs in [worker] is 'many'" in bench.wait_for_event("settings", None)
    bench.set(max_jobs=2)
    running.reload()
    bench.wait_for_event("started", "2")
    bench.release("1")
    bench.release("2")
    bench.wait_for_end("2")


@pytest.mark.parametrize(
    ("fields", "details"),
    [
        ({"user": None}, "the job has no user"),
        ({"user": ""}, "the job has no user"),
        ({"target": ""}, "the job has no target"),
        ({"data": None}, "the job has no target data"),
        ({"user": "u" * 200_000}, "user, target and filename are too long to start an upload with"),
    ],
)
def test_job_that_can_never_be_uploaded_fails_at_once(bench, fields, details):
    bench.write_uploader("echo started")
    bench.schedule("1", **fields)
    bench.start()
    job = bench.wait_for_end("1")
    assert (job.state, job.details) == (JobState.FAILED, details)
    assert bench.wait_for_event("failed", "1") == details
    assert bench.log("1") == ""


def test_damaged_record_is_told_once_and_stops_no_other(bench):
    bench.write_uploader("true")
    bench.jobs.job_path("1").write_text("<nonsense")
    bench.schedule("2")
    bench.start()
    bench.wait_for_end("2")
    assert "is damaged" in bench.wait_for_event("trouble", "1")
    bench.schedule("3")
    bench.wait_for_end("3")
    assert [kind for kind, job, _ in bench.events if job == "1"] == ["trouble"]


def test_jobs_that_are_not_there_yet_are_left_alone(bench):
    bench.write_uploader("true")
    bench.schedule("1", state=JobState.CREATED)
    bench.schedule("2", state=JobState.RECEIVING, pid=1)
    bench.schedule("3")
    bench.start()
    bench.wait_for_end("3")
    assert [bench.job(name).state for name in ("1", "2")] == [JobState.CREATED, JobState.RECEIVING]


def test_locked_job_is_tried_again(bench, monkeypatch):
    from clouduploader.worker import base

    monkeypatch.setattr(base, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(base, "RETRY_SECONDS", 0.1)
    bench.write_uploader("true")
    bench.schedule("1")
    bench.schedule("2")
    with spool.Spool(bench.jobs.directory).lock("1"):
        bench.start()
        bench.wait_for_end("2")
        assert "is locked by another process" in bench.wait_for_event("trouble", "1")
    assert bench.wait_for_end("1").state is JobState.SUCCEEDED


def test_record_that_cannot_be_written_leaves_the_job_and_executes_nothing(bench, monkeypatch):
    """As on a full disk: the supervisor is there already, and gets no byte."""
    from clouduploader.worker import base

    monkeypatch.setattr(base, "RETRY_SECONDS", 0.2)
    bench.write_uploader("echo started")
    bench.schedule("1")
    obstacle = bench.jobs.directory / ".1.new"  # what the record is written to beside its place
    obstacle.mkdir()
    bench.start()
    assert "can't be written" in bench.wait_for_event("trouble", "1")
    assert bench.job("1").state is JobState.SCHEDULED
    assert bench.log("1") == ""
    obstacle.rmdir()
    assert bench.wait_for_end("1").state is JobState.SUCCEEDED
    assert bench.log("1") == "started\n"
