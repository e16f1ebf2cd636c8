"""What the sandbox's EC2 does with images beyond registering them: copies, shares, dates, tags."""

import base64
import datetime

import pytest

from clouduploader.sandbox.aws import disks, keys, layout

pytestmark = pytest.mark.sandbox

HERE, THERE = "us-east-1", "eu-central-1"
ORGANIZATION = "arn:aws:organizations::111122223333:organization/o-abcdefghij"
UNIT = "arn:aws:organizations::111122223333:ou/o-abcdefghij/ou-ab12-abcdefgh"
TAGS = [{"Key": "a", "Value": "b"}]


def code_of(answer):
    return answer.get("Error", {}).get("Code")


def tagged(kind, key="a"):
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": "b"}]}


@pytest.fixture
def make_image_of_blocks(sandbox, aws):
    """A factory of images whose snapshot has one block of sevens; gives the id."""

    def make(name="an image", snapshot=None, **changes):
        (started,) = aws(("ebs", "start_snapshot", {"VolumeSize": 1} | (snapshot or {})))
        snapshot_id = started["SnapshotId"]
        # As PutSnapshotBlock would have left it.
        sandbox.content(snapshot_id).write_bytes(b"\x07" * disks.BLOCK_BYTES)
        arguments = {
            "Name": name,
            "Description": "for a test",
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "BootMode": "uefi-preferred",
            "EnaSupport": True,
            "ImdsSupport": "v2.0",
            "RootDeviceName": "/dev/sda1",
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}],
        } | changes
        sealed, made = aws(
            ("ebs", "complete_snapshot", {"SnapshotId": snapshot_id, "ChangedBlocksCount": 0}),
            ("ec2", "register_image", arguments),
        )
        assert code_of(sealed) is None
        return made["ImageId"]

    return make


@pytest.fixture
def copy(aws):
    """Copy an image to THERE; gives the answer."""

    def call(image_id, **changes):
        arguments = {"Name": "a copy", "SourceImageId": image_id, "SourceRegion": HERE} | changes
        return aws(("ec2", "copy_image", arguments), region=THERE)[0]

    return call


@pytest.fixture
def describe(aws):
    """Describe an image."""

    def call(image_id, region=HERE):
        (answer,) = aws(("ec2", "describe_images", {"ImageIds": [image_id]}), region=region)
        return answer["Images"][0]

    return call


# --- CopyImage


def test_copy_is_as_its_source_in_another_region(sandbox, copy, describe, make_image_of_blocks):
    source = make_image_of_blocks()
    answer = copy(source, TagSpecifications=[tagged("image", "i"), tagged("snapshot", "s")])
    image = describe(answer["ImageId"], THERE)
    same = ("Architecture", "BootMode", "EnaSupport", "ImdsSupport", "RootDeviceName", "Description")
    assert {key: image[key] for key in same} == {key: describe(source)[key] for key in same}
    assert (image["Name"], image["State"]) == ("a copy", "available")
    assert image["Tags"] == [{"Key": "i", "Value": "b"}]
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert snapshot_id != describe(source)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    assert sandbox.image_bytes(image["ImageId"], disks.BLOCK_BYTES) == b"\x07" * disks.BLOCK_BYTES
    (snapshot,) = [entry for entry in sandbox.account()["snapshots"] if entry["id"] == snapshot_id]
    assert (snapshot["region"], snapshot["state"], snapshot["tags"]) == (THERE, "completed", {"s": "b"})


def test_copy_takes_tags_along_only_if_asked(copy, describe, make_image_of_blocks):
    source = make_image_of_blocks(TagSpecifications=[tagged("image")])
    bare = copy(source)["ImageId"]
    full = copy(source, Name="another", CopyImageTags=True)["ImageId"]
    assert [describe(image_id, THERE).get("Tags", []) for image_id in (bare, full)] == [[], TAGS]


