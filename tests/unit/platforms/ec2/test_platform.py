"""What the platform decides by itself: names, methods, plans. The ways into EC2 have tests of their own."""

import dataclasses

import pytest
from fakes.ec2_cloud import Ec2Cloud, FakeAccount
from fakes.ec2_upload import GIB, make_context, make_facts, make_request

from clouduploader.errors import ClouduploaderError, ConfigError, ImageError, PlatformReplyError
from clouduploader.model.disk import Compression
from clouduploader.platforms import ec2
from clouduploader.platforms.ec2 import plan
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.plugin import Cost, PlatformContext, UploadContext
from clouduploader.util.cancel import Cancel


@pytest.fixture
def make_platform(tmp_path):
    """A factory of the platform with these settings."""
    return lambda **values: ec2.Ec2(PlatformContext(home=tmp_path, settings=values, environment={}))


def test_unknown_setting_is_named_with_those_there_are(make_platform):
    with pytest.raises(ConfigError, match="unknown setting 'sesion_seconds'") as caught:
        make_platform(sesion_seconds="1")
    assert "session_seconds" in caught.value.hint


@pytest.mark.parametrize(
    ("packing", "filename", "expected"),
    [
        (Compression.XZ, "a.xz", "a.raw.xz"),
        (Compression.ZSTD, "a b.raw.zst", "a b.raw.zst"),
        (Compression.RAW, "a.qcow2", "a.qcow2"),
    ],
)
@pytest.mark.parametrize("method", ["ec2uploadimg", "ebs-direct", "auto"])
def test_link_name_suits_ec2uploadimg_where_that_can_be(make_platform, tmp_path, method, packing, filename, expected):
    image = dataclasses.replace(make_request(tmp_path).image, compression=packing, filename=filename)
    assert make_platform(method=method).link_name(image) == expected


@pytest.mark.parametrize("what", ["upload", "plan"])
def test_ec2uploadimg_refuses_what_it_cannot_unpack_before_anything_else(make_platform, tmp_path, record, what):
    platform = make_platform()
    ctx = UploadContext(platform, make_request(tmp_path), record, Cancel())
    with pytest.raises(ImageError, match="packed with zst, which ec2uploadimg can't unpack"):
        getattr(platform, what)(ctx)
    assert record.lines == []


def test_problems_go_by_the_method_of_the_settings(make_platform):
    data = {"region": "eu-west-1", "ami_name": "abc", "encrypted": True}
    assert make_platform().problems(data) == ["encrypted needs method ebs-direct"]
    assert make_platform(method="auto").problems(data) == []
    assert make_platform(method="auto").problems({**data, "method": "ec2uploadimg"}) != []


def taken_by():
    """An account that has an image of our name and of the attributes of ours."""
    aws = Ec2Cloud()
    aws.images["ami-1"] = {
        "ImageId": "ami-1", "Name": "my image", "State": "available",
        "Tags": [{"Key": "clouduploader:content", "Value": "x"}],
        "Architecture": "x86_64", "BootMode": "uefi-preferred", "EnaSupport": True, "SriovNetSupport": "simple",
        "ImdsSupport": "v2.0",
    }  # fmt: skip
    return aws


@pytest.fixture
def make_plan(tmp_path, record):
    """A factory of the plan of an EBS direct upload."""

    def make(aws=None, facts=None, **targetdata):
        request = make_request(tmp_path, facts=facts or make_facts(size_bytes=10 * GIB), **targetdata)
        return plan.direct(make_context(aws or Ec2Cloud(), request, record, settings=Ec2Settings()))

    return make


