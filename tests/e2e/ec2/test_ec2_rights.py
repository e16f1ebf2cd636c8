"""What a role with the printed policies can't do, and what a session of it can't: proven by the sandbox's IAM."""

import base64
import hashlib
import json

import pytest

from clouduploader.platforms.ec2 import rights

pytestmark = pytest.mark.sandbox

KEY = "clouduploader:key"
TAGS = [{"Key": KEY, "Value": "of a test"}]
PRINTED = [rights.permissions(name, "aws") for name in rights.GRANTS]
DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
IAM_REGION = "us-east-1"


def code_of(answer):
    return answer.get("Error", {}).get("Code")


@pytest.fixture
def session(sandbox, aws):
    """A factory of calls in a session of the customer's role, which has the printed policies; gives their codes."""

    def start(policy=None, printed=PRINTED):
        sandbox.policy(printed)
        described = sandbox.description
        asked = {"RoleArn": described["role_arn"], "ExternalId": described["external_id"], "RoleSessionName": "test"}
        (answer,) = aws(
            ("sts", "assume_role", {**asked, **({"Policy": policy} if policy else {})}), keys=described["obs"]
        )
        assert code_of(answer) is None, answer

        def call(*calls, region=None):
            return [code_of(answer) for answer in aws(*calls, keys=answer_keys, region=region)]

        answer_keys = answer["Credentials"]
        return call

    return start


@pytest.fixture
def make_snapshot(sandbox, aws):
    """A factory of complete snapshots, made by another user of the account, with our tag or with none; gives the id."""

    def make(*, is_ours):
        (started,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1, **({"Tags": TAGS} if is_ours else {})}))
        data = b"secret".ljust(524288, b"\0")
        put = {
            "SnapshotId": started["SnapshotId"],
            "BlockIndex": 0,
            "BlockData": data,
            "DataLength": len(data),
            "Checksum": base64.b64encode(hashlib.sha256(data).digest()).decode(),
            "ChecksumAlgorithm": "SHA256",
        }
        complete = {"SnapshotId": started["SnapshotId"], "ChangedBlocksCount": 1}
        for answer in aws(("ebs", "put_snapshot_block", put), ("ebs", "complete_snapshot", complete)):
            assert "Error" not in answer
        return started["SnapshotId"]

    return make


def registration(snapshot_id, *, name="an image", tags=TAGS):
    return {
        "Name": name,
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}],
        "TagSpecifications": [{"ResourceType": "image", "Tags": tags}] if tags else [],
    }


def tagged(kind, tags=TAGS):
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]}


