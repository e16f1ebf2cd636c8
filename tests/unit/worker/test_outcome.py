"""Records of jobs whose upload ends: by itself, after another try, by a kill."""

import os
import re
import signal
import time

import pytest
from fakes.worker_bench import HOLD

from clouduploader.jobs import kill as jobs_kill
from clouduploader.model.job import JobState
from clouduploader.store import config
from clouduploader.util import processes
from clouduploader.worker import tracked


@pytest.mark.parametrize(
    ("script", "state", "details"),
    [
        ("exit 0", "succeeded", None),
        (': > "$6"', "succeeded", ""),
        ('printf "ami-1" > "$6"', "succeeded", "ami-1"),
        ('printf "a\\nb\\n" > "$6"', "succeeded", "a\nb\n"),
        ("exit 3", "failed", "exit status 3"),
        (': > "$6"; exit 64', "failed", "exit status 64"),
        ('printf 0 > "$6"; exit 5', "failed", "exit status 5"),
        ('printf "no such role" > "$6"; exit 77', "failed", "no such role"),
        ("exit 143", "failed", "ended by SIGTERM"),
        ("kill -9 $$", "failed", "ended by SIGKILL"),
        ("kill -11 $$", "failed", "ended by SIGSEGV"),
        ('printf "\\033[31mred \\377" > "$6"', "succeeded", "\ufffd[31mred \ufffd"),
    ],
)
def test_exit_code_and_result_make_state_and_details(bench, script, state, details):
    """As the reference has it of OBS's worker, but for signals, and for what would break the XML."""
    bench.write_own("true")
    bench.write_uploader(script)
    bench.schedule("1")
    bench.start()
    job = bench.wait_for_end("1")
    assert (job.state, job.details, job.pid) == (state, details, None)
    assert bench.wait_for_event(state, "1") == (details or "")
    bench.wait_for(lambda: bench.files() == [".worker.lock", "done"])


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        ("exit 0", "succeeded", 0),
        ('printf "no such role" > "$6"; exit 77', "failed", 77),
        ("exit 75", "waiting", 75),
        ("kill -9 $$", "failed", 137),
    ],
)
def test_exit_code_and_duration_are_told_though_the_record_has_neither(bench, script, kind, code):
    bench.write_own("true")
    bench.write_uploader(f"sleep 0.2; {script}")
    bench.schedule("1")
    bench.start()
    bench.wait_for_event(kind, "1")
    ((told, job, end),) = bench.ends
    assert (told, job, end.exit_code) == (kind, "1", code)
    assert end.seconds >= 0.2


@pytest.mark.parametrize(("script", "is_due"), [("kill -9 $$", True), ("kill -15 $$", False), ("exit 3", False)])
def test_upload_that_had_no_time_to_clean_up_is_cleaned_up_after(bench, script, is_due):
    """As one that took too much memory; also if there is no worker at that time."""
    bench.write_own("true")
    bench.write_uploader(f"{HOLD}; {script}")
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("started", "1")
    bench.stop()
    bench.release("1")
    bench.wait_for_end("1")
    assert bench.jobs.pending_cleanups() == ["1"] * is_due
    bench.start()
    if is_due:
        bench.wait_for_event("cleaned", "1")
        assert bench.jobs.pending_cleanups() == []
    assert bench.log("1") == "own cleanup --yes --completed --target=ec2 --job=1\n" * is_due


def test_program_that_cannot_be_executed_is_told_as_by_obs(bench):
    bench.write_uploader("", head="#!/no/such/shell")
    bench.schedule("1")
    bench.start()
    assert bench.wait_for_end("1").details == "exit status 2"
    assert bench.log("1").endswith("/uploader: No such file or directory\n")


def test_upload_ends_although_something_it_started_has_the_log_open(bench):
    bench.write_uploader("sleep 60 & echo $!")
    bench.schedule("1")
    bench.start()
    assert bench.wait_for_end("1").state is JobState.SUCCEEDED
    os.kill(int(bench.log("1")), signal.SIGKILL)


TWICE_THROTTLED = """
echo try >> "${3%/*/*}/tries"
printf throttled > "$6"
[ $(wc -l < "${3%/*/*}/tries") = 3 ] || exit 75
printf ami-1 > "$6"
"""


def test_transient_failure_is_tried_again(bench):
    bench.write_uploader(TWICE_THROTTLED)
    bench.set(retry_seconds=1, retry_max_seconds=1)
    bench.schedule("1")
    bench.start()
    text = bench.wait_for_event("waiting", "1")
    assert re.fullmatch(r"try 2 of 5 at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: throttled", text)
    job = bench.wait_for_end("1")
    assert (job.state, job.details, job.try_) == (JobState.SUCCEEDED, "ami-1", 3)
    bench.wait_for_event("succeeded", "1")
    kinds = [kind for kind, name, _ in bench.events if name == "1"]
    assert kinds == [*["started", "waiting"] * 2, "started", "succeeded"]


