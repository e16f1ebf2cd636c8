"""Uploads of an earlier worker: adopted, ended, or left alone."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from fakes.worker_bench import HOLD

from clouduploader.errors import MissingFileError
from clouduploader.model.job import Job, JobState
from clouduploader.store import journal
from clouduploader.util import privileges, processes
from clouduploader.worker import base, supervisor, tracked
from clouduploader.worker import outcome as worker_outcome

NOBODY = 65534


def as_user_nobody(look):
    """Fork, give up root's rights, and return whether something was found."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            privileges.become("nobody")
            os._exit(look() is not None)
        os._exit(70)
    return {0: False, 1: True}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def test_uploads_go_on_without_a_worker_and_end_their_jobs(bench):
    bench.write_uploader(f'{HOLD}\nprintf ami-1 > "$6"')
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("started", "1")
    bench.stop()
    assert bench.events[-1] == ("left", None, "these uploads go on: 1")
    bench.release("1")
    job = bench.wait_for_end("1")
    assert (job.state, job.details) == (JobState.SUCCEEDED, "ami-1")
    bench.wait_for(lambda: not tracked.supervisors(bench.jobs))
    assert bench.files() == [".worker.lock", "done"]


def test_child_that_proc_does_not_show_yet_is_tracked(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as child:
        upload = tracked.track_started(Job(name="1", state=JobState.UPLOADING, pid=child.pid))
        assert not upload.has_ended()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert upload.has_ended()
        upload.close()


def test_uploads_of_an_earlier_worker_are_adopted_and_counted(bench):
    bench.write_uploader(HOLD)
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("started", "1")
    bench.stop()
    bench.set(max_jobs_per_user=1)
    bench.schedule("2")
    bench.schedule("3", user="ann")
    bench.start()
    bench.wait_for_event("adopted", "1")
    bench.wait_for_event("started", "3")
    assert bench.job("2").state is JobState.SCHEDULED
    bench.release("1")
    bench.wait_for_event("succeeded", "1")
    bench.wait_for_event("started", "2")
    assert [job for kind, job, _ in bench.events if kind == "started"] == ["1", "3", "2"]
    for name in ("2", "3"):
        bench.release(name)
        bench.wait_for_end(name)


def test_exit_code_of_an_adopted_upload_is_unknown_and_its_duration_is_not(bench):
    bench.write_uploader(f"{HOLD}; exit 3")
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("started", "1")
    bench.stop()
    time.sleep(0.3)
    bench.start()
    bench.wait_for_event("adopted", "1")
    bench.release("1")
    bench.wait_for_event("failed", "1")
    ((_, _, end),) = bench.ends
    assert end.exit_code is None
    assert end.seconds >= 0.3


def test_job_whose_upload_had_not_begun_is_scheduled_again(bench, monkeypatch):
    monkeypatch.setattr(base, "RETRY_SECONDS", 0.1)
    bench.write_uploader("echo started")
    bench.schedule_uploading()
    bench.jobs.prepared_dir("1").mkdir()
    bench.start()
    assert bench.wait_for_event("rescheduled", "1") == "its upload had not begun"
    assert bench.wait_for_end("1").state is JobState.SUCCEEDED
    assert bench.log("1") == "started\n"


def test_start_that_comes_to_nothing_is_not_repeated_at_once(bench, monkeypatch, tmp_path):
    """As in the middle of an upgrade of Python."""
    broken = tmp_path / "supervisor.py"
    broken.write_text("raise ImportError")
    monkeypatch.setattr(base, "RETRY_SECONDS", 3600)
    bench.write_uploader("true")
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "__file__", str(broken))
        bench.schedule("1")
        bench.start()
        bench.wait_for_event("rescheduled", "1")
    bench.schedule("2")
    bench.wait_for_end("2")
    assert bench.job("1").state is JobState.SCHEDULED
    assert [event[:2] for event in bench.events].count(("started", "1")) == 1