def uses(snapshot_id, region):
    """All that could be done with a snapshot."""
    opened = {"Attribute": "createVolumePermission", "CreateVolumePermission": {"Add": [{"UserId": "210987654321"}]}}
    return (
        ("ebs", "list_snapshot_blocks", {"SnapshotId": snapshot_id}),
        ("ebs", "get_snapshot_block", {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": "x"}),
        ("ebs", "start_snapshot", {"VolumeSize": 1, "ParentSnapshotId": snapshot_id, "Tags": TAGS}),
        ("ec2", "create_tags", {"Resources": [snapshot_id], "Tags": TAGS}),
        ("ec2", "register_image", registration(snapshot_id)),
        ("ec2", "modify_snapshot_attribute", {"SnapshotId": snapshot_id, **opened}),
        (
            "ec2",
            "create_volume",
            {"SnapshotId": snapshot_id, "AvailabilityZone": f"{region}a", **tagged("volume")},
        ),
        ("ec2", "delete_snapshot", {"SnapshotId": snapshot_id}),
    )


def test_snapshot_of_another_can_neither_be_read_nor_used_nor_removed(sandbox, session, make_snapshot):
    calls = uses(make_snapshot(is_ours=False), sandbox.description["region"])
    assert [code in DENIED for code in session()(*calls)] == [True] * len(calls)


def test_snapshot_of_ours_can_be_read_used_and_removed(sandbox, session, make_snapshot):
    calls = uses(make_snapshot(is_ours=True), sandbox.description["region"])
    codes = dict(zip((call[1] for call in calls), session()(*calls), strict=True))
    not_allowed = {"start_snapshot", "create_volume"}  # no upload does that with a snapshot
    assert {name for name, code in codes.items() if code in DENIED} == not_allowed
    assert codes["list_snapshot_blocks"] is None
    assert codes["get_snapshot_block"] == "ValidationException"  # the token is none
    assert codes["delete_snapshot"] == "InvalidSnapshot.InUse"  # by the image


def test_image_of_another_can_neither_be_changed_nor_removed(sandbox, aws, session, make_snapshot):
    asked = registration(make_snapshot(is_ours=True), tags=None)
    (image,) = aws(("ec2", "register_image", asked))
    image_id = image["ImageId"]
    call = session()
    shared = {"LaunchPermission": {"Add": [{"UserId": "210987654321"}]}}
    codes = call(
        ("ec2", "create_tags", {"Resources": [image_id], "Tags": TAGS}),
        ("ec2", "modify_image_attribute", {"ImageId": image_id, **shared}),
        ("ec2", "enable_image_deprecation", {"ImageId": image_id, "DeprecateAt": "2031-01-01T00:00:00Z"}),
        ("ec2", "describe_image_attribute", {"ImageId": image_id, "Attribute": "description"}),
        ("ec2", "deregister_image", {"ImageId": image_id}),
    )
    assert codes == ["UnauthorizedOperation"] * 5


def test_nothing_is_made_without_our_tag(sandbox, session, make_snapshot):
    described, other = sandbox.description, [{"Key": "Name", "Value": "x"}]
    ours = make_snapshot(is_ours=True)
    source = {"Name": "copy", "SourceRegion": described["region"], "SourceImageId": "ami-0"}
    for tags in ([], other):
        vpc, *codes = session()(
            ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16", **(tagged("vpc", tags) if tags else {})}),
            ("ec2", "create_key_pair", {"KeyName": "x", **(tagged("key-pair", tags) if tags else {})}),
            ("ec2", "register_image", registration(ours, tags=tags)),
            ("ec2", "copy_image", {**source, **(tagged("image", tags) if tags else {})}),
            ("ebs", "start_snapshot", {"VolumeSize": 1, "Tags": tags}),
        )
        assert [code in DENIED for code in (vpc, *codes)] == [True] * 5
    assert session()(("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16", **tagged("vpc")})) == [None]


def test_what_is_made_in_a_vpc_of_another_is_a_group_at_most(sandbox, session):
    vpc, subnet = sandbox.description["vpc_id"], sandbox.description["subnet_id"]
    codes = session()(
        ("ec2", "create_subnet", {"VpcId": vpc, "CidrBlock": "172.20.9.0/24", **tagged("subnet")}),
        ("ec2", "create_route_table", {"VpcId": vpc, **tagged("route-table")}),
        ("ec2", "modify_subnet_attribute", {"SubnetId": subnet, "MapPublicIpOnLaunch": {"Value": True}}),
        ("ec2", "delete_subnet", {"SubnetId": subnet}),
        ("ec2", "delete_vpc", {"VpcId": vpc}),
    )
    assert codes == ["UnauthorizedOperation"] * 5
    group = {"GroupName": "x", "Description": "x", "VpcId": vpc, **tagged("security-group")}
    assert session()(("ec2", "create_security_group", group)) == [None]


def test_what_is_gone_is_not_there_rather_than_forbidden(session):
    codes = session()(
        ("ec2", "delete_snapshot", {"SnapshotId": "snap-0123456789abcdef0"}),
        ("ec2", "delete_volume", {"VolumeId": "vol-0123456789abcdef0"}),
        ("ebs", "list_snapshot_blocks", {"SnapshotId": "snap-0123456789abcdef0"}),
    )
    assert codes == ["InvalidSnapshot.NotFound", "InvalidVolume.NotFound", "ResourceNotFoundException"]


ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.mark.parametrize("printed", [PRINTED, ALLOW_ALL], ids=["printed", "role that may do all"])
def test_session_of_a_clean_up_can_start_nothing_and_remove(session, make_snapshot, printed):
    ours = make_snapshot(is_ours=True)
    *made, removed = session(rights.of_clean_up(), printed)(
        ("ebs", "start_snapshot", {"VolumeSize": 1, "Tags": TAGS}),
        ("ebs", "list_snapshot_blocks", {"SnapshotId": ours}),
        ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16", **tagged("vpc")}),
        ("ec2", "register_image", registration(ours)),
        ("ec2", "create_tags", {"Resources": [ours], "Tags": TAGS}),
        ("ec2", "delete_snapshot", {"SnapshotId": ours}),
    )
    assert [code in DENIED for code in made] == [True] * 5
    assert removed is None


def test_session_of_an_upload_is_bound_to_method_region_and_our_snapshots(session, make_snapshot):
    foreign = make_snapshot(is_ours=False)
    call = session(rights.of_upload({}, "ebs-direct", ["us-east-1"]), ALLOW_ALL)
    started = ("ebs", "start_snapshot", {"VolumeSize": 1, "Tags": TAGS})
    assert call(started) == [None]
    assert call(started, region="eu-central-1")[0] in DENIED
    codes = call(
        ("ebs", "list_snapshot_blocks", {"SnapshotId": foreign}),
        ("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16", **tagged("vpc")}),
        ("ec2", "copy_image", {"Name": "copy", "SourceRegion": "us-east-1", "SourceImageId": "ami-0"}),
        ("iam", "list_roles", {}),
    )
    assert [code in DENIED for code in codes] == [True] * 4


def test_session_that_only_tries_the_role_can_do_nothing(session):
    assert session(rights.NOTHING, ALLOW_ALL)(("ec2", "describe_images", {})) == ["UnauthorizedOperation"]


def test_boundary_bounds_a_role_that_may_do_all(sandbox, aws, session, make_snapshot):
    foreign, ours = make_snapshot(is_ours=False), make_snapshot(is_ours=True)
    document = json.dumps(rights.boundary("aws"))
    (made,) = aws(("iam", "create_policy", {"PolicyName": "b", "PolicyDocument": document}), region=IAM_REGION)
    bound = {"RoleName": sandbox.description["role_name"], "PermissionsBoundary": made["Policy"]["Arn"]}
    assert aws(("iam", "put_role_permissions_boundary", bound), region=IAM_REGION) == [{}]
    codes = session(printed=ALLOW_ALL)(
        ("ec2", "delete_snapshot", {"SnapshotId": foreign}),
        ("iam", "list_roles", {}),
        ("ec2", "delete_snapshot", {"SnapshotId": ours}),
    )
    assert [code in DENIED for code in codes] == [True, True, False]


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ("x" * 2049, "ValidationError"),
        ("no policy", "MalformedPolicyDocument"),
        (
            json.dumps(
                {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Wish": {"a": "b"}}}}
            ),
            "MalformedPolicyDocument",
        ),
    ],
)
def test_policy_of_a_session_that_is_wrong_is_refused(sandbox, aws, policy, code):
    described = sandbox.description
    asked = {"RoleArn": described["role_arn"], "ExternalId": described["external_id"], "RoleSessionName": "test"}
    (answer,) = aws(("sts", "assume_role", {**asked, "Policy": policy}), keys=described["obs"])
    assert code_of(answer) == code
