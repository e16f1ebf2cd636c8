"""`clouduploader worker` as it is started by an administrator: signals, output, exit codes."""

import errno
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples.job_logs import untimed

import clouduploader
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool

PROGRAM = Path(sys.executable).with_name("clouduploader")
UMASK = 0o027
PATIENCE_SECONDS = 60  # only a failing test waits that long


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

    def start(*options, is_ready=True, around=()):
        child = subprocess.Popen(
            [*around, PROGRAM, "--home", place / "home", "--spool", place / "spool", "worker", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, umask=UMASK,
        )  # fmt: skip
        started.append(child)
        if is_ready:
            line = child.stderr.readline()
            assert re.fullmatch(r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z event=ready text="at .*"\n', line)
        return child

    yield start
    for child in started:
        with child:
            child.kill()


def schedule(place, **fields):
    return schedule_in(spool.Spool(place / "spool"), **fields)


def schedule_in(jobs, **fields):
    jobs.data_path("1").write_bytes(b"{}")
    jobs.file_path("1").write_bytes(b"image")
    job = Job(name="1", **{"state": JobState.SCHEDULED, "user": "tom", "target": "ec2", **fields})
    new_path = jobs.directory / ".1.test"
    new_path.write_bytes(job_xml.serialize(job))
    new_path.replace(jobs.job_path("1"))
    return jobs


def test_sigterm_hands_over_and_sigterm_with_drain_waits(place, start):
    jobs = schedule(place, user="t\x1b[31mom")
    child = start()
    line = child.stderr.readline()
    assert re.search(r' event=started job=1 text="user t\\ufffd\[31mom, target ec2, process \d+"\n$', line)
    child.terminate()
    assert child.wait(30) == 0
    assert child.stderr.read().endswith(' event=left text="these uploads go on: 1"\n')
    child = start("--drain")
    assert " event=adopted job=1 " in child.stderr.readline()
    child.terminate()
    (place / "go").touch()
    assert child.wait(30) == 0
    ended, left = child.stderr.read().splitlines()
    assert " event=succeeded job=1 text=ami-1 seconds=" in ended
    assert left.endswith(' event=left text="no upload runs"')
    assert jobs.read("1")[0].state is JobState.SUCCEEDED
    assert child.stdout.read() == ""


def test_second_sigterm_ends_a_drain(place, start):
    schedule(place)
    child = start("--drain")
    assert " event=started job=1 " in child.stderr.readline()
    child.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 0
    (place / "go").touch()


def test_sighup_reads_the_settings_again(place, start):
    child = start()
    child.send_signal(signal.SIGHUP)
    assert child.stderr.readline().endswith(' event=settings text="were read again"\n')
    (place / "home/clouduploader.conf").write_text("[worker]\nmax_jobs = none\n")
    child.send_signal(signal.SIGHUP)
    assert ' event=settings text="the old ones stay: ' in child.stderr.readline()


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
    child.stderr.close()
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


def write_settings(place, script):
    """Let the worker run a script before our own uploader, which copies images to a directory."""
    (place / "uploader").write_text(f'#!/bin/sh\n{script}\nexec {PROGRAM} "$@"\n')
    with (place / "home/clouduploader.conf").open("a") as settings:
        settings.write(f"[directory]\npath = {place}/images\n")
    (place / "images").mkdir()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


# --- on a full disk


def start_on_small_disk(place, start):
    """Start a worker whose spool is on a disk of its own; return it, and the way there from outside."""
    script = f"mount -t tmpfs -o size=1m none '{place}/spool' && exec \"$@\""
    child = start(around=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"))
    return child, Path(f"/proc/{child.pid}/root{place}/spool")  # nobody else sees what is mounted there


FILL = 'cat /dev/zero > "${3%/*}/filler"'


def test_image_is_not_lost_because_the_disk_is_full_when_its_id_is_written(place, start):
    write_settings(place, FILL)
    child, directory = start_on_small_disk(place, start)
    jobs = schedule_in(spool.Spool(directory), target="directory", filename="a.raw")
    image = place / "images/a.raw"
    wait_for(image.exists)
    time.sleep(0.2)
    assert jobs.read("1")[0].state is JobState.UPLOADING
    (directory / "filler").unlink()
    wait_for(lambda: not jobs.job_path("1").exists())
    job, _ = jobs.read("1")
    assert (job.state, job.details) == (JobState.SUCCEEDED, str(image))
    log = untimed(jobs.done_log_path("1").read_text())
    assert log[log.index("Upload took: 00:00:00") + 1] == (
        "Waiting until the result can be written: No space left on device"
    )
    child.terminate()


def test_job_ends_on_a_full_disk_and_makes_room(place, start):
    (place / "uploader").write_text(f"#!/bin/sh\n{FILL}\nexit 3\n")
    child, directory = start_on_small_disk(place, start)
    jobs = schedule_in(spool.Spool(directory))
    wait_for(lambda: not jobs.job_path("1").exists())
    assert jobs.read("1")[0].details == "exit status 3"
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (directory / "more").write_bytes(bytes(1 << 20))
    child.terminate()


# --- as another user

READ_ALL = (  # and no more: our Python may lie where nobody but root may read it
    *("setpriv", "--bounding-set=-all,+setuid,+setgid,+dac_read_search", "--securebits=+no_setuid_fixup"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)
REPORT = 'echo "$(id -u):$(id -g):$(id -G) $(stat -c %u:%g:%a .) $(umask)"; env'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_runs_no_uploader_that_another_user_may_have_named(place, start):
    nobody = pwd.getpwnam("nobody")
    os.chown(place / "home", nobody.pw_uid, nobody.pw_gid)
    with start(is_ready=False) as child:
        _, err = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 78
    assert f"root does not run {place}/uploader: {place}/home/clouduploader.conf may have been written by" in err
    assert "`runuser -u nobody -- clouduploader ...`" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_all_is_done_as_the_user_that_is_asked_for(place, start, let_all_enter):
    """From end to end, with our own uploader: nothing of root is in an upload, and nothing that it makes is root's."""
    nobody = pwd.getpwnam("nobody")
    let_all_enter(place)
    write_settings(place, REPORT)
    for name in ("spool", "images"):
        os.chown(place / name, nobody.pw_uid, nobody.pw_gid)
    child = start("--user", "nobody", around=READ_ALL)
    jobs = schedule(place, target="directory", filename="a.raw")
    wait_for(lambda: not jobs.job_path("1").exists())
    assert jobs.read("1")[0].details == f"{place}/images/a.raw"
    report, *log = jobs.done_log_path("1").read_text().splitlines()
    ids = f"{nobody.pw_uid}:{nobody.pw_gid}"
    groups = " ".join(map(str, os.getgrouplist("nobody", nobody.pw_gid)))
    assert report == f"{ids}:{groups} {ids}:750 {UMASK:04o}"
    assert not [line for line in log if re.match("HOME=|USER=|LOGNAME=|SUDO", line)]
    made = [path for name in ("spool", "images") for path in (place / name).rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(nobody.pw_uid, nobody.pw_gid)}
    child.terminate()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_user_who_may_not_execute_our_python_is_told(place, start):
    python = place / "closed/python3"
    python.parent.mkdir(mode=0o700)
    python.symlink_to(sys.executable)
    paths = os.pathsep.join([str(Path(clouduploader.__file__).parents[1]), *sys.path])
    child = start("--user", "nobody", is_ready=False, around=("env", f"PYTHONPATH={paths}", python))
    assert (child.wait(30), child.stdout.read()) == (77, "")
    assert child.stderr.read().startswith(f"clouduploader: nobody may not execute {python}. Install ")
