"""Uploads that die at any moment: the next try goes on, or cleanup removes what is left."""

import json
import lzma
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from e2e.upload_host import JournalServer, UploadHost

from clouduploader.sandbox.aws.disks import BLOCK_BYTES
from clouduploader.store.journal.witness import FD_VARIABLE

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
BLOCKS = 40
POLL_SECONDS = 0.01
CALL_SECONDS = 0.15  # so long takes each call that changes something: time to be killed in
SLOW = ("StartSnapshot", "CompleteSnapshot", "CreateTags", "RegisterImage", "DescribeSnapshots", "DescribeImages")


@pytest.fixture
def disk(make_disk):
    """An image that is sent in about a second."""
    return make_disk(BLOCKS)


@pytest.fixture
def slow_sandbox(sandbox, settings):
    """The sandbox, such that nothing happens in an instant."""
    settings(blocks_per_second=BLOCKS)
    sandbox.faults(*({"action": action, "delay_seconds": CALL_SECONDS} for action in SLOW))
    return sandbox


@pytest.fixture
def clean_up(sandbox):
    """Run `clouduploader cleanup` with an upload's state directory; gives its answer."""

    def run(upload, *options, exit_code=0, **changes):
        argv = [EXECUTABLE, "cleanup", "--json", "--yes", *options]
        done = sandbox.run(argv, env=upload.environment(**changes))
        assert done.returncode == exit_code, done.stdout + done.stderr
        return [(thing["kind"], thing["outcome"]) for thing in json.loads(done.stdout)["data"]["things"]]

    return run


def account_options(sandbox, age="0s"):
    """Options of cleanup that say which account and region is looked through by tags."""
    described = sandbox.description
    return (
        f"--region={described['region']}",
        f"--arn={described['role_arn']}",
        f"--external-id={described['external_id']}",
        f"--older-than={age}",
    )


# --- killed anywhere

MILESTONES = (
    ("begin", {}),
    ("asked", {"kind": "snapshot"}),
    ("started", {}),
    ("sealing", {}),
    ("asked", {"kind": "image"}),
    ("made", {"kind": "image"}),
)


def kill_point(source):
    """Draw a moment in an upload's life: a test for it, and how long to wait then."""
    if source.random() < 0.5:
        count = source.randrange(BLOCKS)
        return lambda upload: sum(upload.confirmed().values()) >= count, source.random() * 0.05
    what, values = source.choice(MILESTONES)
    return lambda upload: upload.has_entry(what, **values), source.random() * 2 * CALL_SECONDS


def kill_at(points, processes):
    """Kill each upload at its point; gives those that were killed, with what came of them until then."""
    due, killed = {}, {}
    while processes:
        for upload, process in list(processes.items()):
            is_reached, delay = points[upload]
            if upload not in due and is_reached(upload):
                due[upload] = time.monotonic() + delay
            if process.poll() is not None:
                assert process.returncode == 0, upload.finish(processes.pop(upload))
                processes.pop(upload)
            elif upload in due and time.monotonic() >= due[upload]:
                killed[upload] = upload.kill(processes.pop(upload))
        time.sleep(POLL_SECONDS)
    return killed


def assert_not_confirmed_twice(sandbox, upload, confirmed):
    """Check that no block came again that the log had when the upload was killed."""
    reports = sandbox.ebs()["snapshots"]
    for snapshot_id, indices in confirmed.items():
        repeated = {repeat["index"] for repeat in reports[snapshot_id]["repeats"]}
        assert not repeated & indices, (upload.entries(), sorted(repeated), sorted(indices))
        assert all(repeat["same"] for repeat in reports[snapshot_id]["repeats"])


