"""What is asked before the first byte, in an account whose EC2 and KMS answer as `Ec2Cloud` says."""

import pytest
from fakes.aws_sdk import Refusal
from fakes.ec2_cloud import REGION, Ec2Cloud
from fakes.ec2_upload import make_context, make_request

from clouduploader.errors import ClouduploaderError, DeniedError, PlatformReplyError, TargetDataError
from clouduploader.platforms.ec2 import labels, preflight

OWN_KEY = f"arn:aws:kms:{REGION}:123456789012:key/k"
SHARE = {"share": ["123456789012"]}


@pytest.fixture
def aws():
    return Ec2Cloud()


@pytest.fixture
def check(aws, record, tmp_path):
    """A function that checks target data against that account; gives the regions of the copies."""

    def do(image=None, **targetdata):
        return preflight.check(make_context(aws, make_request(tmp_path, **targetdata), record), image=image)

    return do


def image_of(aws, *, is_encrypted, key_arn=None):
    """An image that is there, with one snapshot."""
    snapshot_id = aws.add_snapshot(state="completed", is_encrypted=is_encrypted, key_arn=key_arn)
    ebs = {"SnapshotId": snapshot_id, "Encrypted": is_encrypted}
    return {"ImageId": "ami-1", "Name": "my image", "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": ebs}]}


def test_plain_upload_asks_nothing(check, aws):
    assert check() == []
    assert aws.calls == []


# Regions


def test_all_stands_for_the_enabled_regions_but_the_images_own(check):
    assert check(regions=["all"]) == ["eu-west-2", "us-east-1"]
    assert check(regions=["us-east-1", "all", REGION]) == ["eu-west-2", "us-east-1"]


def test_named_regions_stay_in_their_order_each_once(check):
    assert check(regions=["us-east-1", REGION, "eu-west-2", "us-east-1"]) == ["us-east-1", "eu-west-2"]


def test_region_that_is_not_enabled_is_refused_with_those_that_are(check):
    with pytest.raises(TargetDataError, match=r"regions: af-south-1, me-south-1 can't be used") as caught:
        check(regions=["af-south-1", "eu-west-2", "me-south-1"])
    assert caught.value.hint == "Enabled are eu-west-1, eu-west-2, us-east-1."
    with pytest.raises(TargetDataError, match="af-south-1 can't be used"):
        check(regions=["all", "af-south-1"])


def test_key_for_a_region_that_no_copy_is_made_to_is_refused(check):
    with pytest.raises(TargetDataError, match="kms_keys: eu-wset-2 can't be used"):
        check(regions=["all"], kms_keys={"eu-wset-2": "alias/mine"})


def test_role_that_may_not_ask_for_regions_is_believed_but_not_for_all(check, aws, record):
    aws.faults["DescribeRegions"] = [Refusal("UnauthorizedOperation") for _ in range(2)]
    assert check(regions=["af-south-1"]) == ["af-south-1"]
    assert any(line.startswith("Not looked at, which regions are enabled: ") for line in record.lines)
    with pytest.raises(DeniedError, match="may not call ec2:DescribeRegions"):
        check(regions=["all"])


# Names


@pytest.mark.parametrize("state", ["available", "disabled"])
def test_name_that_another_image_has_in_a_region_of_the_copies_is_refused(check, aws, state):
    theirs = {"ImageId": "ami-9", "Name": "my image", "State": state, "Tags": []}
    aws.at("eu-west-2").images["ami-9"] = theirs
    with pytest.raises(PlatformReplyError, match=r"already \(ami-9 in eu-west-2\): no upload of clouduploader made it"):
        check(regions=["eu-west-2"])


@pytest.mark.parametrize("change", [{"State": "failed"}, {"Tags": labels.as_list({labels.SHA256: "0" * 64})}])
def test_name_of_a_dead_image_or_one_of_ours_is_no_reason_to_refuse(check, aws, change):
    theirs = {"ImageId": "ami-9", "Name": "my image", "State": "available", "Tags": []}
    aws.at("eu-west-2").images["ami-9"] = theirs | change
    assert check(regions=["eu-west-2"]) == ["eu-west-2"]


def test_region_that_does_not_answer_is_no_reason_to_refuse(check, aws, record):
    aws.faults["DescribeImages"] = [Refusal("Unavailable")]
    assert check(regions=["eu-west-2"]) == ["eu-west-2"]
    assert any("whether the name is free in eu-west-2" in line for line in record.lines)


# Keys


@pytest.mark.parametrize(
    ("account", "targetdata"),
    [
        ({}, {"encrypted": True}),
        ({"default_key": OWN_KEY, "key_facts": {"KeyManager": "AWS"}}, {"encrypted": True}),
        ({"encrypting": {REGION}}, {}),
        ({"encrypting": {REGION, "eu-west-2"}}, {"regions": ["eu-west-2"]}),
        ({"key_facts": {"KeyManager": "AWS"}}, {"kms_key_id": OWN_KEY}),
        ({"key_facts": {"KeyManager": "AWS"}}, {"regions": ["eu-west-2"], "kms_keys": {"eu-west-2": "k"}}),
        ({}, {"kms_key_id": OWN_KEY, "regions": ["eu-west-2"]}),
    ],
)
def test_image_that_would_be_under_a_key_of_aws_is_not_shared(check, aws, account, targetdata):
    vars(aws).update(account)
    with pytest.raises(TargetDataError, match=r"encrypted in .* with a KMS key of AWS's own") as caught:
        check(**SHARE, **targetdata)
    assert "Give kms_key_id" in caught.value.hint
    check(**targetdata)


