"""The keys of section `[server]` that say how users sign in."""

from pathlib import Path

import pytest

from clouduploader.errors import ConfigError
from clouduploader.server import settings
from clouduploader.server.signin.settings import Way, is_safe_url

OPENID = {"sign_in": "openid", "openid_issuer": "https://id.example.org/x", "openid_client_id": "uploads",
          "openid_users": "any"}  # fmt: skip


def load(**section):
    return settings.load(section, Path("x.conf")).sign_in


def test_there_is_no_sign_in_unless_it_is_set():
    assert load().ways == load(sign_in="none").ways == ()
    assert load(**OPENID | {"sign_in": "none", "openid_issuer": "nonsense"}).openid is None


def test_ways_and_times_are_read():
    found = load(**OPENID | {"sign_in": "token openid token", "session_idle_seconds": "60"})
    assert found.ways == (Way.TOKEN, Way.OPENID)
    assert (found.session_idle_seconds, found.session_max_seconds) == (60, 43_200)


def test_provider_is_read_with_its_defaults():
    found = load(**OPENID).openid
    assert (found.name, found.user_claim, found.role_claim) == ("id.example.org", "sub", "groups")
    assert (found.scopes, found.users, found.admins) == (("openid", "profile"), ("any",), ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sign_in": "password"}, "sign_in is 'password', not none, token or openid"),
        ({"sign_in": "none token"}, "sign_in is 'none'"),
        ({"hosts": "a.example:80"}, "hosts has 'a.example:80', not a name"),
        ({"hosts": "https://a.example"}, "hosts has 'https://a.example'"),
        ({"hosts": "::1"}, "hosts has '::1'"),
        ({"session_idle_seconds": "5"}, "session_idle_seconds is '5', not a number from 60"),
        ({"session_max_seconds": "9999999"}, "not a number from 60 to 2592000"),
        ({"openid_issuer": ""}, "so openid_issuer is needed"),
        ({"openid_client_id": ""}, "so openid_client_id is needed"),
        ({"openid_issuer": "http://id.example.org"}, "not a URL with https"),
        ({"openid_users": ""}, "neither openid_users nor openid_admins says who may sign in"),
    ],
)
def test_wrong_value_is_told(changes, words):
    with pytest.raises(ConfigError) as caught:
        load(**OPENID | changes)
    assert words in caught.value.message
    assert caught.value.message.startswith("x.conf: ")


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [("https://id.example.org", True), ("https://id.example.org:8443/x?y=z", True), ("http://127.0.0.1:8080", True),
     ("http://[::1]/x", True), ("http://localhost", False), ("http://id.example.org", False), ("https://", False),
     ("https://user@id.example.org", False), ("https://[", False), ("", False), ("ftp://127.0.0.1", False)],
)  # fmt: skip
def test_url_is_safe_by_tls_or_on_this_host(url, is_safe):
    assert is_safe_url(url) is is_safe
