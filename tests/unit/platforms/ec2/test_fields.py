import dataclasses
import datetime
import json
from importlib import resources

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from clouduploader.errors import TargetDataError
from clouduploader.platforms.ec2 import fields
from clouduploader.platforms.ec2.settings import METHODS, Ec2Settings
from clouduploader.plugin.fields import is_allowed, json_schema
from clouduploader.store import target_data

# As OBS's frontend sends it; the order of its columns and form.
OBS = {
    "user_id": 7,
    "external_id": "abcdefghijkmnopqrstuvwxy",
    "arn": "arn:aws:iam::123456789012:role/obs",
    "region": "us-east-1",
    "ami_name": "openSUSE-Leap.x86_64",
    "vpc_subnet_id": "",
}
ORGANIZATION = "arn:aws:organizations::123456789012:"
UNIT = f"{ORGANIZATION}ou/o-a1b2c3d4e5/ou-ab12-11111111"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/k"
BY_NAME = {field.name: field for field in fields.FIELDS}


class Platform:
    @staticmethod
    def problems(found):
        return fields.problems(found, Ec2Settings())

    fields = fields.FIELDS


def ahead(days):
    """The day that is so many days ahead."""
    return str(datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=days))


def read(document):
    return target_data.read(json.dumps(document).encode(), Platform(), NoKeys())


class NoKeys:
    gpg = rsa = None


def is_taken(name, value):
    return is_allowed(BY_NAME[name], value)


def test_target_data_of_obs_are_taken():
    found = read(OBS)
    assert found.values == {key: OBS[key] for key in ("external_id", "arn", "region", "ami_name")}
    assert found.unknown_keys == ("user_id",)


@pytest.mark.parametrize("absent", ["", None])
def test_user_without_a_role_is_told_so(absent):
    with pytest.raises(TargetDataError, match=r"arn is empty: the user has no role configured$"):
        read({**OBS, "arn": absent})


def test_target_data_by_hand_need_no_role():
    assert read({"region": "eu-west-1", "ami_name": "abc"}).values == {"region": "eu-west-1", "ami_name": "abc"}


@pytest.mark.parametrize("name", ["region", "ami_name"])
def test_required_fields_are_asked_for(name):
    with pytest.raises(TargetDataError, match=f"{name} is missing"):
        read({**OBS, name: ""})


def test_every_region_of_botocore_is_taken():
    text = resources.files("botocore").joinpath("data/endpoints.json").read_text()
    regions = [region for partition in json.loads(text)["partitions"] for region in partition["regions"]]
    assert len(regions) > 30
    assert [region for region in regions if not is_taken("region", region)] == []


@pytest.mark.parametrize(
    "region",
    ["us-east", "us-east-1,us-east-2", "US-EAST-1", "us-east-1a", "us-east-1\n", "../x-y-1", "us east-1", "-a-1"],
)
def test_what_is_no_region_is_refused(region):
    assert not is_taken("region", region)


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:iam::123456789012:role/obs",
        "arn:aws-cn:iam::123456789012:role/obs",
        "arn:aws-us-gov:iam::123456789012:role/a/path/!to/obs",
        "arn:aws-iso-b:iam::123456789012:role/service-role/A_b+c=d,e.f@g-h",
    ],
)
def test_role_of_every_partition_and_path_is_taken(arn):
    assert is_taken("arn", arn)


