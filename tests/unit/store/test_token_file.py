import datetime

import pytest

from clouduploader.errors import ConfigError
from clouduploader.store import home, token_file, tokens
from clouduploader.util import masking

NOW = datetime.datetime(2026, 11, 29, 9, 0, tzinfo=datetime.UTC)


@pytest.fixture
def token(tmp_path_factory):
    store = tokens.TokenStore(tmp_path_factory.mktemp("server"))
    return store.create("tom", tokens.Role.USER, note="", expires=None, now=NOW)[1]


@pytest.fixture
def put(tmp_path):
    """Return a function that puts the file into the home."""

    def put(content, mode=0o600):
        path = tmp_path / home.TOKEN
        path.write_bytes(content)
        path.chmod(mode)

    return put


@pytest.mark.parametrize("around", ["{}", "{}\n", "  {}\r\n\n"])
def test_token_is_read_without_what_is_around_it(put, tmp_path, token, around):
    put(around.format(token).encode())
    assert token_file.read(tmp_path) == token
    assert token not in masking.masked(f"it is {token}")


def test_home_without_a_token_has_none(tmp_path):
    assert token_file.read(tmp_path) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_token_that_others_can_get_at_is_refused(put, tmp_path, token, mode):
    put(token.encode(), mode)
    with pytest.raises(ConfigError, match=f"other users can get at the token in .*{mode:04o}") as caught:
        token_file.read(tmp_path)
    assert caught.value.hint.startswith("Revoke it")
    assert home.FORBIDDEN[home.TOKEN] & mode


def test_what_is_no_token_is_refused_and_not_shown(put, tmp_path, token):
    for text in (b"", b"s3cret", token[:-1].encode(), token.swapcase().encode(), f"{token}\n{token}".encode(), b"\xff"):
        put(text)
        with pytest.raises(ConfigError, match="token holds no token, or not all of one") as caught:
            token_file.read(tmp_path)
        assert token[20:40] not in caught.value.sentence()
        assert "s3cret" not in caught.value.sentence()


def test_link_and_directory_are_refused(tmp_path, token):
    (tmp_path / "elsewhere").write_text(token)
    (tmp_path / home.TOKEN).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="can't be read"):
        token_file.read(tmp_path)
    (tmp_path / home.TOKEN).unlink()
    (tmp_path / home.TOKEN).mkdir()
    with pytest.raises(ConfigError, match="can't be read"):
        token_file.read(tmp_path)
