"""`clouduploader upload`: a job of the spool, without OBS."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time

import pytest
from samples.job_logs import untimed

from clouduploader.model.job import JobState
from clouduploader.store import spool as spool_module

pytestmark = pytest.mark.sandbox

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02


@pytest.fixture
def small_image(make_image):
    """An image that is fast to upload."""
    return make_image("by hand.raw.xz", size_bytes=1 << 20)


@pytest.fixture
def role(sandbox):
    """The options that name the sandbox's role."""
    described = sandbox.description
    return [f"--arn={described['role_arn']}", f"--external-id={described['external_id']}"]


@pytest.fixture
def session(sandbox, aws):
    """Temporary credentials such as somebody has who is logged in."""
    described = sandbox.description
    arguments = {
        "RoleArn": described["role_arn"],
        "ExternalId": described["external_id"],
        "RoleSessionName": "ann",
    }
    (answer,) = aws(("sts", "assume_role", arguments), keys=described["obs"])
    return answer["Credentials"]


@pytest.fixture
def spool(sandbox):
    """The sandbox's spool; the job that comes with it is 1, the first of ours 2."""
    return spool_module.Spool(sandbox.spool)


@pytest.fixture
def start(sandbox, small_image, tmp_path):
    """Start an upload by hand, in a process group of its own as a shell does."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run(*options, before=(), image=None, **how):
        changes = how.pop("environment", {})
        argv = ["clouduploader", *before, "upload", image or small_image.path, *options]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return sandbox.popen(
            argv,
            env=sandbox.environment(TMPDIR=str(temporary), **changes),
            **(streams | {"process_group": 0} | how),
        )

    return run


@pytest.fixture
def upload(start):
    """Upload to the end; gives status, stdout and stderr."""

    def run(*options, **how):
        process = start(*options, **how)
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, stdout, stderr

    return run


def wait_for(spool, name, text):
    """Wait until the log of a running job has this in it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    path = spool.log_path(name)
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(POLL_SECONDS)


def test_upload_is_a_job_while_it_runs_and_an_archived_one_afterwards(
    sandbox, spool, start, role, small_image, tmp_path
):
    sandbox.helper(sftp_delay_seconds=0.05)
    events_path = tmp_path / "events.jsonl"
    process = start("--region=us-east-1", "--name=by hand", "--user=ann", f"--events={events_path}", "--json", *role)
    wait_for(spool, "2", "Phase: upload")

    running, _is_archived = spool.read("2")
    assert (running.state, running.pid) == (JobState.UPLOADING, process.pid)
    assert (running.user, running.target, running.filename) == ("ann", "ec2", "by hand.raw.xz")
    assert running.size == small_image.path.stat().st_size
    stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)

    assert (process.returncode, stderr) == (0, "job 2: uploading by hand.raw.xz\n")
    envelope = json.loads(stdout)
    assert (envelope["command"], envelope["exit_code"], envelope["error"]) == ("upload", 0, None)
    data = envelope["data"]
    ((image,), (snapshot,)) = sandbox.account()["images"], sandbox.account()["snapshots"]
    assert data == {
        "job": "2",
        "result": image["id"],
        "already_there": False,
        "images": {"us-east-1": image["id"]},
        "objects": [
            {"kind": "image", "id": image["id"], "region": "us-east-1"},
            {"kind": "snapshot", "id": snapshot["id"], "region": "us-east-1"},
        ],
        "shortfalls": [],
    }
    assert sandbox.image_bytes(image["id"], len(small_image.raw)) == small_image.raw
    archived, _is_archived = spool.read("2")
    assert (archived.state, archived.details, archived.pid) == (JobState.SUCCEEDED, image["id"], None)
    assert f"Created image: {image['id']}\n" in spool.done_log_path("2").read_text()
    assert not list(sandbox.spool.glob("2*"))
    assert not list((tmp_path / "tmp").iterdir())
    assert_events_tell_it_all(events_path, image["id"], job="2", user="ann")