@pytest.mark.parametrize(
    "arn",
    [
        "obs",
        "arn:aws:iam::12345678901:role/obs",
        "arn:aws:iam::123456789012:user/obs",
        "arn:aws:sts::123456789012:assumed-role/obs/x",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/obs ",
        "arn:aws:iam::123456789012:role/obs\n",
        f"arn:aws:iam::123456789012:role/{'x' * 65}",
        f"arn:aws:iam::123456789012:role/{'x' * 2048}/obs",
    ],
)
def test_what_is_no_role_is_refused(arn):
    assert not is_taken("arn", arn)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("external_id", ["ab", "a" * 1224, "A1_+=,.@:/-"], ["a", "a" * 1225, "a b", "ä" * 2, "a*"]),
        ("ami_name", ["abc", "a" * 128, "A1 ()[]./-'@_", "---"], ["ab", "a" * 129, "a+b", "a:b", "äöü", "a\tb"]),
        ("vpc_subnet_id", ["subnet-0123456789abcdef0", "subnet-12345678"], ["subnet-x", "subnet-", "vpc-12345678"]),
        ("filename", ["a b.raw.xz", "ä" * 255], ["a/b", "a\nb", "a" * 256]),
        ("architecture", ["x86_64", "arm64", "i386"], ["aarch64", "i586", "X86_64"]),
        (
            "description",
            ["It's ~100% (a/b)", "a" * 255],
            ["a" * 256, "a\x1bb", "a\tb", "Größe", "a \u2013 b", "\U0001f427", "a\n"],
        ),
        ("tags", [{}, {"a": ""}], [{"a": 1}, [], "a"]),
        ("boot_mode", ["legacy-bios", "uefi", "uefi-preferred"], ["bios"]),
        ("ena_support", [True, False], ["true", 1]),
        ("sriov_support", [True, False], ["simple", 0]),
        ("imds_support", ["2.0", "v2.0", "optional"], ["1.0", 2.0, "none", "v1.0"]),
        ("tpm_support", ["2.0", "v2.0"], ["1.2"]),
        ("root_volume_size", [1, 65536], [0, 65537, "10", True, 1.5]),
        ("uefi_data", ["AAAA", "A" * 64000], ["A" * 64001, "A A", "A\nA=", "===="]),
        ("regions", [["eu-west-1"], ["all"], []], [["ALL"], ["eu-west"], "all"]),
        ("share_snapshot", [True, False], ["yes"]),
        (
            "share",
            [["123456789012", "public"], [f"{ORGANIZATION}organization/o-a1b2c3d4e5"], [UNIT]],
            [
                ["12345678901"],
                ["all"],
                [f"{ORGANIZATION}organization/o-short"],
                [f"{ORGANIZATION}ou/o-a1b2c3d4e5"],
                [f"{ORGANIZATION}root/o-a1b2c3d4e5/r-abcd"],
                [f"{UNIT}/x"],
            ],
        ),
    ],
)
def test_limits_are_those_of_ec2(name, right, wrong):
    assert [value for value in right if not is_taken(name, value)] == []
    assert [value for value in wrong if is_taken(name, value)] == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"tpm_support": "v2.0", "boot_mode": "legacy-bios"}, "tpm_support needs boot_mode uefi"),
        ({"tpm_support": "v2.0", "boot_mode": "uefi-preferred"}, "tpm_support needs boot_mode uefi"),
        ({"architecture": "arm64", "boot_mode": "legacy-bios"}, "no instance of arm64 boots so"),
        ({"architecture": "i386", "boot_mode": "uefi-preferred"}, "no instance of i386 boots so"),
        ({"uefi_data": "AAAAA", "method": "ebs-direct"}, "uefi_data is not base64: it ends within a group"),
        ({"uefi_data": "AAA", "method": "ebs-direct"}, "uefi_data is not base64"),
        ({"root_volume_size": 16385}, "root_volume_size is 16385, but ec2uploadimg goes up to 16384"),
        ({"tags": {"a\nb": ""}}, "tags have a control character"),
        ({"tags": {"a": "b\x00"}}, "tags have a control character"),
        ({"kms_key_id": KEY, "method": "auto"}, "kms_key_id is a key in eu-west-1, but .* will be in us-east-1"),
        ({"kms_key_id": KEY.replace(":key/", ":alias/"), "method": "auto"}, "kms_key_id is a key in eu-west-1"),
        ({"kms_key_id": "arn:aws:s3:::a", "method": "auto"}, "kms_key_id is no ARN of a KMS key or alias"),
        ({"regions": ["eu-west-2"], "kms_keys": {"eu-west-2": KEY}}, "kms_keys of eu-west-2 is a key in eu-west-1"),
        ({"regions": ["cn-north-1"]}, "regions have cn-north-1 of the partition aws-cn, but us-east-1 is of aws"),
        ({"regions": ["us-gov-west-1"]}, "regions have us-gov-west-1 of the partition aws-us-gov"),
        ({"regions": ["xx-test-1"]}, "regions have xx-test-1, which is no region of AWS"),
        ({"share": [UNIT.replace("aws", "aws-cn", 1)]}, "which is not of the partition aws of us-east-1"),
        ({"share_snapshot": True}, "share_snapshot is true, but there is no share"),
        ({"share_snapshot": True, "share": ["1" * 12, UNIT]}, "a snapshot can't be shared with an organization"),
        ({"architecture": "arm64", "ena_support": False}, "arm64 needs it"),
        ({"tags": {f"t{number}": "" for number in range(48)}}, "tags are 48, but EC2 takes 50, and we need the rest"),
        ({"tags": {"clouduploader:key": "x"}}, "begins with clouduploader:, which is for"),
        ({"tags": {"": "x"}}, "a name that is not of 1 to 127"),
        ({"tags": {"x" * 128: "x"}}, "a name that is not of 1 to 127"),
        ({"tags": {"AWS:x": "x"}}, "a name that begins with aws:"),
        ({"tags": {"x": "x" * 257}}, "a value of more than 256"),
        ({"uefi_data": "AAAA", "method": "ebs-direct", "boot_mode": "legacy-bios"}, "uefi_data needs boot_mode"),
        ({"encrypted": True}, "encrypted needs method ebs-direct"),
        ({"kms_key_id": "alias/a"}, "kms_key_id needs method ebs-direct"),
        ({"uefi_data": "AAAA", "boot_mode": "uefi"}, "uefi_data needs method ebs-direct"),
        ({"zero_blocks": "skip"}, "zero_blocks needs method ebs-direct"),
        ({"verify": "full", "method": "ec2uploadimg"}, "verify needs method ebs-direct"),
        ({"keep": "snapshot"}, "keep needs method ebs-direct"),
        ({"kms_key_id": "alias/a", "encrypted": False, "method": "auto"}, "kms_key_id is given, but encrypted is"),
        ({"kms_keys": {"eu-west-1": "alias/a"}}, "kms_keys have a region that is not among regions"),
        ({"regions": ["all"], "kms_keys": {"us-east-1": "alias/a"}}, "kms_keys have us-east-1, where the image itself"),
        ({"share": ["public"], "encrypted": True, "method": "auto"}, "an encrypted image can't be public"),
        (
            {"share": ["public"], "regions": ["eu-west-2"], "kms_keys": {"eu-west-2": "alias/a"}},
            "image can't be public",
        ),
        ({"share": ["1" * 12], "kms_key_id": "alias/aws/ebs", "method": "auto"}, "a KMS key of AWS's own"),
        ({"regions": ["eu-west-2"], "kms_keys": {"eu-west-2": "a key"}}, "kms_keys have a value that is no key's id"),
        ({"deprecate_at": "2027-02-31"}, "deprecate_at is no date that the calendar has"),
        ({"deprecate_at": "2026-01-31"}, "deprecate_at is in the past"),
        ({"deprecate_at": ahead(3660)}, "deprecate_at is more than 10 years ahead"),
        ({"deprecate_at": ahead(740), "share": ["public"]}, "more than 2 years ahead, too far for a public image"),
    ],
)
def test_rules_between_fields_are_checked(extra, problem):
    with pytest.raises(TargetDataError, match=problem):
        read({**OBS, **extra})


