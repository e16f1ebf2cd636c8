"""The sandbox's EBS direct APIs: each rule that Amazon documents, as a client sees it."""

import base64
import hashlib
import subprocess
import sys

import pytest

from clouduploader.sandbox.aws import disks, keys

pytestmark = pytest.mark.sandbox

BLOCK = disks.BLOCK_BYTES
REGION = "us-east-1"


def code_of(answer):
    return answer.get("Error", {}).get("Code")


def reason_of(answer):
    """The code and the reason of a refusal."""
    return code_of(answer), answer.get("Reason")


def digest(data):
    return hashlib.sha256(data).digest()


def encoded(data):
    return base64.b64encode(digest(data)).decode()


def put(snapshot_id, index, data, **changes):
    arguments = {
        "SnapshotId": snapshot_id,
        "BlockIndex": index,
        "BlockData": data,
        "DataLength": len(data),
        "Checksum": encoded(data),
        "ChecksumAlgorithm": "SHA256",
    } | changes
    return "ebs", "put_snapshot_block", {key: value for key, value in arguments.items() if value is not None}


def complete(snapshot_id, blocks, **changes):
    """Seal a snapshot of these blocks, which are by index."""
    arguments = {
        "SnapshotId": snapshot_id,
        "ChangedBlocksCount": len(blocks),
        "Checksum": encoded(b"".join(digest(blocks[index]) for index in sorted(blocks))),
        "ChecksumAlgorithm": "SHA256",
        "ChecksumAggregationMethod": "LINEAR",
    } | changes
    return "ebs", "complete_snapshot", {key: value for key, value in arguments.items() if value is not None}


def pattern(number):
    return bytes([number]) * BLOCK


@pytest.fixture
def start(aws):
    """A factory of pending snapshots; gives the id."""

    def begin(**changes):
        (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1} | changes))
        return answer["SnapshotId"]

    return begin


@pytest.fixture
def make_snapshot(aws, start):
    """A factory of complete snapshots of some blocks; gives the id."""

    def make(blocks, **changes):
        snapshot_id = start(**changes)
        calls = [put(snapshot_id, index, data) for index, data in blocks.items()]
        answers = aws(*calls, complete(snapshot_id, blocks))
        assert [code_of(answer) for answer in answers] == [None] * (len(blocks) + 1)
        return snapshot_id

    return make


@pytest.fixture
def role_keys(sandbox, aws):
    described = sandbox.description
    arguments = {
        "RoleArn": described["role_arn"],
        "ExternalId": described["external_id"],
        "RoleSessionName": "test",
    }
    (answer,) = aws(("sts", "assume_role", arguments), keys=described["obs"])
    return answer["Credentials"]


def statement(*actions, resource="*"):
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [allowed]}


# --- a snapshot's life


def test_snapshot_holds_what_was_written(sandbox, aws, make_snapshot):
    blocks = {2047: pattern(7), 0: pattern(1), 3: bytes(BLOCK)}
    snapshot_id = make_snapshot(blocks)
    (listing,) = aws(("ebs", "list_snapshot_blocks", {"SnapshotId": snapshot_id}))
    assert (listing["VolumeSize"], listing["BlockSize"]) == (1, BLOCK)
    found = {block["BlockIndex"]: block["BlockToken"] for block in listing["Blocks"]}
    assert list(found) == [0, 3, 2047]
    for index, token in found.items():
        arguments = {"SnapshotId": snapshot_id, "BlockIndex": index, "BlockToken": token}
        (read,) = aws(("ebs", "get_snapshot_block", arguments))
        assert (read["BlockData"], read["Checksum"]) == (blocks[index], encoded(blocks[index]))
        assert (read["DataLength"], read["ChecksumAlgorithm"]) == (BLOCK, "SHA256")
    with sandbox.content(snapshot_id).open("rb") as content:
        assert content.read(4 * BLOCK) == blocks[0] + bytes(3 * BLOCK)
        content.seek(2047 * BLOCK)
        assert content.read() == blocks[2047]


