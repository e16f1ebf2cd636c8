"""Uploads that are told to stop: no result, nothing left, and the log says what was removed."""

import gzip
import os
import re
import shutil
import signal
import tarfile
import threading
import time

import pytest
from samples.minimal_disk import as_disk

from clouduploader.store import workspace

pytestmark = pytest.mark.sandbox

PATIENCE_SECONDS = 30
POLL_SECONDS = 0.05


@pytest.fixture
def small_image(make_image):
    """An image that is fast to upload."""
    return make_image("x.raw.xz", size_bytes=1 << 20)


def wait_until(is_true):
    """Wait for something that must come, and fail if it does not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def assert_log_tells_of_all(done):
    """Check that each thing that was made is said to be removed: `kill` relies on that."""
    made = set(re.findall(r"^Created ([a-z ]+ \S+ in \S+)\.$", done.log, re.MULTILINE))
    removed = set(re.findall(r"^Removed ([a-z ]+ \S+ in \S+)\.$", done.log, re.MULTILINE))
    assert made <= removed, done.log


# For each stage: the line of the log at which it is stopped, and one that is there by then or is not (after !).
EARLY = {
    "authenticate": ("Phase: authenticate", "!Successfully authenticated."),
    "prepare": ("Created route table", "!Created instance"),
    "start helper": ("Waiting for instance", "Created instance"),
    "format": ("Creating ext3 filesystem", "!Phase: upload"),
}
LATE = {
    "upload": ("Phase: upload", "!Phase: write volume"),
    "unpack": ("Inflating image", "!Phase: snapshot"),
    "write volume": ("Dumping raw image", "!Created snapshot"),
    "snapshot": ("Waiting for snapshot creation", "Created snapshot"),
    "registered": ("Created image: ami-", "Created image ami-"),
}


@pytest.mark.parametrize("stages", [EARLY, LATE], ids=["early", "late"])
def test_sigterm_leaves_nothing_at_any_stage(sandbox, make_job, small_image, stages):
    """All stages at once, as nothing but the waiting takes time."""
    slow = ("AssumeRole", "CreateSubnet", "DescribeInstances") if stages is EARLY else ("DeleteKeyPair",)
    sandbox.faults(*({"action": action, "delay_seconds": 1} for action in slow))
    sandbox.helper(sftp_delay_seconds=0.03, command_delays={"mkfs": 1, "xz": 1, "dd": 1})
    sandbox.pace(snapshot_seconds=1)
    regions = sandbox.description["regions"]
    jobs = [
        make_job(small_image, ami_name=stage, region=regions[number % len(regions)])
        for number, stage in enumerate(stages)
    ]
    running = [job.start() for job in jobs]
    stoppers = [
        threading.Thread(target=stop_at, args=(job, process, line))
        for job, process, (line, _witness) in zip(jobs, running, stages.values(), strict=True)
    ]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()
    ended = [job.finish(process) for job, process in zip(jobs, running, strict=True)]  # no other writes its result then
    for job, done, (line, witness) in zip(jobs, ended, stages.values(), strict=True):
        done.assert_stopped()
        assert job.litter() == []
        assert_log_tells_of_all(done)
        assert any(entry.startswith(line) for entry in done.lines)
        is_there = any(entry.startswith(witness.removeprefix("!")) for entry in done.lines)
        assert is_there is not witness.startswith("!"), done.log
    assert sandbox.left() == {}


def stop_at(job, process, line):
    """Send the signal to the group, as OBS does, as soon as the log is there."""
    job.wait_for(line, process)
    os.killpg(process.pid, signal.SIGTERM)


def test_sigterm_while_the_image_is_read_ends_at_once(sandbox, make_job, make_image):
    member = tarfile.TarInfo("disk.raw")
    member.size = (1 << 36) + 512
    image = make_image("x.tar.gz")
    image.path.write_bytes(gzip.compress(member.tobuf() + as_disk(b"")) + gzip.compress(bytes(1 << 26), 1) * 1024)
    job = make_job(image)
    process = job.start()
    job.wait_for("Phase: check image", process)
    process.send_signal(signal.SIGTERM)
    job.finish(process).assert_stopped()
    assert {call["action"] for call in sandbox.calls()} == {"AssumeRole"}
    assert job.litter() == []


def test_obs_kill_leaves_nothing_though_the_jobs_files_vanish(sandbox, make_job, small_image):
    sandbox.helper(sftp_delay_seconds=0.1)
    job = make_job(small_image)
    process = job.start()
    job.wait_for("Phase: upload", process)
    # The server signals the group, and archives without waiting for anybody.
    os.killpg(process.pid, signal.SIGTERM)
    archived = sandbox.spool / "done" / f"{job.name}.log"
    job.log_path.rename(archived)
    for path in (job.data_path, job.image_path):
        path.unlink()
    shutil.rmtree(job.work_dir)
    job.xml_path.unlink()
    job.finish(process)

    assert process.returncode == 143
    assert archived.read_text().endswith(" Error: stopped by SIGTERM.\n")
    assert "Removed instance i-" in archived.read_text()
    assert sandbox.left() == {}
    assert job.litter() == []
    assert not list(sandbox.spool.glob(f"{job.name}.*"))


def test_second_sigterm_does_not_reach_ec2uploadimg(sandbox, make_job, small_image):
    sandbox.helper(command_delays={"dd": 2})
    job = make_job(small_image)
    process = job.start()
    job.wait_for("Dumping raw image", process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    os.killpg(process.pid, signal.SIGTERM)
    done = job.finish(process)
    done.assert_stopped()
    assert sandbox.left() == {}
    # It had the time to do it all itself.
    assert {call["key"] for call in sandbox.calls("TerminateInstances")} == {"ASIA"}
    assert len(sandbox.calls("TerminateInstances")) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_other_signals_leave_nothing_too(sandbox, make_job, small_image, number):
    sandbox.fault("CreateSubnet", delay_seconds=1)
    job = make_job(small_image)
    process = job.start()
    job.wait_for("Created route table", process)
    process.send_signal(number)
    job.finish(process).assert_stopped(128 + number)
    assert sandbox.left() == {}
    assert job.litter() == []


def test_ec2uploadimg_that_does_not_end_is_killed_and_cleaned_up_after(sandbox, make_job, small_image, settings):
    settings("[ec2]\ngrace_seconds = 1\n")
    sandbox.helper(command_delays={"dd": 600})
    job = make_job(small_image, vpc_subnet_id=sandbox.description["subnet_id"])
    process = job.start()
    job.wait_for("Dumping raw image", process)
    process.send_signal(signal.SIGTERM)
    done = job.finish(process)
    done.assert_stopped()
    assert sandbox.left() == {}
    assert job.litter() == []
    assert_log_tells_of_all(done)
    assert done.phases[-1] == "clean up"


def test_ec2uploadimg_cleans_up_by_itself_when_we_are_killed(sandbox, make_job, small_image):
    sandbox.helper(command_delays={"dd": 1})
    job = make_job(small_image)
    process = job.start("--verbose")
    job.wait_for("Dumping raw image", process)
    pid = int(re.search(r" as process (\d+); it has its arguments by a pipe\.$", job.log_path.read_text(), re.M)[1])
    process.kill()
    assert job.finish(process).status == -signal.SIGKILL
    wait_until(lambda: not is_running(pid))
    assert sandbox.left() == {}
    assert job.result_path.exists() is False
    # What is left of the private directory holds no key, and goes with the next job that comes along.
    (private,) = job.temporary.iterdir()
    assert {path.name for path in private.iterdir()} == {".ec2utils.conf", workspace.MARK_NAME}
    long_ago = time.time() - 3600
    os.utime(private, (long_ago, long_ago))
    next_job = make_job(small_image, external_id="wrong")
    next_job.run(TMPDIR=str(job.temporary)).assert_failed(77, "AWS does not let us assume role")
    assert list(job.temporary.iterdir()) == []


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