@pytest.mark.parametrize(
    "extra",
    [
        {"tpm_support": "2.0", "boot_mode": "uefi"},
        {"tpm_support": "2.0"},
        {"uefi_data": "AAA=", "boot_mode": "uefi-preferred", "method": "ebs-direct"},
        {"root_volume_size": 65536, "method": "ebs-direct"},
        {"tags": {"Größe \u2013 大": "\U0001f427 ö"}},
        {"regions": ["all"], "kms_keys": {"eu-west-1": KEY}},
        {"regions": ["all"], "kms_key_id": "k", "kms_keys": {"us-east-1": "k"}, "method": "auto"},
        {"regions": ["ap-southeast-9"]},
        {"share": ["1" * 12, UNIT], "share_snapshot": False},
        {"share": ["1" * 12, "public"], "share_snapshot": True},
        {"architecture": "arm64"},
        {"architecture": "x86_64", "ena_support": False},
        {"tags": {"x" * 127: "x" * 256, "aws": "aws:"}},
        {"tags": {f"t{number}": "" for number in range(47)}},
        {"encrypted": False, "verify": "none", "keep": "nothing", "zero_blocks": "send"},
        {"kms_key_id": "alias/a", "encrypted": True, "keep": "snapshot", "method": "ebs-direct"},
        {"tpm_support": "2.0", "uefi_data": "AAAA", "method": "auto"},
        {"regions": ["eu-west-2"], "kms_keys": {"eu-west-2": "alias/a"}, "share": ["123456789012"]},
        {"regions": ["eu-west-2"], "share": ["public"]},
        {"deprecate_at": ahead(3640)},
        {"deprecate_at": f"{ahead(720)}T12:00Z", "share": ["public"]},
    ],
)
def test_what_goes_together_is_taken(extra):
    assert extra.items() <= read({**OBS, **extra}).values.items()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2027-01-31", "2027-01-31T00:00:00+00:00"),
        ("2027-01-31T12:30Z", "2027-01-31T12:30:00+00:00"),
        ("2027-01-31T12:30:05Z", "2027-01-31T12:30:05+00:00"),
    ],
)
def test_moment_is_in_utc(text, expected):
    found = fields.moment(text)
    assert (found and found.isoformat()) == expected