def test_snapshot_is_pending_until_it_is_complete(sandbox, aws, start):
    sandbox.pace(snapshot_seconds=3600)
    snapshot_id = start(Description="of a test", Tags=[{"Key": "a", "Value": "b"}])
    describe = ("ec2", "describe_snapshots", {"SnapshotIds": [snapshot_id]})
    volume = ("ec2", "create_volume", {"SnapshotId": snapshot_id, "AvailabilityZone": "us-east-1a"})
    shown, made, listing = aws(describe, volume, ("ebs", "list_snapshot_blocks", {"SnapshotId": snapshot_id}))
    (seen,) = shown["Snapshots"]
    assert (seen["State"], seen["VolumeSize"], seen["Encrypted"]) == ("pending", 1, False)
    assert (seen["Description"], seen["Tags"]) == ("of a test", [{"Key": "a", "Value": "b"}])
    assert code_of(made) == "IncorrectState"
    assert reason_of(listing) == ("ValidationException", "INVALID_SNAPSHOT_ID")
    sealed, shown, written = aws(complete(snapshot_id, {}), describe, put(snapshot_id, 0, pattern(1)))
    assert (sealed["Status"], shown["Snapshots"][0]["State"]) == ("pending", "pending")
    assert reason_of(written) == ("ValidationException", "INVALID_SNAPSHOT_ID")
    assert sandbox.ebs()["snapshots"][snapshot_id]["state"] == "pending"


def test_snapshot_without_blocks_can_be_completed(aws, make_snapshot):
    (shown,) = aws(("ec2", "describe_snapshots", {"SnapshotIds": [make_snapshot({})]}))
    assert (shown["Snapshots"][0]["State"], shown["Snapshots"][0]["Progress"]) == ("completed", "100%")


def test_snapshot_is_completed_once(aws, make_snapshot):
    (again,) = aws(complete(make_snapshot({0: pattern(1)}), {0: pattern(1)}))
    assert reason_of(again) == ("ValidationException", "INVALID_SNAPSHOT_ID")


def test_deleted_snapshot_takes_no_blocks(sandbox, aws, start):
    snapshot_id = start()
    answers = aws(
        put(snapshot_id, 0, pattern(1)),
        ("ec2", "delete_snapshot", {"SnapshotId": snapshot_id}),
        put(snapshot_id, 1, pattern(1)),
        complete(snapshot_id, {0: pattern(1)}),
    )
    assert [code_of(answer) for answer in answers[:2]] == [None, None]
    assert [reason_of(answer) for answer in answers[2:]] == [("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")] * 2
    assert sandbox.left() == {}


@pytest.mark.parametrize("is_gone", [False, True])
def test_pending_snapshot_can_be_let_expire(sandbox, aws, start, make_snapshot, is_gone):
    finished, waiting = make_snapshot({}), start()
    sandbox.expire_snapshots(gone=is_gone)
    (written,) = aws(put(waiting, 0, pattern(1)))
    assert code_of(written) == ("ResourceNotFoundException" if is_gone else "ValidationException")
    states = {entry["id"]: entry["state"] for entry in sandbox.account()["snapshots"]}
    assert states == {finished: "completed"} | ({} if is_gone else {waiting: "error"})


def test_pending_snapshot_expires_by_its_timeout(sandbox, start):
    short, long = start(Timeout=10), start()
    sandbox.clock(11 * 60)
    states = {entry["id"]: entry["state"] for entry in sandbox.account()["snapshots"]}
    assert states == {short: "error", long: "pending"}


def test_new_snapshot_may_be_unknown_for_a_while(sandbox, aws, start):
    sandbox.pace(hidden_seconds=3600)
    snapshot_id = start()
    written, shown = aws(put(snapshot_id, 0, pattern(1)), ("ec2", "describe_snapshots", {"SnapshotIds": [snapshot_id]}))
    assert reason_of(written) == ("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND")
    assert code_of(shown) == "InvalidSnapshot.NotFound"