def test_copy_is_pending_for_a_while(sandbox, aws, copy, describe, make_image_of_blocks):
    source = make_image_of_blocks()
    sandbox.pace(copy_seconds=3600)
    image_id = copy(source)["ImageId"]
    assert describe(image_id, THERE)["State"] == "pending"
    again = {"Name": "copy of a copy", "SourceImageId": image_id, "SourceRegion": THERE}
    share = {"ImageId": image_id, "LaunchPermission": {"Add": [{"UserId": "111122223333"}]}}
    (shared,) = aws(("ec2", "modify_image_attribute", share), region=THERE)
    (copied,) = aws(("ec2", "copy_image", again))
    assert [code_of(shared), code_of(copied)] == ["InvalidAMIID.Unavailable"] * 2


def test_same_client_token_copies_once(sandbox, copy, make_image_of_blocks):
    source = make_image_of_blocks()
    first, second, other = copy(source, ClientToken="t"), copy(source, ClientToken="t"), copy(source, ClientToken="u")
    assert first == second
    assert code_of(other) == "InvalidAMIName.Duplicate"
    assert code_of(copy(source, ClientToken="t", Name="other")) == "IdempotentParameterMismatch"
    assert sandbox.left()["images"] == [source, first["ImageId"]]


def test_copies_are_limited_to_20_at_once(sandbox, copy, make_image_of_blocks):
    source = make_image_of_blocks()
    sandbox.pace(copy_seconds=3600)
    codes = [code_of(copy(source, Name=f"copy {number}")) for number in range(21)]
    assert codes == [None] * 20 + ["ResourceLimitExceeded"]
    sandbox.pace()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SourceImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"SourceRegion": THERE}, "InvalidAMIID.NotFound"),
        ({"SourceRegion": "af-south-1"}, "InvalidParameterValue"),
        ({"SourceRegion": None}, "MissingParameter"),
        ({"Name": None}, "MissingParameter"),
        ({"Name": "a:b"}, "InvalidAMIName.Malformed"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"Description": "Größe"}, "InvalidParameterValue"),
        ({"TagSpecifications": [tagged("volume")]}, "InvalidParameterValue"),
        ({"TagSpecifications": [tagged("snapshot", "aws:a")]}, "InvalidParameterValue"),
        ({"KmsKeyId": keys.CUSTOMER_ALIAS}, "InvalidParameterCombination"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
    ids=str,
)
def test_copy_image_checks_all_arguments(aws, make_image_of_blocks, changes, code):
    arguments = {"Name": "a copy", "SourceImageId": make_image_of_blocks(), "SourceRegion": HERE} | changes
    given = {key: value for key, value in arguments.items() if value is not None}
    (answer,) = aws(("ec2", "copy_image", given), region=THERE)
    assert code_of(answer) == code


def test_region_that_is_not_enabled_takes_no_copy(aws, make_image_of_blocks):
    arguments = {"Name": "a copy", "SourceImageId": make_image_of_blocks(), "SourceRegion": HERE}
    (answer,) = aws(("ec2", "copy_image", arguments), region="af-south-1")
    assert code_of(answer) == "AuthFailure"


@pytest.mark.parametrize(
    ("changes", "alias"),
    [
        ({"Encrypted": True}, keys.MANAGED_ALIAS),
        ({"Encrypted": True, "KmsKeyId": keys.CUSTOMER_ALIAS}, keys.CUSTOMER_ALIAS),
        ({"Encrypted": True, "KmsKeyId": keys.arn(THERE, keys.CUSTOMER_ALIAS)}, keys.CUSTOMER_ALIAS),
        ({}, None),
    ],
    ids=str,
)
def test_copy_is_encrypted_with_the_key(sandbox, copy, make_image_of_blocks, changes, alias):
    image_id = copy(make_image_of_blocks(), **changes)["ImageId"]
    (image,) = [image for image in sandbox.account()["images"] if image["id"] == image_id]
    ebs = image["block_device_mappings"][0]["Ebs"]
    (snapshot,) = [entry for entry in sandbox.account()["snapshots"] if entry["id"] == ebs["SnapshotId"]]
    assert ebs["Encrypted"] == snapshot["encrypted"] == (alias is not None)
    assert snapshot["kms_key_id"] == (keys.arn(THERE, alias) if alias else None)
    # No block was written through the API: a volume that is encrypted has garbage in all of them.
    shown = sandbox.image_bytes(image_id, disks.BLOCK_BYTES, encrypted=True)
    assert shown == disks.GARBAGE