@pytest.mark.parametrize("chosen", [None, *METHODS])
def test_method_is_that_of_the_data_or_else_of_the_settings(chosen):
    data = {"method": chosen} if chosen else {}
    assert fields.method(data, Ec2Settings(method="auto")) == (chosen or "auto")


def test_words_are_those_of_the_service_models():
    import botocore.session

    session = botocore.session.get_session()
    ec2, sts = session.get_service_model("ec2"), session.get_service_model("sts")
    assert list(BY_NAME["boot_mode"].allowed) == ec2.shape_for("BootModeValues").enum
    assert set(BY_NAME["architecture"].allowed) <= set(ec2.shape_for("ArchitectureValues").enum)
    assert set(fields.VERSIONS) >= {*ec2.shape_for("TpmSupportValues").enum, *ec2.shape_for("ImdsSupportValues").enum}
    lengths = sts.shape_for("externalIdType").metadata
    assert (BY_NAME["external_id"].min_length, BY_NAME["external_id"].max_length) == (lengths["min"], lengths["max"])
    assert BY_NAME["arn"].max_length == sts.shape_for("arnType").metadata["max"]
    for field, shape in (("ami_name", "ImageNameRequest"), ("description", "ImageDescriptionRequest")):
        if shape in ec2.shape_names:  # an old SDK says nothing of the lengths
            lengths = ec2.shape_for(shape).metadata
            assert (BY_NAME[field].min_length or 0, BY_NAME[field].max_length) == (lengths["min"], lengths["max"])


scalars = st.none() | st.booleans() | st.integers(-1, 20000)
some = [*OBS.values(), *fields.VERSIONS, "uefi", "x86_64", "subnet-12345678", "us-east-1\n"]
words = st.sampled_from(some) | st.text()


@hypothesis.given(data=st.data(), field=st.sampled_from(fields.FIELDS))
def test_schema_and_check_agree(data, field):
    values = scalars | words
    if field.pattern:
        values |= st.from_regex(field.pattern) | st.from_regex(field.pattern, fullmatch=True)
    value = data.draw(values)
    platform = Platform()
    platform.fields = [dataclasses.replace(field, is_required=False)]
    platform.problems = lambda found: []
    document = {field.name: value}
    try:
        target_data.read(json.dumps(document).encode(), platform, NoKeys())
        is_right = True
    except TargetDataError:
        is_right = False
    assert jsonschema.Draft202012Validator(json_schema(platform.fields)).is_valid(document) == is_right
