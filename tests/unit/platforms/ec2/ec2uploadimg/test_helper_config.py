import os

import pytest

from clouduploader.errors import ConfigError
from clouduploader.platforms.ec2.ec2uploadimg import helper_config

GOOD = "[region-eu-west-1]\nami = ami-0123456789abcdef0\ninstance_type = t2.micro\nuser = ec2-user\n"


@pytest.fixture
def make_home(tmp_path):
    """A factory of a home with this .ec2utils.conf."""

    def make(text):
        (tmp_path / ".ec2utils.conf").write_bytes(os.fsencode(text))
        return tmp_path

    return make


def test_helper_is_that_of_the_region(make_home):
    home = make_home(f"[account-x]\naccess_key_id = %A\n{GOOD}[region-us-east-1]\nami = x\n")
    assert helper_config.helper(home, "eu-west-1") == helper_config.HelperInstance(
        "ami-0123456789abcdef0", "t2.micro", "ec2-user"
    )
    assert helper_config.names(home) == ["eu-west-1", "us-east-1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"region eu-west-1 is not configured: .*\.ec2utils\.conf has no section \[region-eu-west-1\]"),
        (GOOD.replace("user = ec2-user", ""), "lacks user"),
        ("[region-eu-west-1]\nami =\n", "lacks ami, instance_type, user"),
        (GOOD.replace("ami-0", "img-0"), "ami is 'img-.*not the id of an AMI"),
        (GOOD.replace("t2.micro", "t3.micro"), "instance_type is t3.micro, on which ec2uploadimg can't find its disks"),
        (GOOD.replace("[region-eu-west-1]", ""), "is not an INI file"),
        (GOOD + GOOD, "is not an INI file"),
        (GOOD + "x = \udcff", "is not an INI file"),
    ],
)
def test_unusable_configuration_is_refused_with_its_place(make_home, text, words):
    home = make_home(text)
    with pytest.raises(ConfigError, match=words) as caught:
        helper_config.helper(home, "eu-west-1")
    assert str(home / ".ec2utils.conf") in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_file_is_an_error_with_its_purpose(tmp_path):
    for ask in (helper_config.names, lambda home: helper_config.helper(home, "eu-west-1")):
        with pytest.raises(ConfigError, match=r"ec2utils\.conf can't be read: No such file") as caught:
            ask(tmp_path)
        assert "helper instance" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "is_xen"), [("t2.micro", True), ("m4.large", True), ("t3.micro", False), ("t2a.x", False)]
)
def test_xen_is_told_by_the_family(kind, is_xen):
    assert helper_config.HelperInstance("ami-1", kind, "root").is_xen is is_xen