def test_copy_of_an_encrypted_image_is_encrypted(sandbox, copy, make_image_of_blocks):
    source = make_image_of_blocks(snapshot={"Encrypted": True})
    image_id = copy(source)["ImageId"]
    (image,) = [image for image in sandbox.account()["images"] if image["id"] == image_id]
    assert image["block_device_mappings"][0]["Ebs"]["Encrypted"] is True


def test_copy_with_a_key_of_another_region_fails_later(copy, describe, make_image_of_blocks):
    answer = copy(make_image_of_blocks(), Encrypted=True, KmsKeyId=keys.arn(HERE, keys.CUSTOMER_ALIAS))
    image = describe(answer["ImageId"], THERE)
    assert (image["State"], image["StateReason"]["Code"]) == ("failed", "Client.InvalidKmsKey")


# --- sharing


def test_image_is_shared_and_unshared(sandbox, aws, make_image_of_blocks):
    image_id = make_image_of_blocks()
    one, other = {"UserId": "111122223333"}, {"UserId": "444455556666"}
    change = ("ec2", "modify_image_attribute")
    show = ("ec2", "describe_image_attribute", {"ImageId": image_id, "Attribute": "launchPermission"})
    organizations = {"OrganizationArns": [ORGANIZATION], "OrganizationalUnitArns": [UNIT], "OperationType": "add"}
    answers = aws(
        (*change, {"ImageId": image_id, "LaunchPermission": {"Add": [one, other]}}),
        (*change, {"ImageId": image_id, "LaunchPermission": {"Add": [one]}}),
        (*change, {"ImageId": image_id, "Attribute": "launchPermission", **organizations}),
        show,
        (*change, {"ImageId": image_id, "OperationType": "remove", "UserIds": [one["UserId"]]}),
        (*change, {"ImageId": image_id, "LaunchPermission": {"Add": [{"Group": "all"}]}}),
        show,
    )
    assert [code_of(answer) for answer in answers] == [None] * 7
    groups = [{"OrganizationArn": ORGANIZATION}, {"OrganizationalUnitArn": UNIT}]
    assert answers[3]["LaunchPermissions"] == [one, other, *groups]
    assert answers[6]["LaunchPermissions"] == [other, *groups, {"Group": "all"}]
    (image,) = sandbox.account()["images"]
    assert image["launch_permissions"] == answers[6]["LaunchPermissions"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"LaunchPermission": {"Add": [{"UserId": "12345"}]}}, "InvalidAMIAttributeItemValue"),
        ({"LaunchPermission": {"Add": [{"Group": "everybody"}]}}, "InvalidAMIAttributeItemValue"),
        ({"LaunchPermission": {"Add": [{"OrganizationArn": "o-abcdefghij"}]}}, "InvalidAMIAttributeItemValue"),
        ({"OperationType": "set", "UserIds": ["111122223333"]}, "InvalidParameterValue"),
        ({"Attribute": "launchPermission"}, "MissingParameter"),
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"Description": {"Value": "x" * 256}}, "InvalidParameterValue"),
        ({"Description": {"Value": "a \u2013 b"}}, "InvalidParameterValue"),
        ({"Description": {"Value": "a"}, "ImdsSupport": {"Value": "v2.0"}}, "InvalidParameterCombination"),
        ({"ImdsSupport": {"Value": "v1.0"}}, "InvalidParameterValue"),
        ({"DryRun": True, "LaunchPermission": {"Add": [{"Group": "all"}]}}, "DryRunOperation"),
    ],
    ids=str,
)
def test_modify_image_attribute_checks_all_arguments(aws, make_image_of_blocks, changes, code):
    (answer,) = aws(("ec2", "modify_image_attribute", {"ImageId": make_image_of_blocks()} | changes))
    assert code_of(answer) == code