def test_snapshot_of_another_region_is_unknown(aws, start):
    (written,) = aws(put(start(), 0, pattern(1)), region="eu-central-1")
    assert code_of(written) == "ResourceNotFoundException"


# --- StartSnapshot


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"VolumeSize": 0}, "INVALID_VOLUME_SIZE"),
        ({"VolumeSize": 65537}, "INVALID_VOLUME_SIZE"),
        ({"VolumeSize": "1"}, "INVALID_VOLUME_SIZE"),
        ({"Timeout": 9}, "INVALID_PARAMETER_VALUE"),
        ({"Timeout": 4321}, "INVALID_PARAMETER_VALUE"),
        ({"Description": "x" * 256}, "INVALID_PARAMETER_VALUE"),
        ({"ClientToken": "x" * 65}, "INVALID_PARAMETER_VALUE"),
        ({"Tags": [{"Key": "k" * 128, "Value": ""}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": "k", "Value": "v" * 256}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": "aws:k", "Value": ""}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": "k", "Value": ""}, {"Key": "k", "Value": ""}]}, "INVALID_TAG"),
        ({"Tags": [{"Key": str(n), "Value": ""} for n in range(51)]}, "INVALID_TAG"),
        ({"KmsKeyArn": keys.arn(REGION, keys.CUSTOMER_ALIAS)}, "INVALID_PARAMETER_VALUE"),
        ({"Encrypted": True, "KmsKeyArn": keys.CUSTOMER_ALIAS}, "INVALID_CUSTOMER_KEY"),
        ({"Encrypted": True, "KmsKeyArn": keys.arn("eu-west-1", keys.CUSTOMER_ALIAS)}, "INVALID_CUSTOMER_KEY"),
        ({"ParentSnapshotId": "snap-0123456789abcdef0"}, "INVALID_PARAMETER_VALUE"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_start_snapshot_checks_all_arguments(sandbox, aws, changes, reason):
    (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1} | changes))
    assert reason_of(answer) == ("ValidationException", reason)
    assert sandbox.left() == {}


def test_start_snapshot_takes_the_bounds(aws):
    tags = [{"Key": f"{number}".ljust(127, "k"), "Value": "v" * 255} for number in range(50)]
    arguments = {"VolumeSize": 65536, "Timeout": 4320, "Description": "x" * 255, "ClientToken": "x" * 64, "Tags": tags}
    (answer,) = aws(("ebs", "start_snapshot", arguments))
    assert (answer["VolumeSize"], answer["BlockSize"], answer["Status"]) == (65536, BLOCK, "pending")
    assert answer["Tags"] == tags


def test_same_client_token_starts_one_snapshot(sandbox, aws, start):
    arguments = {"VolumeSize": 1, "ClientToken": "t", "Tags": [{"Key": "a", "Value": "b"}]}
    first, second, other = aws(
        ("ebs", "start_snapshot", arguments),
        ("ebs", "start_snapshot", arguments),
        ("ebs", "start_snapshot", arguments | {"Tags": []}),
    )
    assert second == first
    assert code_of(other) == "ConflictException"
    assert sandbox.left() == {"snapshots": [first["SnapshotId"]]}
    assert start(ClientToken="u") != first["SnapshotId"]


def test_client_token_in_use_is_refused(sandbox, aws):
    sandbox.fault("StartSnapshot", first=1, delay_seconds=2)
    code = "import boto3; boto3.client('ebs').start_snapshot(VolumeSize=1, ClientToken='t')"
    process = sandbox.popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    answer = {}
    while process.poll() is None and code_of(answer) is None:
        if sandbox.ebs()["connections"]["open"]:
            (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1, "ClientToken": "t"}))
    _, stderr = process.communicate()
    # Either may have been the first.
    assert sorted([process.returncode == 0, "SnapshotId" in answer]) == [False, True]
    assert "ConcurrentLimitExceededException" in f"{stderr}{code_of(answer)}"