@pytest.mark.parametrize("seed", range(5))
def test_upload_that_is_killed_anywhere_is_gone_on_with(slow_sandbox, make_upload, disk, tmp_path, seed):
    """Ten at once."""
    sandbox = slow_sandbox
    source = random.Random(seed)  # noqa: S311
    packed = tmp_path / "disk.raw.xz"
    packed.write_bytes(lzma.compress(disk.raw, preset=0))
    uploads = [make_upload(source.choice((disk.path, packed)), verify="none") for _ in range(10)]
    points = [kill_point(source) for _ in uploads]
    running = [upload.start() for upload in uploads]
    killed = kill_at(dict(zip(uploads, points, strict=True)), dict(zip(uploads, running, strict=True)))
    assert len(killed) >= 8  # the others were too quick, at the very end
    confirmed = {upload: {one: upload.confirmed_blocks(one) for one in upload.snapshot_ids} for upload in killed}
    time.sleep(2 * CALL_SECONDS)  # what was asked for is made by then

    # Killed before there was a job, or when its success stood in its log, it can't be resumed.
    is_by_job = {
        upload: bool(upload.job) and "Upload took: " not in done.log and source.random() < 0.5
        for upload, done in killed.items()
    }
    uploads = list(killed)
    running = [upload.start(is_resumed=is_by_job[upload]) for upload in uploads]
    for upload, process in zip(uploads, running, strict=True):
        done = upload.finish(process)
        assert sandbox.image_bytes(done.image_id, len(disk.raw)) == disk.raw
        assert_not_confirmed_twice(sandbox, upload, confirmed[upload])
        assert upload.kept_files == set()
    assert {kind: len(found) for kind, found in sandbox.left().items()} == {"images": 10, "snapshots": 10}
    assert any(blocks for found in confirmed.values() for blocks in found.values())


def test_upload_of_a_host_that_is_lost_is_gone_on_with_at_another(
    slow_sandbox, make_upload, disk, assert_uploaded, wait_until, tmp_path
):
    upload = make_upload(disk.path, verify="none")
    server = JournalServer(tmp_path / "server")
    lost, other = (UploadHost(server, tmp_path / name) for name in ("lost", "other"))

    def start(host):
        return host.start(
            lambda env, pass_fds: upload.start(
                pass_fds=pass_fds, **{name: env[name] for name in ("CLOUDUPLOADER_STATE", FD_VARIABLE)}
            ),
            {},
        )

    process = start(lost)
    wait_until(lambda: len(server.confirmed(BLOCK_BYTES, BLOCKS)) > 5, process)
    upload.kill(process)
    lost.lose()
    confirmed = server.confirmed(BLOCK_BYTES, BLOCKS)
    assert len(confirmed) < BLOCKS
    process = start(other)
    done = upload.finish(process)
    other.join()
    assert_uploaded(done, disk.raw)
    ((snapshot_id, report),) = slow_sandbox.ebs()["snapshots"].items()
    assert any(line.startswith(f"Going on with snapshot {snapshot_id}, which has ") for line in done.lines)
    assert not {repeat["index"] for repeat in report["repeats"]} & confirmed
    assert not list(tmp_path.rglob("targetdata"))


@pytest.mark.parametrize("action", ["StartSnapshot", "CompleteSnapshot", "RegisterImage"])
def test_upload_that_is_killed_between_asking_and_getting_makes_nothing_twice(
    sandbox, make_upload, disk, assert_uploaded, wait_until, action
):
    sandbox.fault(action, delay_seconds=1)
    what, values = {
        "StartSnapshot": ("asked", {"kind": "snapshot"}),
        "CompleteSnapshot": ("sealing", {}),
        "RegisterImage": ("asked", {"kind": "image"}),
    }[action]
    upload = make_upload(disk.path, verify="none")
    process = upload.start()
    wait_until(lambda: upload.has_entry(what, **values), process)
    time.sleep(0.3)  # until it has been asked for
    upload.kill(process)
    while not sandbox.calls(action):
        time.sleep(0.1)
    sandbox.faults()
    puts = sandbox.ebs()["calls"].get("PutSnapshotBlock", {})
    assert_uploaded(upload.run(is_resumed=True), disk.raw)
    assert len(sandbox.ebs()["snapshots"]) == 1
    assert puts == ({} if action == "StartSnapshot" else sandbox.ebs()["calls"]["PutSnapshotBlock"])


@pytest.mark.parametrize("is_gone", [False, True])
def test_snapshot_that_expired_meanwhile_is_replaced(
    slow_sandbox, make_upload, disk, assert_uploaded, wait_until, is_gone
):
    upload = make_upload(disk.path, verify="none")
    process = upload.start()
    wait_until(lambda: sum(upload.confirmed().values()) > 5, process)
    upload.kill(process)
    slow_sandbox.expire_snapshots(gone=is_gone)
    upload.age(120)
    (snapshot_id,) = upload.snapshot_ids
    done = upload.run()
    story = (
        f"Snapshot {snapshot_id} of an earlier try is gone." if is_gone else f"Starting anew: snapshot {snapshot_id} "
    )
    assert any(line.startswith(story) for line in done.lines)
    assert_uploaded(done, disk.raw)