@pytest.mark.parametrize(
    ("alias", "permission", "code"),
    [
        (keys.MANAGED_ALIAS, {"UserId": "111122223333"}, "OperationNotPermitted"),
        (keys.CUSTOMER_ALIAS, {"UserId": "111122223333"}, None),
        (keys.CUSTOMER_ALIAS, {"Group": "all"}, "OperationNotPermitted"),
    ],
)
def test_encrypted_image_is_not_shared_with_everybody(aws, make_image_of_blocks, alias, permission, code):
    image_id = make_image_of_blocks(snapshot={"Encrypted": True, "KmsKeyArn": keys.arn(HERE, alias)})
    arguments = {"ImageId": image_id, "LaunchPermission": {"Add": [permission]}}
    (answer,) = aws(("ec2", "modify_image_attribute", arguments))
    assert code_of(answer) == code


def test_description_and_imds_can_be_changed(aws, describe, make_image_of_blocks):
    image_id = make_image_of_blocks(ImdsSupport="")
    answers = aws(
        ("ec2", "modify_image_attribute", {"ImageId": image_id, "Description": {"Value": "new"}}),
        ("ec2", "modify_image_attribute", {"ImageId": image_id, "Attribute": "imdsSupport", "Value": "v2.0"}),
    )
    assert [code_of(answer) for answer in answers] == [None, None]
    assert (describe(image_id)["Description"], describe(image_id)["ImdsSupport"]) == ("new", "v2.0")


