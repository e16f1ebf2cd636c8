import pytest

from clouduploader.errors import ConfigError
from clouduploader.platforms.azure import settings


def test_defaults_can_be_read():
    assert settings.read(settings.DEFAULTS) == settings.AzureSettings()


@pytest.mark.parametrize("cloud", ["public", "china", "usgov", "https://management.local.azurestack.external"])
def test_clouds_are_names_or_addresses(cloud):
    assert settings.read({"cloud": cloud}).cloud == cloud


@pytest.mark.parametrize(
    ("key", "text"),
    [("cloud", "moon"), ("cloud", "http://insecure"), ("method", "ftp"), ("connections", "0"), ("connections", "x")],
)
def test_wrong_value_is_named(key, text):
    with pytest.raises(ConfigError, match=f"'{key}' in .azure. of clouduploader.conf is '{text}'"):
        settings.read({key: text})


def test_public_clouds_have_addresses_of_their_own():
    found = [cloud.resource_manager for cloud in settings.CLOUDS.values()]
    assert len(set(found)) == len(found) == 3
