import pytest

from clouduploader.errors import ConfigError
from clouduploader.platforms.ec2 import settings


def test_empty_section_gives_the_defaults():
    assert settings.read({}) == settings.Ec2Settings()


def test_values_are_read_by_their_types():
    found = settings.read({"profile": "obs", "session_seconds": "7200", "ssh_cidr": "10.0.0.0/8", "grace_seconds": "0"})
    assert (found.profile, found.session_seconds, found.ssh_cidr, found.grace_seconds) == ("obs", 7200, "10.0.0.0/8", 0)
    assert found.wait_count == settings.Ec2Settings().wait_count


def test_defaults_are_within_the_limits():
    for key, (low, high) in settings.LIMITS.items():
        assert low <= getattr(settings.Ec2Settings(), key) <= high


@pytest.mark.parametrize("key", settings.LIMITS)
def test_number_at_its_limits_is_taken_and_beyond_refused(key):
    low, high = settings.LIMITS[key]
    for number in (low, high):
        assert getattr(settings.read({key: str(number)}), key) == number
    for number in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=rf"setting '{key}' .* is '{number}', not a number from {low} to {high}"):
            settings.read({key: str(number)})


@pytest.mark.parametrize("text", ["", "1h", "1800.0", "0x708", "²", "9" * 5000])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ConfigError, match="session_seconds"):
        settings.read({"session_seconds": text})


@pytest.mark.parametrize("method", settings.METHODS)
def test_method_is_one_of_three(method):
    assert settings.read({"method": method}).method == method


def test_file_digest_is_one_of_two():
    assert settings.read({"file_digest": "always"}).file_digest == "always"
    with pytest.raises(ConfigError, match=r"'file_digest' .* is 'yes', not one of free, always"):
        settings.read({"file_digest": "yes"})


@pytest.mark.parametrize("method", ["", "ebs", "EBS-direct"])
def test_other_method_is_refused(method):
    with pytest.raises(ConfigError, match=f"'method' .* is '{method}', not one of ec2uploadimg, ebs-direct, auto"):
        settings.read({"method": method})


@pytest.mark.parametrize(
    ("roles", "arn", "is_allowed"),
    [
        ("*", "arn:aws:iam::123456789012:role/obs", True),
        ("arn:aws:iam::*:role/clouduploader/*", "arn:aws:iam::123456789012:role/clouduploader/tom", True),
        ("arn:aws:iam::*:role/clouduploader/*", "arn:aws:iam::123456789012:role/obs", False),
        ("arn:aws:iam::*:role/clouduploader/*", "arn:aws:iam::123456789012:role/clouduploader", False),
        ("arn:aws:iam::*:role/a? arn:aws:iam::*:role/b", "arn:aws:iam::123456789012:role/ab", True),
        ("arn:aws:iam::*:role/a? arn:aws:iam::*:role/b", "arn:aws:iam::123456789012:role/b", True),
        ("arn:aws:iam::*:role/a?", "arn:aws:iam::123456789012:role/a", False),
        ("arn:aws:iam::*:role/[ab]", "arn:aws:iam::123456789012:role/a", False),
        ("arn:aws:iam::*:role/x", "arn:aws:iam::1:role/x\nrole/y", False),
    ],
)
def test_roles_are_named_by_patterns_as_in_a_policy(roles, arn, is_allowed):
    assert settings.read({"roles": roles}).is_role_allowed(arn) is is_allowed


def test_setting_that_lets_no_role_be_assumed_is_refused():
    with pytest.raises(ConfigError, match="no role could be assumed"):
        settings.read({"roles": " "})