def test_plan_says_blocks_and_price(make_plan):
    found = make_plan(verify="full")
    assert found.steps == (
        f"assume role {FakeAccount.role_arn}",
        "start a snapshot of 10 GiB in eu-west-1",
        "send a.raw.zst, 10737418240 bytes unpacked, as 20480 blocks at most",
        "seal it with the checksum of all blocks, and read back all of them",
        "register the AMI 'my image' for x86_64, boot mode uefi-preferred, IMDS support v2.0",
    )
    assert found.costs == (
        Cost("20480 blocks sent, 20480 read back", pytest.approx(20480 * 0.009 / 1000)),
        Cost("storage of 1 snapshot of 10.00 GiB", pytest.approx(0.5), is_monthly=True),
    )


def test_plan_says_what_copies_cost_by_the_prices_of_the_settings(tmp_path, record):
    request = make_request(tmp_path, facts=make_facts(size_bytes=10 * GIB), regions=["all"])
    settings = Ec2Settings(snapshot_usd=0.1, transfer_usd=0.15)
    found = plan.direct(make_context(Ec2Cloud(), request, record, settings=settings))
    assert found.costs[1:] == (
        Cost("storage of 3 snapshots of 10.00 GiB", pytest.approx(3), is_monthly=True),
        Cost("transfer of 10.00 GiB to 2 regions", pytest.approx(3)),
    )
    assert [step for step in found.steps if "copy" in step] == [
        "copy the AMI to eu-west-2",
        "copy the AMI to us-east-1",
    ]


@pytest.mark.parametrize(
    ("data", "step"),
    [
        ({"encrypted": True}, "start a snapshot of 10 GiB in eu-west-1, encrypted with the default key of the account"),
        ({"kms_key_id": "k"}, "encrypted with arn:aws:kms:eu-west-1:123456789012:key/k"),
        ({"verify": "none"}, "and read back nothing"),
        ({"regions": ["eu-west-2"]}, "copy the AMI to eu-west-2"),
        ({"share": ["public"]}, "share it with public"),
        ({"deprecate_at": "2027-01-31"}, "have it deprecated from 2027-01-31"),
    ],
)
def test_plan_has_what_is_asked_for(make_plan, data, step):
    assert any(step in found for found in make_plan(**data).steps)


def test_plan_says_that_a_size_is_a_guess(make_plan):
    (sent,) = [
        step for step in make_plan(facts=make_facts(size_bytes=GIB, is_size_exact=False)).steps if "send" in step
    ]
    assert "about 1073741824 bytes" in sent


def test_plan_of_a_taken_name_says_that_it_compares(make_plan):
    assert make_plan(taken_by()).steps[1:3] == (
        "compare with ami-1, which is already there: take it, and send nothing, if it is the same",
        "change its description from '' to 'uploaded by clouduploader'",
    )


def test_plan_of_a_taken_name_finds_what_can_not_be_changed(make_plan):
    with pytest.raises(PlatformReplyError, match="its ENA support is on, that of this one off"):
        make_plan(taken_by(), ena_support=False)


@pytest.mark.parametrize(
    ("data", "account", "words"),
    [
        ({"share": ["1" * 12], "encrypted": True}, {}, "a KMS key of AWS's own"),
        ({"share": ["public"]}, {"image_block": "block-new-sharing"}, "blocks public images"),
        ({"regions": ["eu-west-3"]}, {}, "eu-west-3 can't be used"),
    ],
)
def test_plan_finds_what_would_fail_after_the_upload(make_plan, data, account, words):
    aws = Ec2Cloud()
    vars(aws).update(account)
    with pytest.raises(ClouduploaderError, match=words):
        make_plan(aws, **data)


def test_plan_of_a_name_that_another_has_is_refused(make_plan):
    aws = Ec2Cloud()
    aws.images["ami-1"] = {"ImageId": "ami-1", "Name": "my image", "State": "available", "Tags": []}
    with pytest.raises(PlatformReplyError, match="image of that name already"):
        make_plan(aws)


def test_plan_changes_nothing(make_plan):
    aws = Ec2Cloud()
    make_plan(aws, kms_key_id="k")
    assert {operation for _, operation, _ in aws.calls} == {"DescribeKey", "DescribeImages"}
