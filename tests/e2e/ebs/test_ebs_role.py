"""A role with the rights for EBS direct and no others is enough, whatever happens; and each right is needed."""

import os
import signal
import sys
from pathlib import Path

import pytest

from clouduploader.platforms.ec2 import rights

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
KEY_ACTIONS = ("kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext")
"""Besides, for a customer's KMS key that is named by its ARN."""
DIRECT = rights.permissions("ebs-direct", "aws")
KMS = rights.permissions("kms", "aws")
OLD = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": rights.actions("ebs-direct"), "Resource": "*"}],
}
"""The policy that earlier versions printed: without conditions."""


def without(*actions):
    """The printed policies, but for these actions."""
    return [
        {
            **document,
            "Statement": [{**one, "Action": kept} for one in document["Statement"] if (kept := left(one, actions))],
        }
        for document in (DIRECT, KMS)
    ]


def left(statement, actions):
    return [action for action in statement["Action"] if action not in actions]


@pytest.fixture
def narrow_sandbox(sandbox):
    """The sandbox, with the role's rights cut down to the printed ones."""
    sandbox.policy(DIRECT)
    return sandbox


@pytest.fixture
def disk(make_disk):
    """A small image."""
    return make_disk(8)


@pytest.fixture
def stop_after_registration(wait_until):
    """Start an upload, and stop it when there is an AMI; gives what `finish` gives."""

    def stop(sandbox, upload):
        sandbox.fault("DescribeImages", nth=2, delay_seconds=1)
        process = upload.start()
        wait_until(lambda: upload.has_entry("made", kind="image"), process)
        os.killpg(process.pid, signal.SIGTERM)
        return upload.finish(process)

    return stop


def refused(sandbox):
    """The actions that were refused, but for those that look for what the other method makes."""
    codes = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
    return {call["action"] for call in sandbox.calls() if call["code"] in codes}


# --- they are enough


def test_role_is_enough_for_an_upload(narrow_sandbox, make_upload, disk, assert_uploaded):
    done = make_upload(disk.path, tags={"made by": "clouduploader"}, verify="full", encrypted=True).run()
    assert_uploaded(done, disk.raw)
    assert refused(narrow_sandbox) == set()


def test_role_of_an_earlier_version_goes_on_working(sandbox, make_upload, disk, assert_uploaded):
    sandbox.policy(OLD)
    assert_uploaded(make_upload(disk.path, verify="full").run(), disk.raw)
    assert refused(sandbox) == set()


def test_role_is_enough_for_the_clean_up(narrow_sandbox, make_upload, disk, stop_after_registration):
    stop_after_registration(narrow_sandbox, make_upload(disk.path)).assert_stopped()
    assert narrow_sandbox.left() == {}
    assert refused(narrow_sandbox) == set()


def test_role_is_enough_after_a_kill(narrow_sandbox, make_upload, disk, assert_uploaded, wait_until):
    narrow_sandbox.fault("CompleteSnapshot", delay_seconds=1)
    uploads = [make_upload(disk.path, verify="none") for _ in range(3)]
    for upload in uploads:
        process = upload.start()
        wait_until(lambda upload=upload: upload.has_entry("sealing"), process)
        upload.kill(process)
    narrow_sandbox.faults()
    by_journal, by_tags, resumed = uploads
    described = narrow_sandbox.description
    options = (
        f"--region={described['region']}",
        f"--arn={described['role_arn']}",
        f"--external-id={described['external_id']}",
        "--older-than=0s",
        "--completed",
    )
    assert narrow_sandbox.left().keys() == {"snapshots"}
    done = resumed.run(is_resumed=True)
    assert refused(narrow_sandbox) == set()
    for upload, words in ((by_journal, ("--completed",)), (by_tags, options)):
        argv = [EXECUTABLE, "cleanup", "--yes", *words]
        environment = upload.environment()
        if upload is by_tags:
            environment["CLOUDUPLOADER_STATE"] += "-lost"
        cleaned = narrow_sandbox.run(argv, env=environment)
        assert cleaned.returncode == 0, cleaned.stderr
    assert_uploaded(done, disk.raw)
    # What the other method makes can't be there with such a role, so that nobody needs to look for it.
    assert all(action.startswith("Describe") for action in refused(narrow_sandbox))


def test_rights_for_a_kms_key_are_enough(sandbox, make_upload, disk, assert_uploaded):
    sandbox.policy(without("kms:DescribeKey"))
    key_arn = sandbox.description["kms_keys"]["us-east-1"]
    assert_uploaded(make_upload(disk.path, kms_key_id=key_arn).run(), disk.raw)
    assert refused(sandbox) == {"DescribeKey"}  # what is not allowed is not looked at


# --- each is needed

NEEDED = (
    "ebs:StartSnapshot",
    "ebs:PutSnapshotBlock",
    "ebs:CompleteSnapshot",
    "ec2:CreateTags",
    "ec2:DescribeImages",
    "ec2:DescribeSnapshots",
    "ec2:RegisterImage",
    *KEY_ACTIONS,
)


@pytest.mark.parametrize("action", NEEDED)
def test_role_without_a_right_is_told_which(sandbox, make_upload, disk, assert_nothing_left, action):
    sandbox.policy(without(action))
    key_arn = sandbox.description["kms_keys"]["us-east-1"]
    upload = make_upload(disk.path, kms_key_id=key_arn if action in KEY_ACTIONS else None)
    upload.run().assert_failed(77, action)
    assert_nothing_left(upload)


@pytest.mark.parametrize("action", ["ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock"])
def test_role_that_may_not_read_is_verified_only_if_asked(
    sandbox, make_upload, disk, assert_uploaded, assert_nothing_left, action
):
    sandbox.policy(without(action))
    upload = make_upload(disk.path, verify="sample")
    upload.run().assert_failed(77, f"the role may not call {action}")
    assert_nothing_left(upload)
    done = make_upload(disk.path).run()
    assert_uploaded(done, disk.raw)
    assert any(line.startswith(f"Not verified: the role may not call {action} ") for line in done.lines)


@pytest.mark.parametrize(("kind", "action"), [("image", "DeregisterImage"), ("snapshot", "DeleteSnapshot")])
def test_role_that_may_not_remove_is_told_what_is_left(
    sandbox, make_upload, disk, stop_after_registration, kind, action
):
    sandbox.policy(without(f"ec2:{action}"))
    done = stop_after_registration(sandbox, make_upload(disk.path))
    assert done.status == 143
    (left,) = sandbox.account()[f"{kind}s"]
    assert (
        f"Left behind: {kind} {left['id']} in us-east-1: the role may not call ec2:{action} "
        f"({action}: UnauthorizedOperation)"
    ) in done.lines