def test_image_that_changed_meanwhile_is_sent_anew(slow_sandbox, make_upload, disk, make_disk, wait_until):
    upload = make_upload(disk.path, verify="none")
    process = upload.start()
    wait_until(lambda: sum(upload.confirmed().values()) > 5, process)
    upload.kill(process)
    changed = make_disk(BLOCKS, seed=2)
    done = upload.run()
    assert slow_sandbox.image_bytes(done.image_id, len(changed.raw)) == changed.raw
    assert any(line.startswith("Starting anew: block ") for line in done.lines)
    assert {kind: len(found) for kind, found in slow_sandbox.left().items()} == {"images": 1, "snapshots": 1}


# --- told to stop

PHASES = ("start snapshot", "upload", "seal", "verify", "register")


def test_sigterm_leaves_nothing_at_any_phase(slow_sandbox, make_upload, disk):
    """All phases at once."""
    uploads = {phase: make_upload(disk.path) for phase in PHASES}
    running = {phase: upload.start() for phase, upload in uploads.items()}
    waiting = set(PHASES)
    while waiting:
        for phase in list(waiting):
            assert running[phase].poll() is None
            if f"Phase: {phase}\n" in uploads[phase].log:
                os.killpg(running[phase].pid, signal.SIGTERM)
                waiting.remove(phase)
        time.sleep(POLL_SECONDS)
    for phase, upload in uploads.items():
        done = upload.finish(running[phase])
        done.assert_stopped()
        assert done.phases[-1] == "clean up"
        assert upload.kept_files == set()
    assert slow_sandbox.left() == {}


def test_stopped_upload_that_keeps_its_snapshot_is_gone_on_with(
    slow_sandbox, make_upload, disk, assert_uploaded, wait_until
):
    upload = make_upload(disk.path, keep="snapshot", verify="none")
    process = upload.start()
    wait_until(lambda: sum(upload.confirmed().values()) > 5, process)
    os.killpg(process.pid, signal.SIGTERM)
    done = upload.finish(process)
    done.assert_stopped()
    (snapshot_id,) = upload.snapshot_ids
    assert any(line.startswith(f"Kept: snapshot {snapshot_id} in us-east-1.") for line in done.lines)
    assert slow_sandbox.left() == {"snapshots": [snapshot_id]}
    confirmed = {snapshot_id: upload.confirmed_blocks(snapshot_id)}
    again = upload.run()
    assert_uploaded(again, disk.raw)
    assert any(line.startswith(f"Going on with snapshot {snapshot_id}, which has ") for line in again.lines)
    assert_not_confirmed_twice(slow_sandbox, upload, confirmed)


# --- cleaned up


@pytest.mark.parametrize("has_journal", [True, False], ids=["by journal", "by tags"])
def test_cleanup_removes_what_a_killed_upload_left(slow_sandbox, make_upload, disk, clean_up, wait_until, has_journal):
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: sum(upload.confirmed().values()) > 5, process)
    upload.kill(process)
    if has_journal:
        assert clean_up(upload) == [("snapshot", "removed")]
        assert upload.kept_files == set()
    else:
        elsewhere = {"CLOUDUPLOADER_STATE": str(upload.state_dir / "elsewhere")}
        assert clean_up(upload, **elsewhere) == []
        assert clean_up(upload, *account_options(slow_sandbox, age="1h"), **elsewhere) == []
        assert clean_up(upload, *account_options(slow_sandbox), **elsewhere) == [("snapshot", "removed")]
    assert slow_sandbox.left() == {}


