"""A role with the policy for ec2uploadimg and no other is enough for every way an upload can go."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from clouduploader.platforms.ec2 import rights

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only for what should not happen


@pytest.fixture
def narrow_sandbox(sandbox):
    """The sandbox, with the role's rights cut down to those of the policy."""
    sandbox.policy(rights.permissions("ec2uploadimg", "aws"))
    return sandbox


def command(sandbox, **targetdata):
    (sandbox.spool / "1.data").write_text(json.dumps(sandbox.targetdata(**targetdata)))
    operands = ["1.file", "1.data", "1.log"]
    return [EXECUTABLE, "tom", "ec2", *(sandbox.spool / name for name in operands)]


def refused(sandbox):
    return [call["action"] for call in sandbox.calls() if call["code"] == "UnauthorizedOperation"]


@pytest.mark.parametrize("is_in_subnet", [False, True])
def test_policy_is_enough_for_an_upload(narrow_sandbox, is_in_subnet):
    subnet = narrow_sandbox.description["subnet_id"] if is_in_subnet else ""
    done = narrow_sandbox.run(command(narrow_sandbox, vpc_subnet_id=subnet, tags={"made by": "clouduploader"}))
    assert done.returncode == 0, done.stderr
    assert narrow_sandbox.left().keys() == {"images", "snapshots"}
    assert refused(narrow_sandbox) == []
    called = {f"ec2:{call['action']}" for call in narrow_sandbox.calls() if call["service"] == "ec2"}
    if not is_in_subnet:  # all rights are used, but for those that remove what a killed upload made
        unused = {"ec2:DeregisterImage", "ec2:DeleteSnapshot", "ec2:DetachInternetGateway"}
        assert set(rights.actions("ec2uploadimg")) - called <= unused | {"ec2:CreateTags"}


@pytest.mark.parametrize("is_killed_at", ["RunInstances", "CreateSnapshot"])
def test_policy_is_enough_for_the_clean_up(narrow_sandbox, is_killed_at):
    narrow_sandbox.pace(snapshot_seconds=3)
    process = narrow_sandbox.popen(command(narrow_sandbox))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not narrow_sandbox.calls(is_killed_at):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert narrow_sandbox.left() == {}
    assert refused(narrow_sandbox) == []


def test_role_without_a_right_is_told_which(narrow_sandbox):
    narrow_sandbox.policy(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
    )
    done = narrow_sandbox.run(command(narrow_sandbox))
    assert done.returncode == 77
    assert "the role may not call ec2:CreateKeyPair" in done.stderr