def test_snapshots_are_shared_and_unshared(aws, describe, make_image_of_blocks):
    snapshot_id = describe(make_image_of_blocks())["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    change, one = ("ec2", "modify_snapshot_attribute"), {"UserId": "111122223333"}
    show = ("ec2", "describe_snapshot_attribute", {"SnapshotId": snapshot_id, "Attribute": "createVolumePermission"})
    answers = aws(
        (*change, {"SnapshotId": snapshot_id, "CreateVolumePermission": {"Add": [one, {"Group": "all"}]}}),
        show,
        (*change, {"SnapshotId": snapshot_id, "CreateVolumePermission": {"Remove": [{"Group": "all"}]}}),
        (*change, {"SnapshotId": snapshot_id, "OperationType": "add", "UserIds": ["444455556666"]}),
        show,
    )
    assert [code_of(answer) for answer in answers] == [None] * 5
    assert sorted(answers[1]["CreateVolumePermissions"], key=str) == [{"Group": "all"}, one]
    assert sorted(answers[4]["CreateVolumePermissions"], key=str) == [one, {"UserId": "444455556666"}]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Add": [{"UserId": "1"}]}, "InvalidAttributeValue"),
        ({"Add": [{"Group": "everybody"}]}, "InvalidAttributeValue"),
        ({"Add": [{"UserId": f"{number:012}"} for number in range(501)]}, "InvalidParameterValue"),
        ({"Add": [{"Group": "all"}], "Remove": [{"UserId": "111122223333"}]}, "InvalidParameterCombination"),
        ({}, "MissingParameter"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_modify_snapshot_attribute_checks_all_arguments(aws, describe, make_image_of_blocks, changes, code):
    snapshot_id = describe(make_image_of_blocks())["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    arguments = {"SnapshotId": snapshot_id, "Attribute": "createVolumePermission", "CreateVolumePermission": changes}
    (answer,) = aws(("ec2", "modify_snapshot_attribute", arguments))
    assert code_of(answer) == code


@pytest.mark.parametrize(
    ("alias", "permission", "code"),
    [
        (keys.MANAGED_ALIAS, {"UserId": "111122223333"}, "OperationNotPermitted"),
        (keys.CUSTOMER_ALIAS, {"UserId": "111122223333"}, None),
        (keys.CUSTOMER_ALIAS, {"Group": "all"}, "OperationNotPermitted"),
    ],
)
def test_encrypted_snapshot_is_not_shared_with_everybody(aws, describe, make_image_of_blocks, alias, permission, code):
    image_id = make_image_of_blocks(snapshot={"Encrypted": True, "KmsKeyArn": keys.arn(HERE, alias)})
    snapshot_id = describe(image_id)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    arguments = {"SnapshotId": snapshot_id, "CreateVolumePermission": {"Add": [permission]}}
    (answer,) = aws(("ec2", "modify_snapshot_attribute", arguments))
    assert code_of(answer) == code


def test_account_can_block_what_is_public(aws, describe, make_image_of_blocks):
    image_id = make_image_of_blocks()
    snapshot_id = describe(image_id)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    everybody = {"Add": [{"Group": "all"}]}
    publish = (
        ("ec2", "modify_image_attribute", {"ImageId": image_id, "LaunchPermission": everybody}),
        ("ec2", "modify_snapshot_attribute", {"SnapshotId": snapshot_id, "CreateVolumePermission": everybody}),
    )
    answers = aws(
        ("ec2", "enable_image_block_public_access", {"ImageBlockPublicAccessState": "block-new-sharing"}),
        ("ec2", "enable_snapshot_block_public_access", {"State": "block-all-sharing"}),
        ("ec2", "get_image_block_public_access_state", {}),
        ("ec2", "get_snapshot_block_public_access_state", {}),
        *publish,
        ("ec2", "disable_image_block_public_access", {}),
        ("ec2", "disable_snapshot_block_public_access", {}),
        *publish,
    )
    assert answers[2]["ImageBlockPublicAccessState"] == "block-new-sharing"
    assert answers[3]["State"] == "block-all-sharing"
    assert [code_of(answer) for answer in answers[4:6]] == ["OperationNotPermitted"] * 2
    assert [code_of(answer) for answer in answers[6:]] == [None] * 4


# --- what the account has set


def test_encryption_by_default_is_with_the_default_key(sandbox, aws, copy, make_image_of_blocks):
    own = keys.arn(THERE, keys.CUSTOMER_ALIAS)
    source = make_image_of_blocks()
    (before,) = aws(("ec2", "get_ebs_default_kms_key_id", {}), region=THERE)
    aws(
        ("ec2", "enable_ebs_encryption_by_default", {}),
        ("ec2", "modify_ebs_default_kms_key_id", {"KmsKeyId": keys.CUSTOMER_ALIAS}),
        region=THERE,
    )
    copy(source)
    (started, after, wrong, reset) = aws(
        ("ebs", "start_snapshot", {"VolumeSize": 1}),
        ("ec2", "get_ebs_default_kms_key_id", {}),
        ("ec2", "modify_ebs_default_kms_key_id", {"KmsKeyId": "alias/none"}),
        ("ec2", "reset_ebs_default_kms_key_id", {}),
        region=THERE,
    )
    aws(("ec2", "disable_ebs_encryption_by_default", {}), region=THERE)
    assert (before["KmsKeyId"], after["KmsKeyId"]) == (keys.MANAGED_ALIAS, own)
    assert (started["KmsKeyArn"], code_of(wrong)) == (own, "InvalidKmsKey.InvalidKeyId")
    assert reset["KmsKeyId"] == keys.arn(THERE, keys.MANAGED_ALIAS)
    (copied,) = [item for item in sandbox.account()["snapshots"] if item["description"].startswith("Copied")]
    assert (copied["encrypted"], copied["kms_key_id"]) == (True, own)


@pytest.mark.parametrize(
    ("name", "manager"),
    [(keys.CUSTOMER_ALIAS, "CUSTOMER"), (keys.MANAGED_ALIAS, "AWS"), (keys.arn(HERE, keys.MANAGED_ALIAS), "AWS")],
)
def test_key_is_described(aws, name, manager):
    (answer,) = aws(("kms", "describe_key", {"KeyId": name}))
    assert answer["KeyMetadata"]["KeyManager"] == manager
    assert answer["KeyMetadata"]["Arn"].startswith(f"arn:aws:kms:{HERE}:")


def test_key_of_another_region_is_not_there(aws):
    (answer,) = aws(("kms", "describe_key", {"KeyId": keys.arn(THERE, keys.CUSTOMER_ALIAS)}))
    assert code_of(answer) == "NotFoundException"


def test_regions_are_those_that_the_sandbox_serves(aws):
    everything, one, wrong = aws(
        ("ec2", "describe_regions", {}),
        ("ec2", "describe_regions", {"RegionNames": [THERE]}),
        ("ec2", "describe_regions", {"RegionNames": ["af-south-1"]}),
    )
    assert [region["RegionName"] for region in everything["Regions"]] == list(layout.REGIONS)
    assert [region["RegionName"] for region in one["Regions"]] == [THERE]
    assert code_of(wrong) == "InvalidParameterValue"


# --- DeregisterImage


def test_snapshots_go_with_their_image_if_that_is_asked_for(sandbox, aws, describe, make_image_of_blocks):
    kept, gone = make_image_of_blocks("a name"), make_image_of_blocks("another")
    mappings = {image_id: describe(image_id)["BlockDeviceMappings"] for image_id in (kept, gone)}
    snapshots = {image_id: mapping[0]["Ebs"]["SnapshotId"] for image_id, mapping in mappings.items()}
    aws(("ec2", "deregister_image", {"ImageId": kept}))
    (answer,) = aws(("ec2", "deregister_image", {"ImageId": gone, "DeleteAssociatedSnapshots": True}))
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshots[gone], "ReturnCode": "success"}]
    assert [item["id"] for item in sandbox.account()["snapshots"]] == [snapshots[kept]]


def test_snapshot_of_two_images_stays_with_the_other(sandbox, aws, describe, make_image_of_blocks):
    first = make_image_of_blocks()
    snapshot_id = describe(first)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    mapping = {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}
    second = {"Name": "second", "VirtualizationType": "hvm", "RootDeviceName": "/dev/sda1"}
    (made,) = aws(("ec2", "register_image", second | {"BlockDeviceMappings": [mapping]}))
    (answer,) = aws(("ec2", "deregister_image", {"ImageId": first, "DeleteAssociatedSnapshots": True}))
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshot_id, "ReturnCode": "skipped"}]
    assert sandbox.left()["images"] == [made["ImageId"]]
    assert [item["id"] for item in sandbox.account()["snapshots"]] == [snapshot_id]


