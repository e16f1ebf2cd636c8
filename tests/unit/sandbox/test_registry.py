"""A cloud as an argument of a command line."""

from clouduploader.sandbox import registry
from clouduploader.sandbox.aws.cloud import AwsCloud


def test_cloud_gets_through_a_command_line_with_its_options():
    decoded = registry.decode(registry.encode(AwsCloud(regions=("eu-west-1", "us-east-1"), wait_factor=0.5)))
    assert isinstance(decoded, AwsCloud)
    assert (list(decoded.regions), decoded.wait_factor) == (["eu-west-1", "us-east-1"], 0.5)