def assert_events_tell_it_all(path, image_id, *, job, user):
    """Check a whole upload's events, one JSON object a line."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]) for event in events)
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[1], kinds[-1]) == ("start", "image", "end")
    assert {key: events[0][key] for key in ("job", "user", "target")} == {"job": job, "user": user, "target": "ec2"}
    assert {key: events[-1][key] for key in ("outcome", "result", "reason", "exit_code")} == {
        "outcome": "succeeded",
        "result": image_id,
        "reason": None,
        "exit_code": 0,
    }
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    assert phases[:3] == ["authenticate", "check image", "prepare"]
    assert phases[-1] == "register"
    progress = [event for event in events if event["event"] == "progress"]
    assert {event["phase"] for event in progress} == {"check image", "upload"}
    assert all(0 <= event["done_bytes"] <= event["total_bytes"] for event in progress)
    created = {(event["kind"], event["id"]) for event in events if event["event"] == "object-created"}
    removed = {(event["kind"], event["id"]) for event in events if event["event"] == "object-removed"}
    assert {kind for kind, _id in created - removed} == {"image", "snapshot"}
    assert removed <= created


def test_own_credentials_serve_where_no_role_is_named(sandbox, spool, upload, session):
    environment = {
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
    }
    status, stdout, _stderr = upload("--region=eu-central-1", "--name=by hand", environment=environment)
    assert status == 0
    ((image,),) = [sandbox.account()["images"]]
    assert stdout == f"{image['id']}\n"
    assert image["region"] == "eu-central-1"
    assert sandbox.left().keys() == {"images", "snapshots"}
    assert len(sandbox.calls("AssumeRole")) == 1  # it was the test's
    assert spool.read("2")[0].details == image["id"]


def test_failure_by_hand_is_archived_with_its_reason(sandbox, spool, upload, role):
    sandbox.fault("RunInstances", code="RequestLimitExceeded", message="Slow down.")
    status, stdout, stderr = upload("--region=us-east-1", "--name=by hand", *role)
    assert (status, stdout) == (75, "")
    reason = "AWS asks for fewer requests (RunInstances: RequestLimitExceeded). Try again later."
    assert stderr.splitlines() == ["job 2: uploading by hand.raw.xz", f"clouduploader: {reason}"]
    archived, _is_archived = spool.read("2")
    assert (archived.state, archived.details) == (JobState.FAILED, reason)
    assert untimed(spool.done_log_path("2").read_text())[-1] == f"Error: {reason}"
    assert sandbox.left() == {}


def test_failure_by_hand_is_json_if_asked_for(upload, role):
    status, stdout, stderr = upload("--region=eu-west-3", "--name=by hand", "--json", *role, before=["--quiet"])
    assert (status, stderr) == (78, "")
    envelope = json.loads(stdout)
    assert (envelope["exit_code"], envelope["data"], envelope["error"]["kind"]) == (78, None, "ConfigError")
    assert "region eu-west-3 is not configured" in envelope["error"]["message"]


def test_dry_run_checks_all_and_changes_nothing(sandbox, upload, role):
    before = {path: path.read_bytes() for path in sandbox.spool.rglob("*") if path.is_file()}
    status, stdout, stderr = upload("--region=us-east-1", "--name=by hand", "--dry-run", *role)
    assert status == 0
    assert "It is taken for one of x86_64" in stderr
    for words in ("assume role arn:aws:iam::", "helper instance (t2.micro, ami-", "AMI 'by hand' for x86_64", "10 GiB"):
        assert words in stdout
    assert {path: path.read_bytes() for path in sandbox.spool.rglob("*") if path.is_file()} == before
    assert sandbox.left() == {}
    actions = {call["action"] for call in sandbox.calls()}
    assert "AssumeRole" in actions
    assert all(action.startswith(("Assume", "Describe")) for action in actions)


def test_dry_run_finds_what_would_fail(sandbox, upload, role, make_image):
    cut = make_image("cut.raw.xz", cut_bytes=100)
    path = sandbox.home / ".ec2utils.conf"
    helper_ami = sandbox.description["helper_amis"]["eu-central-1"]
    path.write_text(path.read_text().replace(helper_ami, "ami-0123456789abcdef0"))
    cases = [
        (["--name=by hand"], {"image": cut.path}, 65, "cut.raw.xz is cut off"),
        (["--name=by hand", "--subnet=subnet-0123456789abcdef0"], {}, 65, "vpc_subnet_id: there is no subnet-"),
        (["--name=by hand", "--region=eu-central-1"], {}, 78, "helper AMI"),
        (["--name=a:b"], {}, 65, '--name is "a:b"'),
        (["--name=by hand", "--external-id=wrong"], {}, 77, "does not let us assume role"),
    ]
    for options, how, exit_code, words in cases:
        status, stdout, stderr = upload("--region=us-east-1", *role, *options, "--dry-run", **how)
        assert (status, stdout) == (exit_code, ""), stderr
        assert words in stderr
        assert stderr.count("\n") == 1


def test_ctrl_c_on_a_terminal_cleans_up(sandbox, spool, start, role):
    sandbox.fault("CreateSubnet", delay_seconds=1)
    master, slave = pty.openpty()

    def take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = start(
        "--region=us-east-1", "--name=by hand", *role,
        stdin=slave, stdout=slave, stderr=slave, process_group=None, start_new_session=True, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(slave)
    wait_for(spool, "2", "Created route table")
    os.write(master, b"\x03")
    shown = read_all(master)
    assert process.wait(PATIENCE_SECONDS) == 130, shown
    assert "prepare" in shown  # the live view
    assert "clouduploader: stopped by SIGINT." in shown
    assert sandbox.left() == {}
    archived, _is_archived = spool.read("2")
    assert (archived.state, archived.details) == (JobState.FAILED, "killed")
    assert untimed(spool.done_log_path("2").read_text())[-1].startswith("Error: stopped by SIGINT")


def read_all(terminal):
    """Read a terminal until the other end is closed by all."""
    pieces = []
    while True:
        try:
            pieces.append(os.read(terminal, 1 << 16))
        except OSError:  # EIO: how Linux says so
            os.close(terminal)
            return b"".join(pieces).decode("utf-8", "replace")


def test_obs_may_kill_what_was_started_by_hand(sandbox, spool, start, role):
    sandbox.fault("CreateSubnet", delay_seconds=1)
    process = start("--region=us-east-1", "--name=by hand", *role)
    wait_for(spool, "2", "Created route table")
    os.killpg(spool.read("2")[0].pid, signal.SIGTERM)
    with spool.lock("2") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143
    assert spool.read("2")[0].details == "killed"
    assert "Removed vpc " in spool.done_log_path("2").read_text()
    assert sandbox.left() == {}
    assert not list(sandbox.spool.glob("2*"))


def test_upload_ends_before_the_credentials_do(sandbox, start, spool, session, tmp_path):
    """The last 300 s of their life are for the clean-up; these come from a program, as with SSO."""
    sandbox.helper(command_delays={"dd": 3})
    given = {name: session[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
    program = tmp_path / "credentials.py"
    program.write_text(
        "import datetime, json\n"
        "end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=302)\n"
        f"print(json.dumps({{'Version': 1, 'Expiration': end.isoformat(), **{given!r}}}))\n"
    )
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    environment = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    process = start("--region=us-east-1", "--name=by hand", environment=environment)
    _stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 76
    assert "the upload was stopped: the temporary credentials were about to expire" in stderr
    assert sandbox.left() == {}
    assert spool.read("2")[0].state is JobState.FAILED