# --- calls that are not known


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "code"),
    [
        ("ec2", "describe_fast_snapshot_restores", {}, "InvalidAction"),
        ("ec2", "get_instance_metadata_defaults", {}, "InvalidAction"),
        ("sts", "decode_authorization_message", {"EncodedMessage": "x"}, "InvalidAction"),
        ("kms", "connect_custom_key_store", {"CustomKeyStoreId": "x"}, "UnknownOperationException"),
    ],
)
def test_call_that_the_sandbox_does_not_know_is_refused_in_the_form_of_aws(aws, service, operation, arguments, code):
    (answer,) = aws((service, operation, arguments))
    assert code_of(answer) == code


# --- deprecation


def test_image_is_deprecated_at_a_date(aws, describe, make_image_of_blocks):
    image_id = make_image_of_blocks()
    moment = datetime.datetime.now(datetime.UTC).replace(second=31) + datetime.timedelta(days=30)
    arguments = {"ImageId": image_id, "DeprecateAt": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
    (answer,) = aws(("ec2", "enable_image_deprecation", arguments))
    assert answer == {"Return": True}
    rounded = moment.replace(second=0) + datetime.timedelta(minutes=1)
    assert describe(image_id)["DeprecationTime"] == rounded.strftime("%Y-%m-%dT%H:%M:00.000Z")
    assert aws(("ec2", "disable_image_deprecation", {"ImageId": image_id})) == [{"Return": True}]
    assert "DeprecationTime" not in describe(image_id)


@pytest.mark.parametrize(
    ("days", "is_public", "code"),
    [
        (-1, False, "InvalidParameterValue"),
        (3660, False, "InvalidParameterValue"),
        (3640, False, None),
        (740, True, "InvalidParameterValue"),
        (700, True, None),
    ],
)
def test_date_of_deprecation_has_bounds(aws, make_image_of_blocks, days, is_public, code):
    image_id = make_image_of_blocks()
    if is_public:
        aws(("ec2", "modify_image_attribute", {"ImageId": image_id, "LaunchPermission": {"Add": [{"Group": "all"}]}}))
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    (answer,) = aws(("ec2", "enable_image_deprecation", {"ImageId": image_id, "DeprecateAt": moment.isoformat()}))
    assert code_of(answer) == code


# --- RegisterImage, DescribeImages


def test_uefi_data_are_kept(aws, make_image_of_blocks):
    data = base64.b64encode(b"variables").decode()
    image_id = make_image_of_blocks(UefiData=data, TpmSupport="v2.0", BootMode="uefi")
    (answer,) = aws(("ec2", "describe_image_attribute", {"ImageId": image_id, "Attribute": "uefiData"}))
    assert answer["UefiData"] == {"Value": data}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"UefiData": "no base64"}, "InvalidParameterValue"),
        ({"UefiData": "AAAA", "BootMode": "legacy-bios"}, "InvalidParameterCombination"),
        ({"UefiData": "AAAA" * 16001}, "InvalidParameterValue"),
        ({"TpmSupport": "v2.0", "BootMode": "uefi-preferred"}, "InvalidParameterCombination"),
        ({"TpmSupport": "v2.0", "BootMode": ""}, "InvalidParameterCombination"),
        ({"Architecture": "i386"}, "InvalidParameterCombination"),
        ({"Description": "a \u2013 b"}, "InvalidParameterValue"),
        ({"TagSpecifications": [tagged("image", "AWS:a")]}, "InvalidParameterValue"),
        ({"TagSpecifications": [tagged("image", "x" * 128)]}, "InvalidParameterValue"),
        (
            {
                "TagSpecifications": [
                    {"ResourceType": "image", "Tags": [{"Key": str(n), "Value": ""} for n in range(51)]}
                ]
            },
            "TagLimitExceeded",
        ),
        ({"TagSpecifications": [tagged("snapshot")]}, "InvalidParameterValue"),
        ({"TagSpecifications": [tagged("image"), tagged("image")]}, "InvalidParameterValue"),
    ],
    ids=str,
)
def test_register_image_checks_more_arguments(aws, make_image_of_blocks, changes, code):
    (image,) = aws(("ec2", "describe_images", {"ImageIds": [make_image_of_blocks()]}))[0]["Images"]
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    arguments = {
        "Name": "another",
        "Architecture": "x86_64",
        "VirtualizationType": "hvm",
        "BootMode": "uefi",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id}}],
    }
    (answer,) = aws(("ec2", "register_image", arguments | changes))
    assert code_of(answer) == code


