"""What can be made to go wrong with the sandbox's EBS direct APIs, and with any call."""

import base64
import hashlib
import json
import sys

import pytest

pytestmark = pytest.mark.sandbox

BLOCK = 524288
DATA = b"\x07" * BLOCK
CHECKSUM = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
BEGIN = ("ebs", "start_snapshot", {"VolumeSize": 1})
TIMEOUT_SECONDS = 2  # of a client that is not answered


def code_of(answer):
    return answer.get("Error", {}).get("Code")


def put(snapshot_id, index=0):
    arguments = {"SnapshotId": snapshot_id, "BlockIndex": index, "BlockData": DATA, "DataLength": BLOCK}
    return "ebs", "put_snapshot_block", arguments | {"Checksum": CHECKSUM, "ChecksumAlgorithm": "SHA256"}


@pytest.fixture
def snapshot_id(aws):
    (answer,) = aws(BEGIN)
    return answer["SnapshotId"]


@pytest.fixture
def puts(aws, snapshot_id):
    """Put blocks, each on a connection of its own; give the codes of the errors, or None."""

    def codes(count, **how):
        return [code_of(answer) for answer in aws(*(put(snapshot_id, index) for index in range(count)), **how)]

    return codes


@pytest.mark.parametrize(
    ("which", "hit"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"nth": 2}, [2]),
        ({"first": 2}, [1, 2]),
        ({"after": 4}, [5, 6]),
        ({"after": 1, "first": 2}, [2, 3]),
        ({"every": 3}, [3, 6]),
        ({"probability": 0.5, "seed": 1}, [1, 4, 5, 6]),
        ({"probability": 0.0}, []),
    ],
    ids=str,
)
def test_fault_hits_the_calls_that_were_asked_for(sandbox, puts, which, hit):
    sandbox.fault("PutSnapshotBlock", code="InternalServerException", **which)
    assert [number for number, code in enumerate(puts(6), 1) if code] == hit


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ThrottlingException", None),
        ("RequestThrottledException", "ACCOUNT_THROTTLED"),
        ("RequestThrottledException", "RESOURCE_LEVEL_THROTTLE"),
        ("InternalServerException", None),
        ("ServiceUnavailableException", None),
        ("ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"),
        ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"),
        ("ValidationException", "WRITE_REQUEST_TIMEOUT"),
    ],
)
def test_fault_answers_with_code_and_reason(sandbox, aws, snapshot_id, code, reason):
    sandbox.fault("PutSnapshotBlock", first=1, code=code, reason=reason, message="so it is")
    refused, taken = aws(put(snapshot_id), put(snapshot_id))
    assert (code_of(refused), refused.get("Reason"), refused["Error"]["Message"]) == (code, reason, "so it is")
    assert code_of(taken) is None
    assert sandbox.ebs()["calls"]["PutSnapshotBlock"] == {code: 1, "ok": 1}
    assert sandbox.ebs()["snapshots"][snapshot_id]["throttled"] == ("Throttl" in code)


@pytest.mark.parametrize("by", ["snapshot", "account"])
def test_rate_is_limited(sandbox, aws, by):
    one, other = (answer["SnapshotId"] for answer in aws(BEGIN, BEGIN))
    sandbox.fault("PutSnapshotBlock", rate=0.001, burst=2, by=by)
    answers = aws(*[put(one)] * 3, put(other))
    codes = [code_of(answer) for answer in answers]
    assert codes == [None, None, "RequestThrottledException", None if by == "snapshot" else "RequestThrottledException"]
    assert answers[2]["Reason"] == ("RESOURCE_LEVEL_THROTTLE" if by == "snapshot" else "ACCOUNT_THROTTLED")


def test_rate_of_ec2_is_limited_in_its_own_words(sandbox, aws):
    sandbox.fault("DescribeImages", rate=0.001, burst=1)
    codes = [code_of(answer) for answer in aws(*[("ec2", "describe_images", {})] * 2)]
    assert codes == [None, "RequestLimitExceeded"]


@pytest.mark.parametrize(("stall", "blocks"), [("read", 0), ("answer", 0), ("done", 1)])
def test_stalled_request_gets_no_answer(sandbox, puts, snapshot_id, stall, blocks):
    sandbox.fault("PutSnapshotBlock", first=1, stall=stall)
    codes = puts(2, timeout=TIMEOUT_SECONDS)
    # A client that can't get rid of its body finds the time-out while it writes.
    assert codes[0] in ("ReadTimeoutError", "ConnectionClosedError", "EndpointConnectionError", "HTTPClientError")
    assert codes[1] is None
    seen = sandbox.ebs()
    assert seen["snapshots"][snapshot_id]["puts"] == blocks + 1
    assert seen["calls"]["PutSnapshotBlock"]["dropped"] == 1


def test_stalled_requests_end_with_a_reset(sandbox, snapshot_id):
    sandbox.fault("StartSnapshot", stall="answer")
    code = "import boto3; boto3.client('ebs').start_snapshot(VolumeSize=1)"
    process = sandbox.popen([sys.executable, "-c", code], stderr=-1)
    while not sandbox.ebs()["calls"].get("StartSnapshot", {}).get("dropped"):
        assert process.poll() is None
    sandbox.reset()
    process.communicate()
    assert process.returncode == 1


