import fcntl
import os
import signal
import subprocess
import sys

import pytest

from clouduploader.errors import (
    CredentialsError,
    JobFileError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
    UnknownTargetError,
)
from clouduploader.jobs import kill as jobs_kill
from clouduploader.model.job import JobState
from clouduploader.plugin import CloudObject
from clouduploader.store import spool
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState
from clouduploader.util import processes
from clouduploader.util.processes import Ownership

INSTANCE = CloudObject("instance", "i-1")
VOLUME = CloudObject("volume", "vol-1", "here")
OBJECTS = "say('Phase: upload'); say('Created instance i-1.'); say('Created volume vol-1 in here.')\n"
CLEANS_UP = OBJECTS + "signal.signal(signal.SIGTERM, end)"
IGNORES = OBJECTS + "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
DIES = OBJECTS
CHILD = """
code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
command = [sys.executable, "-c", code]
child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
child.stdout.readline()
say("child %d" % child.pid)
"""


@pytest.fixture
def kill(settings, load_platform):
    """Return a function that kills jobs; one name gives one answer."""

    def run(jobs, *names, wait=False, force=False, timeout=20.0):
        options = jobs_kill.KillOptions(is_waiting=wait or force, is_forced=force, timeout_seconds=timeout)
        killed = list(jobs_kill.kill_jobs(jobs, names, options=options, config=settings, load_platform=load_platform))
        return killed[0] if len(killed) == 1 else killed

    return run


def assert_archived_as_killed(jobs, name):
    job, is_archived = jobs.read(name)
    assert (job.state, job.details, job.pid, is_archived) == (JobState.FAILED, "killed", None, True)
    assert not [path.name for path in jobs.directory.iterdir() if path.name != "done"]


def is_alive(pid):
    found = processes.all_processes().get(pid)
    return found is not None and found.is_alive


def log_of(jobs, name):
    return jobs.done_log_path(name).read_text()


def child_in(log):
    return int(log.partition("child ")[2].split()[0])


def test_killed_uploader_cleans_up_while_the_job_is_archived_at_once(make_spool, start_uploader, kill):
    jobs = make_spool()
    uploader = start_uploader(jobs, "1", CLEANS_UP)
    killed = kill(jobs, "1")
    assert_archived_as_killed(jobs, "1")
    assert killed == jobs_kill.KillResult(
        name="1", state=JobState.FAILED, ownership=Ownership.WORKING, remaining_pids=(uploader.pid,)
    )
    assert uploader.wait(20) == 0
    assert log_of(jobs, "1").endswith("got TERM\nRemoved instance i-1.\n")


def test_waiting_reports_what_the_uploader_removed_and_left(make_spool, start_uploader, kill, platform):
    jobs = make_spool()
    start_uploader(jobs, "1", CLEANS_UP)
    killed = kill(jobs, "1", wait=True)
    assert killed.remaining_pids == ()
    assert killed.clean_up.removed == (INSTANCE,)
    assert [leftover.object for leftover in killed.clean_up.left] == [VOLUME]
    assert platform.connections == []
    assert killed.error is None


def test_uploader_gets_one_sigterm(make_spool, start_uploader, kill):
    """A second one makes ec2uploadimg leave everything behind."""
    code = "signal.signal(signal.SIGTERM, lambda *_: say('got TERM'))\ntime.sleep(0.1)\nsay('ready')\ntime.sleep(1.5)\n"
    jobs = make_spool()
    start_uploader(jobs, "1", code + "os._exit(0)")
    assert kill(jobs, "1", wait=True).remaining_pids == ()
    assert log_of(jobs, "1").count("got TERM") == 1


def test_children_in_their_own_session_are_waited_for_but_not_signalled(make_spool, start_uploader, kill):
    jobs = make_spool()
    start_uploader(jobs, "1", CHILD + CLEANS_UP)
    killed = kill(jobs, "1", wait=True, timeout=1.0)
    child = child_in(log_of(jobs, "1"))
    assert killed.remaining_pids == (child,)
    assert killed.clean_up is None
    assert is_alive(child)
    os.kill(child, signal.SIGKILL)


def test_force_ends_what_ignores_sigterm_and_cleans_up(make_spool, start_uploader, kill, platform):
    jobs = make_spool()
    uploader = start_uploader(jobs, "1", CHILD + IGNORES)
    platform.script["vol-1"] = [PlatformReplyError("it is in use")]
    killed = kill(jobs, "1", force=True, timeout=0.3)
    assert killed.was_forced
    assert killed.remaining_pids == ()
    assert uploader.wait(20) == -signal.SIGKILL
    log = log_of(jobs, "1")
    assert not is_alive(child_in(log))
    assert killed.clean_up.removed == (INSTANCE,)
    assert [(leftover.object, leftover.reason) for leftover in killed.clean_up.left] == [(VOLUME, "it is in use")]
    assert platform.connections == [{"region": "here", "key": "open-s3cret"}]
    assert "connecting with {'region': 'here', 'key': '********'}" in log
    assert "open-s3cret" not in log
    assert_archived_as_killed(jobs, "1")


