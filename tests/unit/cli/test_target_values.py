import json
import os

import pytest

from clouduploader.cli import target_values
from clouduploader.errors import ClouduploaderError, TargetDataError
from clouduploader.store import config


@pytest.fixture
def make_config(tmp_path):
    """Return a function that reads the settings of an empty home, in an environment."""
    return lambda environment: config.load(home=tmp_path, spool=tmp_path, environment=environment)


@pytest.fixture
def gathered_region(tmp_path, make_config, monkeypatch):
    """Return a function that gives the region of target data of no --region, in an environment."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[default]\nregion = sa-east-1\n[profile far]\nregion = af-south-1\n")

    def gather(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        found = make_config(os.environ)
        return json.loads(target_values.gather(found, "ec2", None, {"ami_name": "abc"}))["region"]

    return gather


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"AWS_PROFILE": "far"}, "af-south-1"),
        ({}, "sa-east-1"),
    ],
)
def test_region_is_that_of_the_aws_command_where_none_is_given(gathered_region, environment, region):
    assert gathered_region(**environment) == region


def test_profile_that_is_not_there_is_an_error_of_ours(gathered_region):
    with pytest.raises(ClouduploaderError, match="nosuch"):
        gathered_region(AWS_PROFILE="nosuch")


def test_value_that_the_sdk_does_not_know_is_named_with_what_is_near(make_config):
    given = {"region": "us-esat-1", "regions": ["all", "eu-west-1", "eu-wset-3"], "ami_name": "any", "method": "auto"}
    assert target_values.unknown_values(make_config({}), "ec2", given) == [
        '--region is "us-esat-1", which is not known here (did you mean us-east-1?)',
        '--copy-to is "eu-wset-3", which is not known here (did you mean eu-west-3?)',
    ]
    assert target_values.unknown_values(make_config({}), "directory", {"filename": "x"}) == []


def test_setting_is_that_of_the_option(make_config):
    found = target_values.with_settings(make_config({}), "ec2", {"method": "ebs-direct"})
    assert found.platforms["ec2"]["method"] == "ebs-direct"
    with pytest.raises(TargetDataError, match=r'--method is "ebsdirect", .*did you mean ebs-direct'):
        target_values.with_settings(make_config({}), "ec2", {"method": "ebsdirect"})
