"""OBS's call with the method ebs-direct. Uploads by hand, their faults and resumes are in ../ebs."""

import hashlib
import json

import pytest

from clouduploader.platforms.ec2 import rights

pytestmark = pytest.mark.sandbox

BLOCK = 524288


@pytest.fixture
def make_direct(sandbox, make_job):
    """A factory of jobs with the method ebs-direct; they run with the sandbox's EBS endpoint and CA."""
    inside = sandbox.environment()
    names = ("AWS_ENDPOINT_URL_EBS", "AWS_CA_BUNDLE")

    def make(image=None, *, method="ebs-direct", **targetdata):
        job = make_job(image, method=method, **targetdata)
        start = job.start
        job.start = lambda *options, **changes: start(*options, **{name: inside[name] for name in names}, **changes)
        return job

    return make


def policy(*actions):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}


def described(sandbox, image_id):
    return next(entry for entry in sandbox.account()["images"] if entry["id"] == image_id)


def test_upload_becomes_an_ami_with_the_rights_of_its_policy_and_no_other(sandbox, make_direct, make_image):
    image = make_image()
    sandbox.policy(rights.permissions("ebs-direct", "aws"))
    job = make_direct(image, verify="full", description="A test")
    done = job.run()
    assert sandbox.image_bytes(done.image_id, len(image.raw)) == image.raw
    assert sandbox.image_bytes(done.image_id, len(image.raw), encrypted=True) == image.raw
    assert job.litter() == []
    assert {kind: len(ids) for kind, ids in sandbox.left().items()} == {"images": 1, "snapshots": 1}
    found = described(sandbox, done.image_id)
    assert found["architecture"] == "x86_64"
    assert (found["ena_support"], found["sriov_net_support"], found["imds_support"]) == (True, "simple", "v2.0")
    assert found["tags"]["clouduploader:sha256"] == hashlib.sha256(image.path.read_bytes()).hexdigest()
    (snapshot,) = sandbox.account()["snapshots"]
    assert snapshot["tags"] == found["tags"]
    assert done.phases == ["authenticate", "check image", "start snapshot", "upload", "seal", "verify", "register"]
    blocks = -(-len(image.raw) // BLOCK)
    assert f"Verified: {blocks} of {blocks} blocks read back and equal." in done.lines


@pytest.mark.parametrize("data", [{"encrypted": True}, {"verify": "full"}])
def test_auto_does_not_leave_out_what_was_asked_for(sandbox, make_direct, data):
    sandbox.policy(policy("ec2:*"))
    make_direct(method="auto", **data).run().assert_failed(77, "ebs:StartSnapshot")
    assert sandbox.left() == {}


@pytest.mark.parametrize("action", ["StartSnapshot", "CompleteSnapshot", "RegisterImage", "ListSnapshotBlocks"])
def test_credentials_that_expire_early_are_renewed(sandbox, make_direct, action):
    faults = {"expire": True} if action.endswith(("Snapshot", "Blocks")) else {"code": "ExpiredToken"}
    sandbox.fault(action, nth=1, **faults)
    assert make_direct().run().image_id


def test_kept_snapshot_is_gone_on_with(sandbox, make_direct, make_image):
    image = make_image()
    sandbox.fault("CompleteSnapshot", code="ValidationException")
    job = make_direct(image, keep="snapshot")
    failed = job.run()
    failed.assert_failed(76, "ValidationException")
    (snapshot_id,) = sandbox.left()["snapshots"]
    assert any(line.startswith(f"Kept: snapshot {snapshot_id}") for line in failed.lines)
    sandbox.faults()
    job.result_path.unlink()
    done = job.run()
    assert sandbox.image_bytes(done.image_id, len(image.raw)) == image.raw
    assert sandbox.left()["snapshots"] == [snapshot_id]
    assert sandbox.ebs()["snapshots"][snapshot_id]["repeat_count"] == 0


def test_same_upload_again_gives_the_same_image(sandbox, make_direct, make_image):
    image = make_image()
    first = make_direct(image).run()
    again = make_direct(image).run()
    assert again.image_id == first.image_id
    assert len(sandbox.calls("StartSnapshot")) == 1


def test_plan_says_what_it_costs_and_changes_nothing(sandbox, make_direct, make_image):
    image = make_image()
    key = sandbox.description["kms_keys"][sandbox.description["region"]]
    data = json.dumps(sandbox.targetdata(method="ebs-direct", encrypted=True, kms_key_id=key))
    data_path = sandbox.home / "data"
    data_path.write_text(data)
    done = sandbox.run(
        ["clouduploader", "upload", "--dry-run", "--target", "ec2", "--data", str(data_path), str(image.path)]
    )
    assert done.returncode == 0, done.stderr
    blocks = -(-len(image.raw) // BLOCK)
    for words in ("start a snapshot of 1 GiB", f"encrypted with {key}", f"as {blocks} blocks at most", "USD"):
        assert words in done.stdout
    assert sandbox.left() == {}