def test_force_leaves_the_clean_up_to_the_uploader_if_it_does_it(make_spool, start_uploader, kill, platform):
    jobs = make_spool()
    start_uploader(jobs, "1", "say('Created instance i-1.')\nsignal.signal(signal.SIGTERM, end)")
    killed = kill(jobs, "1", force=True)
    assert not killed.was_forced
    assert killed.clean_up.removed == (INSTANCE,)
    assert killed.clean_up.left == ()
    assert platform.connections == []


def test_force_cleans_up_behind_an_uploader_that_did_not(make_spool, start_uploader, kill):
    jobs = make_spool()
    start_uploader(jobs, "1", DIES)
    killed = kill(jobs, "1", force=True)
    assert not killed.was_forced
    assert killed.clean_up.removed == (INSTANCE, VOLUME)


@pytest.fixture
def innocent():
    """A process in a group of its own that has nothing to do with any job."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as child:
        yield child
        child.kill()


def test_stale_pid_of_somebody_else_is_left_alone(make_spool, make_job, innocent, kill):
    jobs = make_spool()
    make_job(jobs, "1", pid=innocent.pid, log=b"Created instance i-1.\n", data=b'{"region": "here"}')
    killed = kill(jobs, "1", force=True, timeout=0.2)
    assert killed.ownership is Ownership.FOREIGN
    assert not killed.was_forced
    assert killed.clean_up.removed == (INSTANCE,)
    assert innocent.poll() is None
    assert_archived_as_killed(jobs, "1")


def test_pid_that_is_gone_is_no_hindrance(make_spool, make_job, innocent, kill):
    jobs = make_spool()
    innocent.kill()
    innocent.wait()
    make_job(jobs, "1", pid=innocent.pid, log=b"")
    killed = kill(jobs, "1")
    assert killed == jobs_kill.KillResult(name="1", state=JobState.FAILED, ownership=Ownership.GONE)
    assert_archived_as_killed(jobs, "1")


def test_orphan_that_writes_the_log_is_terminated_though_its_group_is_gone(make_spool, start_uploader, make_job, kill):
    jobs = make_spool()
    uploader = start_uploader(jobs, "1", CLEANS_UP)
    make_job(jobs, "1", pid=2**22)
    killed = kill(jobs, "1", wait=True)
    assert killed.ownership is Ownership.GONE
    assert killed.clean_up.removed == (INSTANCE,)
    assert uploader.wait(20) == 0


def test_server_that_writes_the_log_for_a_host_is_not_signalled(make_spool, start_uploader, make_job, kill):
    jobs = make_spool()
    server = start_uploader(jobs, "1", CLEANS_UP)
    make_job(jobs, "1")
    lease = {"attempt": 1, "queue": "uploads", "host": "ada", "since": 1.0, "claim": "0" * 64, "journal": "f" * 32}
    leases.write(jobs, "1", LeaseRecord(state=LeaseState.CLAIMED, **lease))
    killed = kill(jobs, "1", wait=True, timeout=0)
    assert (killed.state, killed.ownership, killed.remaining_pids) == (JobState.FAILED, None, ())
    assert type(killed.error) is TransientError
    assert killed.error.message == "the host ada still cleans up after the job 1"
    assert server.poll() is None
    assert "got TERM" not in log_of(jobs, "1")


@pytest.mark.parametrize("state", [JobState.CREATED, JobState.SCHEDULED, JobState.WAITING])
def test_job_that_does_not_run_yet_is_killed(state, make_spool, make_job, kill):
    jobs = make_spool()
    make_job(jobs, "1", state=state, details="waiting to receive image", data=b"{}", image=b"image")
    killed = kill(jobs, "1", force=True)
    assert (killed.state, killed.ownership) == (JobState.FAILED, None)
    assert killed.clean_up.left == ()
    assert_archived_as_killed(jobs, "1")


def test_sender_of_an_image_is_not_signalled(make_spool, make_job, innocent, kill):
    """As OBS: the sender learns it when it has sent everything."""
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.RECEIVING, pid=innocent.pid)
    (jobs.directory / f".1.file{innocent.pid}").touch()
    killed = kill(jobs, "1", wait=True, timeout=0.1)
    assert (killed.ownership, killed.remaining_pids) == (None, ())
    assert innocent.poll() is None
    assert_archived_as_killed(jobs, "1")


def test_finished_job_is_not_changed(make_spool, make_job, kill):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SUCCEEDED, details="ami-1", log=b"log")
    before = jobs.done_path("1").read_bytes()
    assert kill(jobs, "1", force=True) == jobs_kill.KillResult(
        name="1", state=JobState.SUCCEEDED, is_finished_before=True
    )
    assert jobs.done_path("1").read_bytes() == before
    assert log_of(jobs, "1") == "log"


def test_each_job_has_its_own_outcome(make_spool, make_job, start_uploader, kill):
    jobs = make_spool()
    jobs.job_path("2").write_bytes(b"<")
    make_job(jobs, "3", state=JobState.SUCCEEDED)
    start_uploader(jobs, "4", CLEANS_UP)
    unknown, damaged, done, killed = kill(jobs, "1", "2", "3", "4", "4", wait=True)
    assert isinstance(unknown.error, NoSuchJobError)
    assert isinstance(damaged.error, JobFileError)
    assert done.is_finished_before
    assert (killed.name, killed.error, killed.remaining_pids) == ("4", None, ())
    assert jobs.job_path("2").exists()


def test_all_jobs_are_told_before_the_first_is_waited_for(make_spool, start_uploader, kill):
    jobs = make_spool()
    start_uploader(jobs, "1", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    second = start_uploader(jobs, "2", CLEANS_UP)
    first, other = kill(jobs, "1", "2", wait=True, timeout=1.0)
    assert first.remaining_pids
    assert other.remaining_pids == ()
    assert second.wait(20) == 0


def test_locked_job_is_not_touched(make_spool, start_uploader, kill):
    jobs = spool.Spool(make_spool().directory, lock_timeout_seconds=0)
    uploader = start_uploader(jobs, "1", CLEANS_UP)
    with jobs.job_path("1").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        killed = kill(jobs, "1")
    assert isinstance(killed.error, LockedError)
    assert is_alive(uploader.pid)
    assert jobs.read("1")[0].state is JobState.UPLOADING


def test_worker_is_woken(make_spool, make_job, kill):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SCHEDULED)
    fifo = jobs.directory.parent / "events" / "clouduploadworker" / ".ping"
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    kill(jobs, "1")
    assert os.read(descriptor, 10) == b"xx"  # at once, and when all that was waited for has ended
    os.close(descriptor)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"target": "nosuch"}, UnknownTargetError),
        ({"target": None}, UnknownTargetError),
        ({"data": b"{"}, TargetDataError),
        ({"data": None}, MissingFileError),
    ],
)
def test_clean_up_that_cannot_begin_is_reported(fields, error, make_spool, make_job, kill):
    jobs = make_spool()
    make_job(jobs, "1", log=b"Created instance i-1.\n", **{"data": b'{"region": "here"}', **fields})
    killed = kill(jobs, "1", force=True)
    assert isinstance(killed.error, error)
    assert_archived_as_killed(jobs, "1")
    assert [leftover.object for leftover in killed.clean_up.left] == [INSTANCE]


def test_clean_up_that_is_refused_names_what_is_left(make_spool, make_job, kill, platform):
    jobs = make_spool()
    error = CredentialsError("the role is not assumable")

    def refuse(_ctx, _objects):
        raise error

    platform.clean_up = refuse
    make_job(jobs, "1", log=b"Created instance i-1.\n", data=b'{"region": "here"}')
    killed = kill(jobs, "1", force=True)
    assert killed.error is error
    assert [(leftover.object, leftover.reason) for leftover in killed.clean_up.left] == [
        (INSTANCE, "the role is not assumable")
    ]


KILL_AS_NOBODY = """
import os, pathlib, sys
from clouduploader.store import config, spool
from clouduploader.jobs import kill
jobs = spool.Spool(pathlib.Path(sys.argv[1]))
settings = config.load(home=jobs.directory, spool=None, environment={})
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
options = kill.KillOptions(timeout_seconds=1)
[killed] = kill.kill_jobs(jobs, ["1"], options=options, config=settings)
print(type(killed.error).__name__)
"""


# Only root can look into it, its own user can't: 4 is PR_SET_DUMPABLE.
UNDUMPABLE = "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); time.sleep(60)"


@pytest.fixture
def hidden():
    """A process in a group of its own that hides what it does."""
    command = [sys.executable, "-c", UNDUMPABLE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        child.stdout.readline()
        yield child
        child.kill()


def test_job_whose_process_cannot_be_seen_is_not_touched(make_spool, make_job, hidden, let_all_enter):
    jobs = make_spool()
    make_job(jobs, "1", pid=hidden.pid, log=b"")
    let_all_enter(jobs.directory)
    jobs.directory.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", KILL_AS_NOBODY, jobs.directory], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "NotOwnerError\n"
    assert jobs.read("1")[0].pid == hidden.pid
    assert hidden.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="takes two users, and only root can be both")
def test_job_of_another_user_is_not_touched(make_spool, start_uploader, let_all_enter):
    jobs = make_spool()
    uploader = start_uploader(jobs, "1", CLEANS_UP)
    let_all_enter(jobs.directory)
    jobs.directory.chmod(0o777)
    command = [sys.executable, "-c", KILL_AS_NOBODY, jobs.directory]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "NotOwnerError\n"
    assert jobs.read("1")[0].pid == uploader.pid
    assert b"got TERM" not in jobs.log_path("1").read_bytes()


@pytest.mark.parametrize("pid", [0, 1, 10**17])
def test_pid_that_names_no_group_is_no_hindrance(pid, make_spool, make_job, kill):
    jobs = make_spool()
    make_job(jobs, "1", pid=pid, log=b"")
    assert kill(jobs, "1", wait=True).remaining_pids == ()
    assert_archived_as_killed(jobs, "1")