@pytest.mark.parametrize("how", [{"stall": "read"}, {"hang_up": "before"}], ids=str)
def test_connection_fails_before_tls(sandbox, puts, how):
    sandbox.fault("Connect", first=1, **how)
    failed, taken = puts(2, timeout=TIMEOUT_SECONDS)
    assert failed is not None
    assert taken is None


@pytest.mark.parametrize(
    ("how", "blocks"),
    [
        ({"hang_up": "before"}, 0),
        ({"hang_up": "after"}, 0),
        ({"lose_answer": True}, 1),
    ],
    ids=str,
)
def test_connection_is_closed_without_a_whole_answer(sandbox, puts, snapshot_id, how, blocks):
    sandbox.fault("PutSnapshotBlock", first=1, **how)
    failed, taken = puts(2)
    assert failed is not None
    assert taken is None
    assert sandbox.ebs()["snapshots"][snapshot_id]["puts"] == blocks + 1


def test_answer_is_cut_off(sandbox, aws, snapshot_id):
    sandbox.fault("PutSnapshotBlock", first=1, cut_answer=0.2)
    cut, whole = aws(put(snapshot_id), put(snapshot_id))
    # botocore takes what it got for a success.
    assert ("Checksum" in cut, "Checksum" in whole) == (False, True)
    sandbox.fault("StartSnapshot", first=1, cut_answer=0.9)
    assert ["SnapshotId" in answer for answer in aws(BEGIN, BEGIN)] == [False, True]


def test_connection_is_closed_after_a_good_answer(sandbox):
    sandbox.fault("StartSnapshot", first=1, hang_up="idle")
    code = (
        "import boto3\n"
        "client = boto3.client('ebs')\n"
        "print(len({client.start_snapshot(VolumeSize=1)['SnapshotId'] for _ in range(3)}))\n"
    )
    done = sandbox.run([sys.executable, "-c", code])
    assert done.stdout == "3\n", done.stderr
    assert sandbox.ebs()["connections"]["total"] == 2


def test_answer_comes_late(sandbox, aws, snapshot_id):
    sandbox.fault("PutSnapshotBlock", nth=1, delay_seconds=TIMEOUT_SECONDS + 2)
    late, timely = aws(put(snapshot_id), put(snapshot_id, 1), timeout=TIMEOUT_SECONDS)
    assert [code_of(late), code_of(timely)] == ["ReadTimeoutError", None]


def test_credentials_expire_in_the_middle(sandbox, aws, snapshot_id):
    described = sandbox.description
    arguments = {"RoleArn": described["role_arn"], "ExternalId": described["external_id"], "RoleSessionName": "test"}
    (session,) = aws(("sts", "assume_role", arguments), keys=described["obs"])
    sandbox.fault("PutSnapshotBlock", nth=2, expire=True)
    answers = aws(*[put(snapshot_id, index) for index in range(3)], keys=session["Credentials"])
    assert [code_of(answer) for answer in answers] == [None, "ExpiredTokenException", "ExpiredTokenException"]


def test_checksum_in_the_answer_can_be_wrong(sandbox, aws, snapshot_id):
    sandbox.fault("PutSnapshotBlock", nth=1, wrong_checksum=True)
    wrong, right = aws(put(snapshot_id), put(snapshot_id))
    assert wrong["Checksum"] != right["Checksum"] == CHECKSUM


def test_block_can_come_back_short(sandbox, aws, snapshot_id):
    aws(put(snapshot_id))
    seal = {"SnapshotId": snapshot_id, "ChangedBlocksCount": 1}
    aws(("ebs", "complete_snapshot", seal))
    (listed,) = aws(("ebs", "list_snapshot_blocks", {"SnapshotId": snapshot_id}))
    token = listed["Blocks"][0]["BlockToken"]
    sandbox.fault("GetSnapshotBlock", nth=1, short_bytes=3)
    get = ("ebs", "get_snapshot_block", {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": token})
    short, whole = aws(get, get)
    assert (len(short["BlockData"]), len(whole["BlockData"])) == (BLOCK - 3, BLOCK)


def test_block_can_be_corrupted_silently(sandbox, aws, snapshot_id):
    sandbox.fault("PutSnapshotBlock", nth=1, corrupt=True)
    linear = base64.b64encode(hashlib.sha256(hashlib.sha256(DATA).digest()).digest()).decode()
    seal = {
        "SnapshotId": snapshot_id,
        "ChangedBlocksCount": 1,
        "Checksum": linear,
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    }
    written, sealed = aws(put(snapshot_id), ("ebs", "complete_snapshot", seal))
    assert (written["Checksum"], sealed["Status"]) == (CHECKSUM, "completed")
    content = sandbox.volume_bytes(snapshot_id, BLOCK)
    assert content != DATA
    assert content[1:] == DATA[1:]


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "CreateVolume", "stall": "read"},
        {"action": "CreateVolume", "corrupt": True},
        {"action": "PutSnapshotBlock", "stall": "sometimes"},
        {"action": "PutSnapshotBlock", "rate": 1, "by": "moon"},
        {"action": "PutSnapshotBlock", "unknown": 1},
    ],
    ids=json.dumps,
)
def test_fault_that_means_nothing_is_refused(sandbox, fault):
    with pytest.raises(AssertionError, match="Error"):
        sandbox.faults(fault)