def test_cleanup_forgets_nothing_that_does_not_show_yet(sandbox, make_upload, disk, clean_up, wait_until, aws):
    sandbox.pace(hidden_seconds=8)
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: upload.has_entry("started"), process)
    upload.kill(process)
    assert clean_up(upload, exit_code=75) == [("snapshot", "left")]
    assert upload.owes
    look = ("ec2", "describe_snapshots", {"Filters": [{"Name": "tag-key", "Values": ["clouduploader:key"]}]})
    deadline = time.monotonic() + 60
    while not aws(look)[0]["Snapshots"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert clean_up(upload) == [("snapshot", "removed")]
    assert sandbox.left() == {}
    assert not upload.owes


@pytest.mark.parametrize("has_journal", [True, False], ids=["by journal", "by tags"])
def test_cleanup_removes_what_the_other_method_left(
    sandbox, make_upload, make_image, clean_up, wait_until, has_journal
):
    sandbox.helper(command_delays={"dd": 30})
    upload = make_upload(make_image("x.raw.xz", size_bytes=1 << 20).path, method="ec2uploadimg")
    process = upload.start("--verbose")
    wait_until(lambda: "Dumping raw image" in upload.log, process)
    (pid,) = re.findall(r" as process (\d+); it has its arguments by a pipe\.$", upload.log, re.MULTILINE)
    os.kill(int(pid), signal.SIGKILL)  # else it would clean up by itself
    upload.kill(process)
    assert {"instances", "volumes", "vpcs"} <= sandbox.left().keys()
    if has_journal:
        things = clean_up(upload)
    else:
        elsewhere = {"CLOUDUPLOADER_STATE": str(upload.state_dir / "elsewhere")}
        things = clean_up(upload, *account_options(sandbox), **elsewhere)
    assert {outcome for _kind, outcome in things} == {"removed"}
    assert sandbox.left() == {}


def test_cleanup_leaves_an_upload_alone_that_lives(
    slow_sandbox, make_upload, disk, assert_uploaded, clean_up, wait_until
):
    slow_sandbox.fault("PutSnapshotBlock", after=6, code="RequestThrottledException", reason="RESOURCE_LEVEL_THROTTLE")
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: sum(upload.confirmed().values()) > 5, process)
    assert clean_up(upload, *account_options(slow_sandbox)) == []
    elsewhere = {"CLOUDUPLOADER_STATE": str(upload.state_dir.parent / "elsewhere")}
    *options, _age = account_options(slow_sandbox)
    assert clean_up(upload, *options, **elsewhere) == []  # on another machine, its age protects it
    assert process.poll() is None
    slow_sandbox.faults()
    assert_uploaded(upload.finish(process), disk.raw)
    assert clean_up(upload, *account_options(slow_sandbox)) == []


def test_snapshot_that_is_being_completed_is_kept(sandbox, make_upload, disk, assert_uploaded, clean_up, wait_until):
    sandbox.pace(snapshot_seconds=6)
    upload = make_upload(disk.path, verify="none")
    process = upload.start()
    wait_until(lambda: sandbox.ebs()["calls"].get("CompleteSnapshot"), process)
    upload.kill(process)
    assert clean_up(upload, *account_options(sandbox)) == [("snapshot", "kept")]
    before = sandbox.ebs()
    assert [found["state"] for found in before["snapshots"].values()] == ["pending"]
    assert_uploaded(upload.run(), disk.raw)
    after = sandbox.ebs()["calls"]
    assert {action: after[action] for action in ("StartSnapshot", "PutSnapshotBlock")} == {
        action: before["calls"][action] for action in ("StartSnapshot", "PutSnapshotBlock")
    }


def test_completed_snapshot_without_an_image_is_recognised(
    sandbox, make_upload, disk, assert_uploaded, clean_up, wait_until
):
    sandbox.fault("RegisterImage", delay_seconds=1, code="InternalError", status=500)
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: upload.has_entry("asked", kind="image"), process)
    upload.kill(process)
    upload.age(120)  # else an image may be there, and not show yet
    sandbox.faults()
    assert clean_up(upload, *account_options(sandbox)) == [("snapshot", "kept")]
    before = sandbox.ebs()["calls"]
    done = upload.run(is_resumed=True)
    assert_uploaded(done, disk.raw)
    after = sandbox.ebs()["calls"]
    assert {action: after[action] for action in ("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot")} == {
        action: before[action] for action in ("StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot")
    }


def test_completed_snapshot_without_an_image_is_removed_if_asked_for(sandbox, make_upload, disk, clean_up, wait_until):
    sandbox.fault("RegisterImage", delay_seconds=1, code="InternalError", status=500)
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: upload.has_entry("asked", kind="image"), process)
    upload.kill(process)
    upload.age(120)  # else an image may be there, and not show yet
    sandbox.faults()
    assert clean_up(upload, "--dry-run", "--completed") == [("snapshot", "found")]
    assert clean_up(upload, "--completed") == [("snapshot", "removed")]
    assert sandbox.left() == {}
