"""A cloud as an argument of a command line, and as the command `sandbox` asks it."""

import dataclasses

import pytest

from clouduploader.sandbox import registry
from clouduploader.sandbox.aws.cloud import AwsCloud
from clouduploader.sandbox.cloud import CloudOption
from clouduploader.uploads.registry import load_without_settings


def test_no_two_clouds_have_an_option_of_the_same_name():
    names = [field.metadata["option"].name for cloud in registry.CLOUDS.values() for field in dataclasses.fields(cloud)]
    assert len(set(names)) == len(names)


def test_cloud_gets_through_a_command_line_with_its_options():
    decoded = registry.decode(registry.encode(AwsCloud(regions=("eu-west-1", "us-east-1"), wait_factor=0.5)))
    assert isinstance(decoded, AwsCloud)
    assert (list(decoded.regions), decoded.wait_factor) == (["eu-west-1", "us-east-1"], 0.5)


@pytest.mark.parametrize("cloud", registry.CLOUDS.values(), ids=list(registry.CLOUDS))
def test_each_field_of_a_cloud_is_an_option_with_a_default(cloud):
    options = [field.metadata["option"] for field in dataclasses.fields(cloud)]
    assert all(isinstance(option, CloudOption) and option.help.endswith(".") for option in options)
    assert len({option.name for option in options}) == len(options)
    assert isinstance(cloud(), cloud)


@pytest.mark.parametrize("cloud", registry.CLOUDS.values(), ids=list(registry.CLOUDS))
def test_account_of_a_cloud_is_one_of_its_target(cloud):
    class Described(dict):
        def __missing__(self, key):
            return key

    fields = {field.name for field in load_without_settings(cloud.target).fields if field.is_of_account}
    assert set(cloud().account_values(Described())) <= fields