def test_waiting_job_keeps_all_that_the_next_try_needs(bench):
    bench.write_uploader("exit 75")
    before = bench.schedule("1")
    bench.start()
    bench.wait_for_event("waiting", "1")
    job = bench.job("1")
    assert (job.state, job.try_, job.pid) == (JobState.WAITING, 2, None)
    assert job.details.endswith(": exit status 75")
    assert (job.user, job.filename, job.size) == (before.user, before.filename, before.size)
    assert bench.jobs.data_path("1").read_bytes() == b"{}"
    assert bench.jobs.file_path("1").read_bytes() == b"image"


def test_tries_are_bounded(bench):
    bench.write_uploader('printf "no network" > "$6"; exit 75')
    bench.set(retry_seconds=1, tries=2)
    bench.schedule("1")
    bench.start()
    job = bench.wait_for_end("1")
    assert (job.state, job.details, job.try_) == (JobState.FAILED, "no network", 2)


KEY = "0123456789abcdef" * 2
LEAVES_SOMETHING = """
echo "Journal: KEY"
mkdir -p "${3%/*}/journal/KEY"
cat > "${3%/*}/journal/KEY/journal" <<END
{"what": "begin", "job": "$job", "target": "ec2"}
{"what": "made", "kind": "snapshot", "id": "snap-1", "region": "here"}
MORE{"what": "end", "outcome": "failed"}
END
exit CODE
""".replace("KEY", KEY)


@pytest.mark.parametrize(
    ("code", "more", "is_due"),
    [
        (76, "", True),
        (75, "", True),
        (143, "", True),
        (76, '{"what": "removed", "kind": "snapshot", "id": "snap-1", "region": "here"}\n', False),
        (76, '{"what": "kept", "kind": "snapshot", "id": "snap-1", "region": "here"}\n', False),
        (76, '{"what": "removed", "kind": "snapshot", "id": "snap-1", "region": "here"}\n'
             '{"what": "asked", "kind": "image", "region": "here"}\n', True),
    ],
)  # fmt: skip
def test_what_a_failed_upload_could_not_remove_is_cleaned_up(bench, code, more, is_due):
    bench.write_uploader(LEAVES_SOMETHING.replace("MORE", more).replace("CODE", str(code)))
    bench.write_own("exit 0")
    bench.set(retry_seconds=1, tries=1)
    bench.schedule("1")
    bench.start()
    assert bench.wait_for_end("1").state is JobState.FAILED
    bench.wait_for_event("failed", "1")
    if is_due:
        bench.wait_for_event("cleaned", "1")
    assert not bench.jobs.is_cleanup_pending("1")
    assert ("own cleanup --yes --completed" in bench.log("1")) == is_due


def test_what_may_be_of_use_for_the_next_try_is_not_cleaned_up(bench):
    bench.write_uploader(LEAVES_SOMETHING.replace("MORE", "").replace("CODE", "75"))
    bench.write_own("exit 0")
    bench.schedule("1")
    bench.start()
    bench.wait_for_event("waiting", "1")
    assert not bench.jobs.is_cleanup_pending("1")


def test_waiting_job_of_an_earlier_worker_is_started_when_it_is_due(bench):
    bench.write_uploader("true")
    bench.schedule("1", state=JobState.WAITING, try_=3)
    bench.schedule("2", state=JobState.WAITING, try_=3)
    hour_ago = time.time() - 3600
    os.utime(bench.jobs.job_path("2"), (hour_ago, hour_ago))
    bench.start()
    bench.wait_for_end("2")
    assert bench.job("1").state is JobState.WAITING


def test_end_on_a_full_disk_is_written_when_that_is_possible(bench):
    """The supervisor can't write the archive; the upload is over, and its result is not lost."""
    bench.write_uploader('printf ami-1 > "$6"')
    bench.schedule("1")
    bench.jobs.done_dir.write_text("not a directory")
    bench.start()
    bench.wait_for(lambda: bench.jobs.result_path("1").exists())
    time.sleep(0.2)
    assert bench.job("1").state is JobState.UPLOADING
    bench.jobs.done_dir.unlink()
    assert bench.wait_for_end("1").details == "ami-1"


# --- killed jobs