@pytest.mark.parametrize(("result", "more"), [(None, ""), ("", ""), ("ami-1", "; it had written: ami-1")])
def test_interrupted_upload_is_failed_and_not_started_again(bench, result, more):
    bench.write_uploader("echo started")
    bench.schedule_uploading()
    bench.jobs.work_dir("1").mkdir()
    if result is not None:
        bench.jobs.result_path("1").write_text(result)
    bench.start()
    job = bench.wait_for_end("1")
    assert (job.state, job.details) == (JobState.FAILED, worker_outcome.INTERRUPTED + more)
    bench.wait_for_event("cleaned", "1")
    assert "started" not in bench.log("1")


@pytest.mark.parametrize(
    ("outcome", "state", "details"),
    [
        (journal.AttemptOutcome.SUCCEEDED, JobState.SUCCEEDED, "ami-1"),
        (journal.AttemptOutcome.FAILED, JobState.FAILED, "no such role"),
        (
            journal.AttemptOutcome.STOPPED,
            JobState.FAILED,
            f"{worker_outcome.INTERRUPTED}; it had written: no such role",
        ),
        (None, JobState.FAILED, f"{worker_outcome.INTERRUPTED}; it had written: no such role"),
    ],
)
def test_journal_tells_the_end_that_no_worker_saw(bench, tmp_path, outcome, state, details):
    bench.write_uploader("echo started")
    bench.schedule_uploading()
    bench.jobs.work_dir("1").mkdir()
    bench.jobs.result_path("1").write_text("no such role")
    key = "ab" * 16
    bench.jobs.log_path("1").write_text(f"Start uploading image a.\nJournal: {key}\n")
    bench.write_journal(key, "1", outcome, tmp_path)
    bench.start()
    job = bench.wait_for_end("1")
    assert (job.state, job.details) == (state, details)


def test_journal_of_another_job_tells_nothing(bench, tmp_path):
    bench.schedule_uploading()
    bench.jobs.log_path("1").write_text(f"Journal: {'ab' * 16}\n")
    bench.write_journal("ab" * 16, "2", journal.AttemptOutcome.SUCCEEDED, tmp_path)
    bench.write_uploader("true")
    bench.start()
    assert bench.wait_for_end("1").details == worker_outcome.INTERRUPTED


def test_pid_of_another_process_is_no_upload(bench):
    bench.write_uploader("true")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        bench.schedule_uploading(pid=stranger.pid)
        bench.start()
        assert bench.wait_for_end("1").details == worker_outcome.INTERRUPTED
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users, and only root can be both")
@pytest.mark.parametrize("is_locked", [False, True])
def test_pid_of_another_user_is_believed_if_the_log_is_locked(bench, is_locked, let_all_enter):
    """As after a reboot: to a worker that is not root, it can't be seen what the process does."""
    let_all_enter(bench.jobs.directory)
    job = bench.schedule_uploading(pid=os.getpid())
    os.chown(bench.jobs.directory, NOBODY, NOBODY)  # whose worker it is
    with bench.jobs.open_log("1") as log:
        if not is_locked:
            log.close()
        seen = as_user_nobody(lambda: tracked.track_adopted(bench.jobs, job))
    assert seen == is_locked


def test_job_whose_log_a_hidden_process_holds_is_not_lost(bench, monkeypatch):
    """The test holds it, which the worker, a thread of the same process, does not look at."""
    monkeypatch.setattr(base, "RETRY_SECONDS", 0.1)
    bench.schedule_uploading()
    bench.write_uploader("true")
    with bench.jobs.open_log("1"):
        bench.start()
        assert "a process that can't be seen" in bench.wait_for_event("trouble", "1")
        assert bench.job("1").state is JobState.UPLOADING
    assert bench.wait_for_end("1").details == worker_outcome.INTERRUPTED


def test_supervisor_of_another_user_is_none(bench):
    """Every user can start a process of that name."""
    words = ["python", supervisor.__file__, os.fspath(bench.jobs.directory)]
    code = "import os, sys; os.setuid(65534) if os.geteuid() == 0 else 0; print(flush=True); sys.stdin.read()"
    with contextlib.ExitStack() as stack:
        for more in (["1"], []):
            child = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", code, *words[1:], *more], stdin=subprocess.PIPE, stdout=-1)
            )
            child.stdout.readline()
        found = tracked.supervisors(bench.jobs)
        assert found == {}