def test_encrypted_snapshot_needs_the_rights_to_its_key(sandbox, aws, start, role_keys):
    key = sandbox.description["kms_keys"][REGION]
    begin = ("ebs", "start_snapshot", {"VolumeSize": 1, "Encrypted": True, "KmsKeyArn": key})
    sandbox.policy(statement("ebs:*"))
    (answer,) = aws(begin, keys=role_keys)
    assert reason_of(answer) == ("AccessDeniedException", "DEPENDENCY_ACCESS_DENIED")
    assert "kms:" in answer["Error"]["Message"]
    sandbox.policy(statement("ebs:*", "kms:*"))
    (answer,) = aws(begin, keys=role_keys)
    assert answer["KmsKeyArn"] == key
    (shown,) = aws(("ec2", "describe_snapshots", {"SnapshotIds": [answer["SnapshotId"]]}))
    assert (shown["Snapshots"][0]["Encrypted"], shown["Snapshots"][0]["KmsKeyId"]) == (True, key)


def test_encrypted_volume_shows_garbage_where_nothing_was_written(sandbox, make_snapshot):
    snapshot_id = make_snapshot({0: pattern(1), 2: bytes(BLOCK)}, Encrypted=True)
    assert sandbox.volume_bytes(snapshot_id, 3 * BLOCK) == pattern(1) + bytes(2 * BLOCK)
    shown = sandbox.volume_bytes(snapshot_id, 3 * BLOCK, encrypted=True)
    assert shown == pattern(1) + disks.GARBAGE + bytes(BLOCK)


