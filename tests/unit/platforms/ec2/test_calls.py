import pytest

from clouduploader.platform import CloudObject
from clouduploader.platforms.ec2 import calls

REGION = "eu-west-1"


def thing(kind, item):
    return CloudObject(kind, item, REGION)


@pytest.mark.parametrize(
    ("operation", "answer", "expected"),
    [
        ("CreateKeyPair", {"KeyName": "k"}, ("key pair", "k")),
        ("CreateVpc", {"Vpc": {"VpcId": "vpc-1"}}, ("vpc", "vpc-1")),
        ("RunInstances", {"Instances": [{"InstanceId": "i-1"}]}, ("instance", "i-1")),
        ("CreateSecurityGroup", {"GroupId": "sg-1"}, ("security group", "sg-1")),
        ("RegisterImage", {"ImageId": "ami-1"}, ("image", "ami-1")),
        ("DescribeImages", {}, None),
        ("CreateTags", {}, None),
    ],
)
def test_what_a_call_made_is_known(operation, answer, expected):
    assert calls.made(operation, answer, REGION) == (expected and thing(*expected))


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("DeleteKeyPair", {"KeyName": "k"}, [("key pair", "k")]),
        ("TerminateInstances", {"InstanceIds": ["i-1", "i-2"]}, [("instance", "i-1"), ("instance", "i-2")]),
        ("DetachVolume", {"VolumeId": "vol-1"}, []),
        ("DeleteVolume", {}, []),
    ],
)
def test_what_a_call_removed_is_known(operation, parameters, expected):
    assert calls.removed(operation, parameters, REGION) == [thing(*pair) for pair in expected]


def test_every_kind_that_is_removed_is_one_that_is_made():
    assert {kind for kind, _name in calls.REMOVERS.values()} <= set(calls.KINDS)