CLEANS_UP = "trap 'echo cleaning; sleep 0.2; echo clean; exit 143' TERM; echo ready; while :; do sleep 0.05; done"
IGNORES = "trap '' TERM; setsid sleep 300 & echo \"child $!\"; echo ready; while :; do sleep 0.05; done"
LATE = "trap 'printf late > \"${3%.file}.result\"; exit 1' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def kill(bench):
    """Kill a job as OBS's server does: SIGTERM, archive, and no look back."""

    def kill(name):
        loaded = config.load(home=None, spool=bench.jobs.directory, environment={})
        (killed,) = jobs_kill.kill_jobs(
            bench.jobs, [name], options=jobs_kill.KillOptions(timeout_seconds=0), config=loaded
        )
        assert killed.error is None

    return kill


def test_exit_code_of_a_killed_upload_is_told(bench, kill):
    bench.write_uploader(f"echo ready; {HOLD}")
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: "ready" in bench.log("1"))
    kill("1")
    bench.wait_for_event("killed", "1")
    ((_, _, end),) = bench.ends
    assert end.exit_code == 128 + signal.SIGTERM


def test_killed_upload_cleans_up_before_its_slot_is_free(bench, kill):
    bench.write_uploader(f'[ "$job" = 1 ] || exec true\n{CLEANS_UP}')
    bench.set(max_jobs=1)
    bench.schedule("1")
    bench.schedule("2")
    bench.start()
    bench.wait_for(lambda: "ready" in bench.log("1"))
    kill("1")
    bench.wait_for_event("killed", "1")
    bench.wait_for_end("2")
    assert bench.log("1").splitlines()[-2:] == ["cleaning", "clean"]
    job = bench.job("1")
    assert (job.state, job.details) == (JobState.FAILED, "killed")
    kinds = [event[:2] for event in bench.events]
    assert kinds.index(("killed", "1")) < kinds.index(("started", "2"))
    assert bench.files() == [".worker.lock", "done"]


def test_killed_upload_that_does_not_end_is_ended_and_cleaned_up_after(bench, kill):
    bench.write_own("true")
    bench.write_uploader(IGNORES)
    bench.set(kill_grace_seconds=1, max_jobs=1)
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: "ready" in bench.log("1"))
    child = processes.find(int(re.search(r"child (\d+)", bench.log("1"))[1]))
    assert child.is_alive
    kill("1")
    bench.wait_for_event("forced", "1")
    bench.wait_for_event("killed", "1")
    assert bench.wait_for_event("cleaned", "1") == "the clean-up in the cloud ended with 0"
    there = processes.find(child.pid)
    assert there is None or not there.is_alive
    assert bench.log("1").endswith("own cleanup --yes --completed --target=ec2 --job=1\n")
    assert bench.job("1").details == "killed"


def test_killed_upload_is_ended_though_its_archived_job_was_pruned(bench, kill):
    bench.write_uploader(f'[ "$job" = 1 ] || exec true\n{IGNORES}')
    bench.set(kill_grace_seconds=1)
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: "ready" in bench.log("1"))
    kill("1")
    bench.schedule("2")
    bench.wait_for_end("2")  # the worker has looked around since
    bench.jobs.done_path("1").unlink()
    bench.wait_for_event("forced", "1")
    bench.wait_for(lambda: not tracked.supervisors(bench.jobs))


def test_upload_killed_while_there_was_no_worker_is_ended_by_the_next(bench, kill):
    bench.write_uploader(IGNORES)
    bench.set(kill_grace_seconds=1)
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: "ready" in bench.log("1"))
    bench.stop()
    kill("1")
    assert list(tracked.supervisors(bench.jobs)) == ["1"]
    bench.start()
    assert "was killed" in bench.wait_for_event("adopted", "1")
    bench.wait_for_event("killed", "1")
    assert tracked.supervisors(bench.jobs) == {}


def test_result_written_after_the_kill_is_no_litter(bench, kill):
    bench.write_uploader(LATE)
    bench.schedule("1")
    bench.start()
    bench.wait_for(lambda: "ready" in bench.log("1"))
    kill("1")
    bench.wait_for_event("killed", "1")
    assert bench.files() == [".worker.lock", "done"]
    assert bench.job("1").details == "killed"


def test_kill_of_a_job_that_waits_for_a_slot_is_noticed(bench, kill):
    bench.write_uploader(HOLD)
    bench.set(max_jobs=1)
    bench.schedule("1")
    bench.schedule("2")
    bench.start()
    bench.wait_for_event("started", "1")
    kill("2")
    bench.release("1")
    bench.wait_for_end("1")
    assert not any(job == "2" for _, job, _ in bench.events)
    assert bench.job("2").details == "killed"
