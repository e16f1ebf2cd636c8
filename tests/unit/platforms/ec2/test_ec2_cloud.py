"""The double of EC2 is no kinder than EC2: what the others' tests rest on."""

import botocore.exceptions
import pytest
from fakes.aws_sdk import Refusal
from fakes.ec2_cloud import Ec2Cloud


@pytest.fixture
def cloud():
    return Ec2Cloud()


def test_request_that_the_api_does_not_have_is_refused_by_the_sdk(cloud):
    with pytest.raises(botocore.exceptions.ParamValidationError, match='Unknown parameter in input: "Name"'):
        cloud.client("ec2").describe_images(Name="my image")
    assert cloud.calls == []


def test_answer_that_the_api_does_not_give_fails_the_test(cloud):
    image_id = cloud.add_image("my image", {})
    cloud.images[image_id]["Tags"] = {"made by": "us"}
    with pytest.raises(pytest.fail.Exception, match="DescribeImages"):
        cloud.client("ec2").describe_images(ImageIds=[image_id])


def test_request_against_a_rule_fails_the_test(cloud):
    with pytest.raises(pytest.fail.Exception, match="StartSnapshot"):
        cloud.client("ebs").start_snapshot(VolumeSize=1, ClientToken="t", Tags=[{"Key": "a", "Value": "x" * 256}])


def test_refusal_is_the_error_that_the_sdk_makes_of_it(cloud):
    cloud.faults["DeleteSnapshot"] = [Refusal("UnauthorizedOperation", "You may not.")]
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        cloud.client("ec2").delete_snapshot(SnapshotId="snap-1")
    assert caught.value.operation_name == "DeleteSnapshot"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_disabled_image_shows_only_where_it_is_asked_for(cloud):
    cloud.add_image("my image", {}, state="disabled")
    ec2 = cloud.client("ec2")
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    assert len(ec2.describe_images(Owners=["self"], IncludeDisabled=True)["Images"]) == 1
