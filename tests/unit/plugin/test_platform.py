import pytest

from clouduploader.errors import (
    AbsentError,
    ConfigError,
    CredentialsError,
    DeniedError,
    NetworkError,
    PlatformReplyError,
    ThrottledError,
    TransientError,
    http_error,
)
from clouduploader.plugin import Platform, PlatformContext


class Small(Platform):
    settings_defaults = {"color": "red", "size": ""}  # noqa: RUF012

    def upload(self, ctx):
        raise NotImplementedError

    def remove(self, ctx, thing):
        raise NotImplementedError


def make(**settings):
    return Small(PlatformContext(home=None, settings=settings, environment={}, target="small"))


def test_settings_have_defaults():
    assert make(size="1").settings == {"color": "red", "size": "1"}


def test_setting_that_is_not_known_is_named_with_its_section():
    with pytest.raises(ConfigError) as caught:
        make(colour="red")
    assert caught.value.message == "unknown setting 'colour' in [small] of clouduploader.conf"
    assert caught.value.hint == "Known are: color, size."


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (None, NetworkError),
        (400, PlatformReplyError),
        (401, CredentialsError),
        (403, DeniedError),
        (404, AbsentError),
        (409, PlatformReplyError),
        (429, ThrottledError),
        (500, TransientError),
        (503, TransientError),
    ],
)
def test_http_status_has_its_error(status, error):
    found = http_error(status, subject="image x", message="Sorry.\nTrace: ...")
    assert type(found) is error
    assert found.message == "image x: Sorry"  # the full stop is `sentence`'s