# --- PutSnapshotBlock


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"BlockIndex": 2048}, "INVALID_BLOCK"),
        ({"BlockIndex": -1}, "INVALID_BLOCK"),
        ({"DataLength": 512}, "INVALID_BLOCK"),
        ({"BlockData": pattern(1)[:-1]}, "INVALID_BLOCK"),
        ({"BlockData": pattern(1) + b"x"}, "INVALID_BLOCK"),
        ({"BlockData": pattern(2)}, "INVALID_BLOCK"),
        ({"Checksum": "no checksum"}, "INVALID_PARAMETER_VALUE"),
        ({"Checksum": None}, "INVALID_PARAMETER_VALUE"),
        ({"ChecksumAlgorithm": "MD5"}, "INVALID_PARAMETER_VALUE"),
        ({"ChecksumAlgorithm": None}, "INVALID_PARAMETER_VALUE"),
        ({"Progress": 101}, "INVALID_PARAMETER_VALUE"),
        ({"SnapshotId": "vol-1"}, "INVALID_SNAPSHOT_ID"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_put_snapshot_block_checks_all_arguments(sandbox, aws, start, changes, reason):
    snapshot_id = start()
    (answer,) = aws(put(snapshot_id, 0, pattern(1), **changes))
    assert reason_of(answer) == ("ValidationException", reason)
    assert sandbox.ebs()["snapshots"][snapshot_id]["blocks"] == 0


def test_block_can_be_overwritten_and_counts_once(sandbox, aws, start):
    snapshot_id = start()
    answers = aws(
        put(snapshot_id, 5, pattern(1), Progress=50),
        put(snapshot_id, 5, pattern(1)),
        put(snapshot_id, 5, bytes(BLOCK)),
        complete(snapshot_id, {5: bytes(BLOCK)}),
    )
    assert [code_of(answer) for answer in answers] == [None] * 4
    assert answers[0]["Checksum"] == encoded(pattern(1))
    assert sandbox.volume_bytes(snapshot_id, 6 * BLOCK) == bytes(6 * BLOCK)
    seen = sandbox.ebs()["snapshots"][snapshot_id]
    assert (seen["state"], seen["blocks"], seen["puts"], seen["repeat_count"]) == ("completed", 1, 3, 2)
    assert seen["repeats"] == [{"index": 5, "same": True}, {"index": 5, "same": False}]


# --- CompleteSnapshot


@pytest.mark.parametrize(
    "changes",
    [
        {"ChangedBlocksCount": 1},
        {"ChangedBlocksCount": 3},
        {"ChangedBlocksCount": None},
        {"Checksum": encoded(b"")},
        {"Checksum": None},
        {"ChecksumAggregationMethod": None},
        {"ChecksumAggregationMethod": "TREE"},
        {"ChecksumAlgorithm": None},
    ],
    ids=str,
)
def test_complete_snapshot_checks_all_arguments(sandbox, aws, start, changes):
    snapshot_id, blocks = start(), {0: pattern(1), 9: pattern(2)}
    calls = [put(snapshot_id, index, data) for index, data in blocks.items()]
    *_, refused, right = aws(*calls, complete(snapshot_id, blocks, **changes), complete(snapshot_id, blocks))
    assert reason_of(refused) == ("ValidationException", "INVALID_PARAMETER_VALUE")
    assert right["Status"] == "completed"


def test_complete_snapshot_needs_no_checksum(aws, start):
    bare = {"Checksum": None, "ChecksumAlgorithm": None, "ChecksumAggregationMethod": None}
    (answer,) = aws(complete(start(), {}, **bare))
    assert answer["Status"] == "completed"


# --- reading


def test_blocks_are_listed_in_pages(aws, make_snapshot):
    snapshot_id = make_snapshot({index: bytes(BLOCK) for index in range(0, 202, 2)})
    ask = {"SnapshotId": snapshot_id, "MaxResults": 100}
    (first,) = aws(("ebs", "list_snapshot_blocks", ask))
    second, late, wrong = aws(
        ("ebs", "list_snapshot_blocks", ask | {"NextToken": first["NextToken"], "StartingBlockIndex": 7}),
        ("ebs", "list_snapshot_blocks", ask | {"StartingBlockIndex": 191}),
        ("ebs", "list_snapshot_blocks", ask | {"NextToken": "AAAA"}),
    )
    assert [block["BlockIndex"] for block in first["Blocks"]] == list(range(0, 200, 2))
    assert [block["BlockIndex"] for block in second["Blocks"]] == [200]
    assert "NextToken" not in second
    assert [block["BlockIndex"] for block in late["Blocks"]] == [192, 194, 196, 198, 200]
    assert reason_of(wrong) == ("ValidationException", "INVALID_PAGE_TOKEN")


def test_block_is_read_with_its_own_token_only(aws, make_snapshot):
    snapshot_id = make_snapshot({0: pattern(1), 1: pattern(2)})
    (listing,) = aws(("ebs", "list_snapshot_blocks", {"SnapshotId": snapshot_id}))
    token = listing["Blocks"][1]["BlockToken"]
    arguments = {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": token}
    (answer,) = aws(("ebs", "get_snapshot_block", arguments))
    assert reason_of(answer) == ("ValidationException", "INVALID_BLOCK_TOKEN")


def test_snapshot_of_a_volume_can_be_read(sandbox, aws):
    (volume,) = aws(("ec2", "create_volume", {"Size": 1, "AvailabilityZone": "us-east-1a"}))
    with sandbox.content(volume["VolumeId"]).open("wb") as file:
        file.seek(3 * BLOCK + 100)
        file.write(b"x")
    (made,) = aws(("ec2", "create_snapshot", {"VolumeId": volume["VolumeId"]}))
    (listing,) = aws(("ebs", "list_snapshot_blocks", {"SnapshotId": made["SnapshotId"]}))
    (block,) = listing["Blocks"]
    assert block["BlockIndex"] == 3
    (read,) = aws(("ebs", "get_snapshot_block", {"SnapshotId": made["SnapshotId"], **block}))
    assert read["BlockData"] == (bytes(100) + b"x").ljust(BLOCK, b"\0")


# --- who may


@pytest.mark.parametrize(
    ("tampered", "code"),
    [
        ({"x-amz-Checksum": encoded(pattern(2))}, "InvalidSignatureException"),
        ({"x-amz-Data-Length": "1"}, "InvalidSignatureException"),
        ({"x-amz-Progress": "7"}, "InvalidSignatureException"),
        ({"X-Amz-Date": None}, "InvalidSignatureException"),
        ({"X-Amz-Date": "20200101T000000Z"}, "InvalidSignatureException"),
        ({"X-Amz-Content-SHA256": "0" * 64}, "InvalidSignatureException"),
        ({"Host": "localhost"}, "InvalidSignatureException"),
        ({"Authorization": None}, "MissingAuthenticationTokenException"),
        ({"Authorization": "AWS4-HMAC-SHA256 x"}, "IncompleteSignatureException"),
        ({"User-Agent": "not signed"}, None),
    ],
    ids=str,
)
def test_what_is_signed_cannot_be_changed(aws, start, tampered, code):
    (answer,) = aws(put(start(), 0, pattern(1)), tampered=tampered)
    assert code_of(answer) == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"SecretAccessKey": "wrong"}, "InvalidSignatureException"),
        ({"SessionToken": "wrong"}, "UnrecognizedClientException"),
        ({"SessionToken": None}, "UnrecognizedClientException"),
        ({"AccessKeyId": "ASIAXXXXXXXXXXXXXXXX"}, "UnrecognizedClientException"),
    ],
    ids=["right", "secret", "token", "no token", "key"],
)
def test_credentials_that_are_wrong_are_refused(aws, role_keys, changes, code):
    given = {key: value for key, value in (role_keys | changes).items() if isinstance(value, str)}
    (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1}), keys=given)
    assert code_of(answer) == code