def test_encryption_is_not_given_with_a_snapshot(aws, make_image_of_blocks, describe):
    mapping = describe(make_image_of_blocks())["BlockDeviceMappings"][0]
    arguments = {
        "Name": "another",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": mapping["Ebs"]["SnapshotId"], "Encrypted": True}}
        ],
    }
    (answer,) = aws(("ec2", "register_image", arguments))
    assert code_of(answer) == "InvalidBlockDeviceMapping"


def test_images_are_found_by_tag_and_name(aws, make_image_of_blocks):
    first = make_image_of_blocks("first one", TagSpecifications=[tagged("image")])
    second = make_image_of_blocks("second one")

    def found(**arguments):
        (answer,) = aws(("ec2", "describe_images", arguments))
        return code_of(answer) or [image["ImageId"] for image in answer["Images"]]

    assert found(Filters=[{"Name": "tag:a", "Values": ["b", "c"]}]) == [first]
    assert found(Filters=[{"Name": "tag:a", "Values": ["c"]}]) == []
    assert found(Filters=[{"Name": "tag-key", "Values": ["a"]}]) == [first]
    assert found(Filters=[{"Name": "name", "Values": ["second *"]}], Owners=["self"]) == [second]
    assert found(ImageIds=[second], Filters=[{"Name": "tag:a", "Values": ["b"]}]) == []
    assert found(ImageIds=[second, "ami-0123456789abcdef0"]) == "InvalidAMIID.NotFound"


