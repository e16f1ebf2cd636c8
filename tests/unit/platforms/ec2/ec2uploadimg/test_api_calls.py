import pytest

from clouduploader.platforms.ec2 import cleanup
from clouduploader.platforms.ec2.ec2uploadimg import api_calls
from clouduploader.plugin import CloudObject

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
    assert api_calls.made(operation, answer, REGION) == (expected and thing(*expected))


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
    assert api_calls.removed(operation, parameters, REGION) == [thing(*pair) for pair in expected]


def test_every_kind_that_is_removed_is_one_that_is_made():
    kinds = {kind for kind, _name in (*api_calls.MAKERS.values(), *api_calls.REMOVERS.values())}
    assert kinds == set(cleanup.KINDS)
