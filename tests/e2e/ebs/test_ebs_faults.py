"""What can go wrong at AWS: the upload ends right, or with the right error, and nothing is left."""

import json
import os
import signal

import pytest

pytestmark = pytest.mark.sandbox

PUT = "PutSnapshotBlock"
BLOCKS = 16


@pytest.fixture
def disk(make_disk):
    """A small image without holes."""
    return make_disk(BLOCKS)


def puts_of(sandbox):
    """The block requests so far, all snapshots together, by outcome."""
    return sandbox.ebs()["calls"].get(PUT, {})


# --- blocks: what passes is overcome

PASSING = {
    "throttled, account": ([{"first": 4, "code": "RequestThrottledException", "reason": "ACCOUNT_THROTTLED"}], 4),
    "throttled, snapshot": ([{"first": 4, "code": "ThrottlingException"}], 4),
    "a rate": ([{"rate": 8, "burst": 6}], 1),
    "500": ([{"every": 4, "code": "InternalServerException"}], 4),
    "503": ([{"first": 3, "code": "ServiceUnavailableException"}], 3),
    "too slow a block": ([{"nth": 2, "code": "ValidationException", "reason": "WRITE_REQUEST_TIMEOUT"}], 1),
    "hung up": ([{"nth": 2, "hang_up": "before"}, {"nth": 5, "hang_up": "after"}, {"nth": 7, "hang_up": "idle"}], 2),
    "answers lost": ([{"every": 5, "lose_answer": True}], 3),
    "answers cut off": ([{"nth": 3, "cut_answer": 0.3}, {"nth": 6, "cut_answer": 0.95}], 0),
    "answers late": ([{"every": 5, "delay_seconds": 1.5}], 0),
    "another checksum": ([{"every": 5, "wrong_checksum": True}], 0),
    "credentials expired": ([{"nth": 6, "expire": True}], 1),
    "no connection": ([{"action": "Connect", "after": 2, "first": 3, "hang_up": "before"}], 0),
}


@pytest.mark.parametrize("case", PASSING)
def test_fault_of_some_blocks_is_overcome(sandbox, make_upload, disk, assert_uploaded, case):
    faults, unanswered = PASSING[case]
    sandbox.faults(*({"action": PUT} | fault for fault in faults))
    upload = make_upload(disk.path)
    assert_uploaded(upload.run(), disk.raw)
    outcomes = puts_of(sandbox)
    assert sum(count for outcome, count in outcomes.items() if outcome != "ok") >= unanswered, outcomes
    (report,) = sandbox.ebs()["snapshots"].values()
    # What AWS did get is sent again only where it did not say so.
    is_said = case not in ("answers lost", "answers cut off", "another checksum")
    assert (report["repeat_count"] == 0) is is_said, report


def test_stalls_cost_time_only(sandbox, make_upload, disk, assert_uploaded):
    """Each way to hang at once: they wait for each other's time-out only."""
    sandbox.faults(
        {"action": PUT, "nth": 2, "stall": "answer"},
        {"action": PUT, "nth": 3, "stall": "done"},
        {"action": PUT, "nth": 4, "stall": "read"},
        {"action": "Connect", "nth": 5, "stall": "read"},
    )
    done = make_upload(disk.path).run()
    assert_uploaded(done, disk.raw)
    assert puts_of(sandbox) == {"ok": BLOCKS + 1, "dropped": 3}  # one was done, but not said so


def test_new_snapshot_that_is_not_known_everywhere_is_waited_for(sandbox, make_upload, disk, assert_uploaded):
    sandbox.pace(hidden_seconds=2, snapshot_seconds=2)
    assert_uploaded(make_upload(disk.path).run(), disk.raw)
    assert puts_of(sandbox)["ResourceNotFoundException"]


def test_credentials_that_live_shorter_than_the_upload_are_renewed(
    sandbox, make_upload, make_disk, assert_uploaded, settings
):
    sandbox.expire(3)
    settings(blocks_per_second=10)
    disk = make_disk(60)
    assert_uploaded(make_upload(disk.path).run(), disk.raw)
    assert len(sandbox.calls("AssumeRole")) >= 3
    assert "ExpiredTokenException" not in puts_of(sandbox)