def test_what_an_adopted_upload_leaves_in_the_background_is_not_waited_for(bench):
    bench.write_uploader(f"{HOLD}\nsleep 60 & echo $!")
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("started", "1")
    bench.wait_for(lambda: bench.jobs.work_dir("1").exists())
    bench.stop()
    bench.start()
    bench.wait_for_event("adopted", "1")
    bench.release("1")
    bench.wait_for_event("succeeded", "1")
    os.kill(int(bench.log("1")), signal.SIGKILL)


def test_live_upload_is_not_started_again_whatever_its_record_says(bench):
    bench.write_uploader(f"echo started\n{HOLD}")
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: bench.log("1"))
    bench.write_record(dataclasses.replace(bench.job("1"), state=JobState.SCHEDULED, pid=None))
    bench.schedule("2")
    bench.wait_for_event("started", "2")
    assert [event[:2] for event in bench.events].count(("started", "1")) == 1
    for name in ("1", "2"):
        bench.release(name)
        bench.wait_for_end(name)


def test_live_upload_is_not_taken_for_killed_because_its_record_is_damaged(bench):
    bench.write_uploader(f'{HOLD}\nprintf ami-1 > "$6"')
    bench.set(kill_grace_seconds=1)
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("started", "1")
    record = bench.job("1")
    path = bench.jobs.directory / ".1.test"
    path.write_bytes(b"<clouduploadjob")
    path.replace(bench.jobs.job_path("1"))
    bench.wait_for_event("trouble", "1")
    bench.schedule("2")
    bench.wait_for_event("started", "2")  # the worker has looked around meanwhile
    time.sleep(1.1)
    bench.release("2")
    bench.wait_for_event("succeeded", "2")
    assert not any(kind == "forced" for kind, _, _ in bench.events)
    bench.write_record(record)
    bench.release("1")
    assert bench.wait_for_end("1").details == "ami-1"


def test_uploader_whose_supervisor_was_killed_is_waited_for(bench):
    """No second upload beside the first, and no end before its own."""
    bench.write_uploader(f'{HOLD}\nprintf ami-1 > "$6"')
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: bench.jobs.work_dir("1").exists())
    pid = bench.job("1").pid
    bench.wait_for(lambda: len([found for found in processes.all_processes().values() if found.group == pid]) > 1)
    os.kill(pid, signal.SIGKILL)
    bench.wait_for_event("adopted", "1")
    assert bench.job("1").state is JobState.UPLOADING
    bench.release("1")
    assert bench.wait_for_end("1").details == f"{worker_outcome.INTERRUPTED}; it had written: ami-1"


def test_upload_by_hand_is_left_alone(bench, tmp_path):
    bench.write_uploader("true")
    bench.schedule_uploading()
    bench.jobs.file_path("1").unlink()
    bench.jobs.file_path("1").symlink_to(tmp_path / "image")
    bench.schedule("2")
    bench.start()
    bench.wait_for_end("2")
    assert bench.job("1").state is JobState.UPLOADING
    assert not any(job == "1" for _, job, _ in bench.events)


def test_upload_by_hand_that_is_over_is_archived(bench, tmp_path):
    """The process that did it could not, or was killed in between."""
    bench.write_uploader("true")
    bench.schedule_uploading()
    bench.jobs.file_path("1").unlink()
    bench.jobs.file_path("1").symlink_to(tmp_path / "image")
    bench.jobs.log_path("1").write_text(f"Journal: {'ab' * 16}\n")
    bench.write_journal("ab" * 16, "1", journal.AttemptOutcome.SUCCEEDED, tmp_path)
    bench.start()
    assert (bench.wait_for_end("1").state, bench.job("1").details) == (JobState.SUCCEEDED, "ami-1")


def test_spool_that_is_moved_away_ends_the_worker(bench):
    bench.write_uploader("true")
    bench.start()
    bench.jobs.directory.rename(bench.jobs.directory.with_name("elsewhere"))
    with pytest.raises(MissingFileError, match="was removed"):
        bench.join()