def test_credentials_end(sandbox, aws, role_keys):
    sandbox.expire()
    (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1}), keys=role_keys)
    assert code_of(answer) == "ExpiredTokenException"


def test_life_of_credentials_can_be_cut_short(sandbox, aws):
    sandbox.expire(life_seconds=-1)
    described = sandbox.description
    arguments = {"RoleArn": described["role_arn"], "ExternalId": described["external_id"], "RoleSessionName": "test"}
    (session,) = aws(("sts", "assume_role", arguments), keys=described["obs"])
    (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1}), keys=session["Credentials"])
    assert code_of(answer) == "ExpiredTokenException"


@pytest.mark.parametrize(("minutes", "word"), [(6, "Signature expired"), (-6, "Signature not yet current")])
def test_clock_that_is_more_than_5_minutes_off_is_refused(sandbox, aws, minutes, word):
    begin = ("ebs", "start_snapshot", {"VolumeSize": 1})
    sandbox.clock(4 * 60)
    assert code_of(aws(begin)[0]) is None
    sandbox.clock(minutes * 60)
    (answer,) = aws(begin)
    assert code_of(answer) == "InvalidSignatureException"
    assert answer["Error"]["Message"].startswith(word)


def test_region_that_is_not_enabled_is_refused(aws):
    (answer,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1}), region="af-south-1")
    assert code_of(answer) == "UnrecognizedClientException"


