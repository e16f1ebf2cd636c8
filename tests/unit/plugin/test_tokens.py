import pytest

from clouduploader.errors import ClouduploaderError, CredentialsError, PlatformReplyError
from clouduploader.plugin import tokens
from clouduploader.plugin.http import Answer


def read(status, data):
    return tokens.read(Answer(status, {}, data), subject="the token", hint="Look.")


def test_token_is_read_with_its_life():
    assert read(200, b'{"access_token": "t", "expires_in": "3599"}') == ("t", 3599.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"access_token": "t"}',
        b'{"access_token": "t", "expires_in": []}',
        b'{"access_token": "t", "expires_in": 1%s}' % (b"0" * 400),
        b'{"access_token": null, "expires_in": 1}',
        b'{"access_token": "", "expires_in": 1}',
        b'{"access_token": {"a": 1}, "expires_in": 1}',
    ],
)
def test_what_is_no_token_is_told(data):
    with pytest.raises(PlatformReplyError, match=r"^the token: HTTP status 200$"):
        read(200, data)


@pytest.mark.parametrize(
    ("status", "data", "kind", "words"),
    [
        (401, b'{"error": "invalid_client", "error_description": "Wrong.\\nTrace"}', CredentialsError, "Wrong."),
        (400, b'{"error": "invalid_grant"}', CredentialsError, "invalid_grant"),
        (400, b"{}", CredentialsError, "HTTP status 400"),
        (503, b"{}", ClouduploaderError, "HTTP status 503"),
    ],
)
def test_refusal_is_told_in_the_words_of_the_server(status, data, kind, words):
    with pytest.raises(kind, match=f"^the token: {words}$"):
        read(status, data)