@pytest.mark.parametrize("is_set_right", [True, False])
def test_clock_that_is_set_wrong_in_the_middle_does_not_cost_the_blocks(
    sandbox, make_upload, make_disk, assert_uploaded, settings, wait_until, is_set_right
):
    settings(blocks_per_second=30)
    disk = make_disk(40)
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: puts_of(sandbox).get("ok", 0) > 4, process)
    sandbox.clock(1200)
    wait_until(lambda: puts_of(sandbox).get("ok", 0) > 30, process)
    if is_set_right:
        sandbox.clock(0)
    done = upload.finish(process)
    assert puts_of(sandbox)["InvalidSignatureException"]
    if not is_set_right:  # the last call is not worth that much, and the next try has nothing else to do
        done.assert_failed(
            77, "this machine's clock is 20 minutes behind Amazon's (CompleteSnapshot: ", "Set the clock"
        )
        sandbox.clock(0)
        done = upload.run()
    assert_uploaded(done, disk.raw)
    (report,) = sandbox.ebs()["snapshots"].values()
    assert report["repeat_count"] == 0


# --- other calls: what passes is overcome


@pytest.mark.parametrize(
    ("action", "which"),
    [
        ("StartSnapshot", {"first": 1}),
        ("CompleteSnapshot", {"first": 1}),
        ("RegisterImage", {"first": 1}),
        ("CompleteSnapshot", {}),
        ("RegisterImage", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "once" if value else "always",
)
def test_lost_answer_after_success_makes_nothing_twice(sandbox, make_upload, disk, assert_uploaded, action, which):
    sandbox.fault(action, lose_answer=True, **which)
    assert_uploaded(make_upload(disk.path).run(), disk.raw)
    assert len(sandbox.ebs()["snapshots"]) == 1


def test_control_calls_that_fail_at_first_are_tried_again(sandbox, make_upload, disk, assert_uploaded):
    actions = ("StartSnapshot", "CompleteSnapshot", "ListSnapshotBlocks", "GetSnapshotBlock")
    ec2_actions = ("DescribeImages", "DescribeSnapshots", "CreateTags", "RegisterImage")
    sandbox.faults(
        *({"action": action, "first": 1, "code": "InternalServerException"} for action in actions),
        *({"action": action, "nth": 1, "code": "RequestLimitExceeded", "status": 503} for action in ec2_actions),
    )
    assert_uploaded(make_upload(disk.path).run(), disk.raw)
    refused = [call["action"] for call in sandbox.calls() if call["code"]]
    assert set(refused) == {*actions, *ec2_actions}


# --- what does not pass: the code, the line, nothing left

FINAL = {
    "quota of snapshots": ({"action": "StartSnapshot", "code": "ServiceQuotaExceededException"}, 76, "a quota of the"),
    "quota of blocks": (
        {
            "action": PUT,
            "nth": 5,
            "code": "ServiceQuotaExceededException",
            "reason": "DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
        },
        76,
        "a quota of the account is used up",
    ),
    "start": ({"action": "StartSnapshot", "code": "InternalServerException"}, 75, "AWS failed"),
    "start throttled": (
        {"action": "StartSnapshot", "code": "RequestThrottledException", "reason": "ACCOUNT_THROTTLED"},
        75,
        "AWS asks for fewer requests (StartSnapshot: RequestThrottledException)",
    ),
    "block": ({"action": PUT, "nth": 9, "code": "ValidationException", "reason": "INVALID_BLOCK"}, 76, "INVALID_BLOCK"),
    "complete": ({"action": "CompleteSnapshot", "code": "ConflictException"}, 76, "(CompleteSnapshot: Conflict"),
    "tags": ({"action": "CreateTags", "code": "TagLimitExceeded"}, 76, "(CreateTags: TagLimitExceeded)"),
    "register refused": ({"action": "RegisterImage", "code": "InvalidParameterValue"}, 76, "(RegisterImage: Invalid"),
}


@pytest.mark.parametrize("case", FINAL)
def test_fault_that_stays_is_said_and_leaves_nothing(sandbox, make_upload, disk, case):
    fault, exit_code, words = FINAL[case]
    sandbox.fault(**fault)
    upload = make_upload(disk.path)
    upload.run().assert_failed(exit_code, words)
    assert sandbox.left() == {}
    # After an error of its own AWS may yet have done what it was asked to: then another try wants to know.
    is_done_perhaps = fault["action"] == "StartSnapshot" and exit_code == 75
    assert upload.owes is is_done_perhaps


def test_block_that_comes_back_short_is_read_again(sandbox, make_upload, disk, assert_uploaded):
    sandbox.fault("GetSnapshotBlock", every=5, short_bytes=3)
    assert_uploaded(make_upload(disk.path, verify="full").run(), disk.raw)


@pytest.mark.parametrize("verify", ["full", None])
def test_block_that_was_stored_wrong_is_found(sandbox, make_upload, disk, assert_nothing_left, verify):
    sandbox.fault(PUT, nth=7, corrupt=True)
    upload = make_upload(disk.path, verify=verify, keep="snapshot")
    done = upload.run()
    done.assert_failed(76, "is not what was sent. Nothing was registered.")
    assert_nothing_left(upload)


def test_snapshot_that_expires_before_it_is_sealed_is_given_up(
    sandbox, make_upload, disk, assert_nothing_left, wait_until
):
    sandbox.fault("CompleteSnapshot", delay_seconds=1)
    upload = make_upload(disk.path)
    process = upload.start()
    wait_until(lambda: upload.has_entry("sealing"), process)
    sandbox.expire_snapshots()
    upload.finish(process).assert_failed(76, "not in the pending state")
    assert_nothing_left(upload)


def test_snapshot_that_vanishes_in_the_middle_does_not_hold_up_a_stop(
    sandbox, make_upload, make_disk, settings, wait_until
):
    settings(blocks_per_second=20)
    upload = make_upload(make_disk(60).path)
    process = upload.start()
    wait_until(lambda: puts_of(sandbox).get("ok", 0) > 4, process)
    sandbox.expire_snapshots(gone=True)
    wait_until(lambda: puts_of(sandbox).get("ResourceNotFoundException", 0) > 4, process)
    os.killpg(process.pid, signal.SIGTERM)
    upload.finish(process).assert_stopped()
    assert sandbox.left() == {}
    assert upload.owes  # so young a snapshot may only not show yet


def test_snapshot_of_a_lost_answer_is_found_again(sandbox, make_upload, disk, assert_uploaded):
    sandbox.fault("StartSnapshot", lose_answer=True)
    upload = make_upload(disk.path)
    upload.run().assert_failed(75, "can't be reached")
    sandbox.faults()
    assert_uploaded(upload.run(), disk.raw)
    assert len(sandbox.ebs()["snapshots"]) == 1


@pytest.mark.parametrize(("minutes", "direction"), [(20, "behind"), (-20, "ahead of")])
def test_clock_that_is_wrong_from_the_start_is_said(
    sandbox, make_upload, disk, assert_nothing_left, minutes, direction
):
    sandbox.clock(minutes * 60)
    upload = make_upload(disk.path)
    upload.run().assert_failed(77, f"this machine's clock is 20 minutes {direction} Amazon's")
    assert_nothing_left(upload)


# --- KMS


def test_snapshot_is_encrypted_with_the_key_that_is_named(sandbox, make_upload, disk, assert_uploaded):
    key_arn = sandbox.description["kms_keys"]["us-east-1"]
    assert_uploaded(make_upload(disk.path, kms_key_id=key_arn).run(), disk.raw)
    (snapshot,) = sandbox.account()["snapshots"]
    assert (snapshot["encrypted"], snapshot["kms_key_id"]) == (True, key_arn)


@pytest.mark.parametrize(
    ("key", "exit_code", "words"),
    [
        (
            "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-000000000000",
            65,
            "there is no KMS key arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-0000000000",
        ),
        ("alias/unknown", 65, "there is no KMS key alias/unknown in us-east-1"),
    ],
    ids=["arn", "alias"],
)
def test_key_that_is_not_known_is_said(sandbox, make_upload, disk, assert_nothing_left, key, exit_code, words):
    upload = make_upload(disk.path, kms_key_id=key)
    upload.run().assert_failed(exit_code, words)
    assert_nothing_left(upload)


# --- who answers


@pytest.fixture
def foreign_ca(tmp_path):
    """A file with a CA that nobody here has a certificate of."""
    from clouduploader.sandbox import certificates

    path = tmp_path / "foreign-ca.pem"
    certificates.create(path, tmp_path / "foreign.pem")
    return path


WRONG_PLACES = {
    "a CA that is not known": ({"AWS_CA_BUNDLE": "foreign"}, 78, "is not to be trusted"),
    "another host": ({"AWS_ENDPOINT_URL_EBS": "https://127.0.0.2:5443"}, 78, "'127.0.0.2' doesn't match"),
    "nobody": ({"AWS_ENDPOINT_URL_EBS": "https://127.0.0.1:9"}, 75, "can't be reached"),
}


@pytest.mark.parametrize("case", WRONG_PLACES)
def test_endpoint_that_is_not_amazons_gets_nothing(sandbox, make_upload, disk, foreign_ca, case):
    changes, exit_code, words = WRONG_PLACES[case]
    upload = make_upload(disk.path)
    done = upload.run(**{name: str(foreign_ca) if value == "foreign" else value for name, value in changes.items()})
    done.assert_failed(exit_code, words)
    assert sandbox.left() == {}
    assert sandbox.ebs()["calls"] == {}


# --- names


def test_name_that_is_taken_is_the_success_of_an_earlier_run_or_an_error(
    sandbox, make_upload, make_disk, disk, assert_uploaded
):
    first = make_upload(disk.path, ami_name="taken").run()
    again = make_upload(disk.path, ami_name="taken").run()
    assert again.image_id == first.image_id
    assert len(sandbox.calls("StartSnapshot")) == 1
    other = make_upload(make_disk(BLOCKS, name="other.raw", seed=2).path, ami_name="taken").run()
    other.assert_failed(76, "there is an image of that name already", first.image_id)
    assert_uploaded(first, disk.raw)


# --- the other way


def test_auto_goes_the_other_way_when_start_is_denied(sandbox, make_upload, make_image):
    deny = {"Effect": "Deny", "Action": "ebs:StartSnapshot", "Resource": "*"}
    allow = {"Effect": "Allow", "Action": ["ec2:*", "ebs:*"], "Resource": "*"}
    sandbox.policy({"Version": "2012-10-17", "Statement": [allow, deny]})
    image = make_image("image.raw.xz", size_bytes=1 << 20)
    done = make_upload(image.path, method="auto").run()
    assert sandbox.image_bytes(done.image_id, len(image.raw)) == image.raw
    assert [line for line in done.lines if line.startswith("EBS direct can't be used: ")] == [
        "EBS direct can't be used: the role may not call ebs:StartSnapshot (StartSnapshot: AccessDeniedException). "
        "Going on with ec2uploadimg."
    ]
    assert {kind: len(found) for kind, found in sandbox.left().items()} == {"images": 1, "snapshots": 1}
    assert sandbox.ebs()["snapshots"] == {}


def test_auto_is_ebs_direct_when_it_may(sandbox, make_upload, disk, assert_uploaded):
    done = make_upload(disk.path, method="auto").run("--json")
    answer = json.loads(done.stdout)
    assert (done.status, answer["exit_code"]) == (0, 0), done.stderr
    assert_uploaded(type(done)(0, done.log, f"{answer['data']['result']}\n", done.stderr), disk.raw)
    assert len(sandbox.ebs()["snapshots"]) == 1