def test_role_policy_limits_what_the_role_may_do(sandbox, aws, start, role_keys):
    sandbox.policy(statement("ebs:StartSnapshot", resource="arn:aws:ec2:us-east-1::snapshot/*"))
    snapshot_id = start()
    tags = [{"Key": "a", "Value": "b"}]
    started, written, tagged = aws(
        ("ebs", "start_snapshot", {"VolumeSize": 1}),
        put(snapshot_id, 0, pattern(1)),
        ("ebs", "start_snapshot", {"VolumeSize": 1, "Tags": tags}),
        keys=role_keys,
    )
    assert code_of(started) is None
    assert [code_of(written), code_of(tagged)] == ["AccessDeniedException"] * 2
    assert (
        "is not authorized to perform: ebs:PutSnapshotBlock on resource: arn:aws:ec2:us-east-1::snapshot/"
        in (written["Error"]["Message"])
    )
    assert "ec2:CreateTags" in tagged["Error"]["Message"]
    (abroad,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1}), keys=role_keys, region="eu-central-1")
    assert code_of(abroad) == "AccessDeniedException"


# --- the wire


def test_certificate_is_of_the_ca_and_for_the_names(sandbox):
    code = (
        "import os, socket, ssl\n"
        "for name, ca in (('127.0.0.1', True), ('localhost', True), ('127.0.0.2', True), ('127.0.0.1', False)):\n"
        "    context = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'] if ca else None)\n"
        "    try:\n"
        "        context.wrap_socket(socket.create_connection((name, 5443)), server_hostname=name).close()\n"
        "        print('fine')\n"
        "    except ssl.SSLCertVerificationError as exc: print(exc.verify_code)\n"
    )
    done = sandbox.run([sys.executable, "-c", code])
    # X509_V_ERR_IP_ADDRESS_MISMATCH, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    assert done.stdout.split() == ["fine", "fine", "64", "20"], done.stderr


def test_connection_is_kept_and_answers_have_a_date(sandbox):
    code = (
        "import http.client, os, ssl\n"
        "context = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])\n"
        "connection = http.client.HTTPSConnection('127.0.0.1', 5443, context=context)\n"
        "for method, path in (('GET', '/x'), ('PUT', '/snapshots/snap-1/blocks/0'), ('POST', '/snapshots')):\n"
        "    connection.request(method, path, body=b'x' * 600000 if method == 'PUT' else None)\n"
        "    answer = connection.getresponse()\n"
        "    answer.read()\n"
        "    print(answer.status, answer.getheader('x-amzn-ErrorType'), answer.getheader('Date')[-3:])\n"
    )
    done = sandbox.run([sys.executable, "-c", code])
    assert done.stdout.splitlines() == ["403 MissingAuthenticationTokenException GMT"] * 3, done.stderr
    assert sandbox.ebs()["connections"] == {"open": 0, "peak": 1, "total": 1}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: 1\r\nA: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"A" * 70000,
    ],
    ids=lambda value: repr(value[:50]),
)
def test_nonsense_ends_the_connection(sandbox, request_bytes):
    code = (
        "import os, socket, ssl, sys\n"
        "context = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])\n"
        "plain = socket.create_connection(('127.0.0.1', 5443))\n"
        "with context.wrap_socket(plain, server_hostname='127.0.0.1') as sock:\n"
        f"    sock.sendall({request_bytes!r})\n"
        "    print(sock.recv(100))\n"
    )
    done = sandbox.run([sys.executable, "-c", code])
    assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr


def test_blocks_are_recorded_once_for_each_snapshot_and_outcome(sandbox, aws, role_keys):
    (started,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1}), keys=role_keys)
    snapshot_id = started["SnapshotId"]
    calls = [put(snapshot_id, index, pattern(1)) for index in (0, 1, 2, 9999, 10000)]
    aws(*calls, complete(snapshot_id, dict.fromkeys(range(3), pattern(1))), keys=role_keys)
    recorded = [(call["action"], call["code"]) for call in sandbox.calls() if call["service"] == "ebs"]
    assert recorded == [
        ("StartSnapshot", None),
        ("PutSnapshotBlock", None),
        ("PutSnapshotBlock", "ValidationException"),
        ("CompleteSnapshot", None),
    ]
    assert sandbox.ebs()["calls"]["PutSnapshotBlock"] == {"ok": 3, "ValidationException": 2}