def test_tags_are_limited_and_want_something_to_be_on(aws, make_image_of_blocks):
    image_id = make_image_of_blocks()
    fifty = [{"Key": str(number), "Value": ""} for number in range(50)]
    answers = aws(
        ("ec2", "create_tags", {"Resources": [image_id], "Tags": fifty}),
        ("ec2", "create_tags", {"Resources": [image_id], "Tags": fifty[:1]}),
        ("ec2", "create_tags", {"Resources": [image_id], "Tags": TAGS}),
        ("ec2", "create_tags", {"Resources": ["snap-0123456789abcdef0"], "Tags": TAGS}),
    )
    assert [code_of(answer) for answer in answers] == [None, None, "TagLimitExceeded", "InvalidSnapshot.NotFound"]


# --- tags from the beginning


@pytest.mark.parametrize(
    ("method", "kind", "arguments"),
    [
        ("create_vpc", "vpc", {"CidrBlock": "10.0.0.0/16"}),
        ("create_internet_gateway", "internet-gateway", {}),
        ("create_key_pair", "key-pair", {"KeyName": "k"}),
        ("import_key_pair", "key-pair", {"KeyName": "k", "PublicKeyMaterial": "ssh-rsa"}),
        ("create_security_group", "security-group", {"GroupName": "g", "Description": "d"}),
        ("create_route_table", "route-table", {"VpcId": "vpc_id"}),
        ("create_subnet", "subnet", {"VpcId": "vpc_id", "CidrBlock": "172.20.9.0/24"}),
        ("create_volume", "volume", {"Size": 1, "AvailabilityZone": "us-east-1a"}),
        ("create_snapshot", "snapshot", {}),
        ("run_instances", "instance", {"MinCount": 1, "MaxCount": 1, "InstanceType": "t2.micro"}),
        ("run_instances", "volume", {"MinCount": 1, "MaxCount": 1, "InstanceType": "t2.micro"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_creating_calls_keep_tags(sandbox, aws, method, kind, arguments):
    described = sandbox.description
    given = {key: described.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}
    if method == "create_snapshot":
        (volume,) = aws(("ec2", "create_volume", {"Size": 1, "AvailabilityZone": "us-east-1a"}))
        given["VolumeId"] = volume["VolumeId"]
    if method == "run_instances":
        given["ImageId"] = described["helper_amis"][HERE]
    if method == "import_key_pair":
        given["PublicKeyMaterial"] = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGKYsIKqPRfB8bPmnJ5CnJZM4Sgqmb3vPaFzzSkXAgHJ"
    made, found = aws(
        ("ec2", method, given | {"TagSpecifications": [tagged(kind)]}),
        ("ec2", "describe_tags", {"Filters": [{"Name": "key", "Values": ["a"]}]}),
    )
    assert code_of(made) is None, made
    assert [(tag["ResourceType"], tag["Value"]) for tag in found["Tags"]] == [(kind, "b")]