@pytest.mark.parametrize(
    ("account", "targetdata"),
    [
        ({"default_key": OWN_KEY}, {"encrypted": True}),
        ({"default_key": OWN_KEY, "encrypting": {REGION}}, {}),
        ({}, {"kms_key_id": OWN_KEY}),
        ({}, {"kms_key_id": OWN_KEY, "regions": ["eu-west-2"], "kms_keys": {"eu-west-2": "alias/mine"}}),
        ({}, {}),
    ],
)
def test_image_under_a_key_of_ones_own_or_none_is_shared(check, aws, account, targetdata):
    vars(aws).update(account)
    check(**SHARE, **targetdata)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"KeySpec": "RSA_2048"}, "is RSA_2048 for ENCRYPT_DECRYPT, but EBS takes symmetric keys only"),
        ({"KeyUsage": "GENERATE_VERIFY_MAC", "KeySpec": "HMAC_256"}, "EBS takes symmetric keys only"),
        ({"KeyState": "Disabled"}, "can't be used: its state is Disabled"),
        ({"KeyState": "PendingDeletion"}, "can't be used: its state is PendingDeletion"),
    ],
)
def test_key_that_ebs_can_not_use_is_refused(check, aws, facts, words):
    aws.key_facts = facts
    with pytest.raises(TargetDataError, match=words):
        check(kms_key_id=OWN_KEY)
    with pytest.raises(TargetDataError, match=words):
        check(regions=["eu-west-2"], kms_keys={"eu-west-2": "alias/mine"})


def test_key_that_is_not_there_is_refused(check, aws):
    aws.faults["DescribeKey"] = [Refusal("NotFoundException")]
    with pytest.raises(TargetDataError, match="there is no KMS key alias/mine in eu-west-2"):
        check(regions=["eu-west-2"], kms_keys={"eu-west-2": "alias/mine"})


@pytest.mark.parametrize(
    ("operation", "is_hinted"),
    [("GetEbsEncryptionByDefault", False), ("GetEbsDefaultKmsKeyId", True), ("DescribeKey", False)],
)
def test_role_that_may_not_ask_is_told_what_could_happen(check, aws, record, operation, is_hinted):
    aws.encrypting, aws.default_key = {REGION}, OWN_KEY
    aws.faults[operation] = [Refusal("UnauthorizedOperation")]
    check(**SHARE)
    assert any(line.startswith("Not looked at, ") for line in record.lines)
    assert any("Give kms_key_id" in line for line in record.lines) is is_hinted


def test_image_that_the_account_would_encrypt_is_not_made_public(check, aws):
    aws.encrypting = {REGION}
    with pytest.raises(TargetDataError, match="share: found public, but the image would be encrypted in eu-west-1"):
        check(share=["public"])


def test_image_that_the_account_would_encrypt_is_not_promised_to_be_open(check, aws):
    check(encrypted=False)
    aws.encrypting = {REGION}
    with pytest.raises(TargetDataError, match="encrypted: found false, but the account encrypts all new snapshots"):
        check(encrypted=False)


def test_image_that_is_there_goes_by_its_own_key(check, aws):
    aws.encrypting = {REGION}
    check(image=image_of(aws, is_encrypted=False), **SHARE)
    image = image_of(aws, is_encrypted=True, key_arn=OWN_KEY)
    check(image=image, **SHARE)
    aws.key_facts = {"KeyManager": "AWS"}
    with pytest.raises(TargetDataError, match="a KMS key of AWS's own"):
        check(image=image, **SHARE)


# What may be public


@pytest.mark.parametrize(
    ("account", "targetdata", "words"),
    [
        ({"image_block": "block-new-sharing"}, {}, "blocks public images in eu-west-1"),
        ({"snapshot_block": "block-new-sharing"}, {"share_snapshot": True}, "blocks public snapshots in eu-west-1"),
        ({"snapshot_block": "block-all-sharing"}, {"share_snapshot": True}, "blocks public snapshots in eu-west-1"),
    ],
)
def test_account_that_blocks_what_is_public_is_found(check, aws, account, targetdata, words):
    vars(aws).update(account)
    with pytest.raises(DeniedError, match=words):
        check(share=["public"], **targetdata)
    check(**SHARE, **targetdata)


def test_blocked_snapshots_do_not_matter_where_only_the_image_is_public(check, aws):
    aws.snapshot_block = "block-all-sharing"
    check(share=["public"])
    assert aws.called("GetSnapshotBlockPublicAccessState") == []


def test_error_in_one_region_is_the_error(check, aws):
    aws.key_facts = {"KeyState": "Disabled"}
    with pytest.raises(ClouduploaderError, match="in us-east-1"):
        check(regions=["eu-west-2", "us-east-1"], kms_keys={"us-east-1": "alias/mine"})
